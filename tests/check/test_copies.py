"""Images that are twice in a dataset, found in files that were made to be copies."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnext.check.duplicates import find_pairs
from resnext.check.images import check_images
from resnext.check.looks import Look, look_at
from resnext.data.images import load_images
from resnext.data.scan import scan_class_folders
from support.small_run import small_config


def picture(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Smooth colours, as in a photograph."""
    colors = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(colors).resize(size, Image.Resampling.BICUBIC)


def save(folder: Path, name: str, image: Image.Image, quality: int = 90) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / name, quality=quality)


def looks_of(root: Path) -> list[Look]:
    index = scan_class_folders(root, root)
    return look_at(index, index, full=True)[0]


def test_copies_are_found_and_other_pictures_are_not(tmp_path: Path):
    """30 pictures, 10 of them also at half the size and JPEG quality 50, 5 of them as a copy of the file."""
    for number in range(30):
        save(tmp_path / "a", f"{number:02}.jpg", picture(number))
    for number in range(10):
        save(tmp_path / "b", f"half{number:02}.jpg", picture(number).resize((160, 120)), quality=50)
    for number in range(20, 25):
        (tmp_path / f"b/same{number}.jpg").write_bytes((tmp_path / f"a/{number}.jpg").read_bytes())
    found = find_pairs(looks_of(tmp_path))
    assert [(pair.one, pair.other) for pair in found if not pair.is_same] == [(n, 30 + n) for n in range(10)]
    assert [(pair.one, pair.other) for pair in found if pair.is_same] == [(20 + n, 40 + n) for n in range(5)]


def test_pictures_without_contrast_are_no_copies(tmp_path: Path):
    for level in range(10):
        save(tmp_path / "a", f"{level}.png", Image.new("RGB", (40, 40), (level, level, level)))
    assert find_pairs(looks_of(tmp_path)) == []


def test_leaks_copies_and_contradictions_are_told_apart(tmp_path: Path):
    for name, number in (("train/cat", 0), ("train/dog", 1), ("val/cat", 2), ("val/dog", 3)):
        save(tmp_path / name, "own.jpg", picture(number))
    save(tmp_path / "val/cat", "leak.jpg", picture(0).resize((200, 150)))
    save(tmp_path / "train/dog", "twin.jpg", picture(1))
    save(tmp_path / "val/cat", "other.jpg", picture(3))
    config = small_config(tmp_path)
    said = [each.text for each in check_images(config, *load_images(config.data), full=True) if each.level == "warn"]
    assert "1 image is in training and validation (val/cat/leak.jpg looks like train/cat/own.jpg)" in said
    assert "1 image is in two classes (val/dog/own.jpg is val/cat/other.jpg)" in said
    assert "1 image is twice in a split (train/dog/twin.jpg is train/dog/own.jpg)" in said


def test_unreadable_files_are_named(tmp_path: Path):
    for number, folder in enumerate(("train/cat", "train/dog", "val/cat", "val/dog")):
        save(tmp_path / folder, "1.jpg", picture(number))
    buffer = io.BytesIO()
    picture(7).save(buffer, "JPEG")
    (tmp_path / "train/cat/2.jpg").write_bytes(buffer.getvalue()[:2000])
    config = small_config(tmp_path)
    (found,) = [each for each in check_images(config, *load_images(config.data), full=False) if each.subject == "files"]
    assert found.level == "fail"
    assert found.text.startswith(f"1 of 5 images cannot be read, the first is {tmp_path}/train/cat/2.jpg (")
    assert found.remedy == "replace or remove them, or skip them (data.max_skipped=1)"
    config = small_config(tmp_path, data__max_skipped=1)
    (found,) = [each for each in check_images(config, *load_images(config.data), full=False) if each.subject == "files"]
    assert found.level == "warn"


def test_a_sample_is_called_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("resnext.check.looks.SAMPLE", 2)
    for split in ("train", "val"):
        for number in range(4):
            save(tmp_path / split / f"class{number % 2}", f"{number}.jpg", picture(number + 10 * (split == "val")))
    config = small_config(tmp_path)
    for full, said in (
        (False, "all of 4 of 8 images can be read; --full reads every image"),
        (True, "all of 8 images can"),
    ):
        found = [str(each) for each in check_images(config, *load_images(config.data), full=full)]
        assert any(each.startswith(said) for each in found)
