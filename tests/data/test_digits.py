"""The embedded dataset of digits."""

import multiprocessing
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from resnext.data.digits import prepare_digits
from resnext.data.index_cache import load_splits


def test_every_image_appears_once_with_its_label(digits: Path):
    levels, labels = load_digits(return_X_y=True)
    found = {path.stem: path for path in digits.glob("*/*/*.png")}
    assert len(found) == 1797
    for number, path in found.items():
        assert path.parent.name == str(labels[int(number)])
        pixels = np.asarray(Image.open(path)).reshape(-1)
        assert np.array_equal(np.round(pixels / 255 * 16), levels[int(number)])


def test_the_split_is_stratified(digits: Path):
    train, val = load_splits(digits)
    assert (len(train), len(val)) == (1437, 360)
    counts = Counter(val.labels.tolist())
    assert max(counts.values()) - min(counts.values()) <= 2


def test_two_processes_may_write_it_at_the_same_time(tmp_path: Path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(prepare_digits, [tmp_path / "digits"] * 3)
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
    assert len(list((tmp_path / "digits").glob("*/*/*.png"))) == 1797


def test_few_digits_are_stratified_and_all_others_are_for_validation(tmp_path: Path):
    prepare_digits(tmp_path / "few", 200)
    counts = {split: len(list((tmp_path / "few" / split).glob("*/*.png"))) for split in ("train", "val")}
    assert counts == {"train": 200, "val": 1597}
    assert {len(list(folder.iterdir())) for folder in (tmp_path / "few/train").iterdir()} <= {19, 20, 21}
