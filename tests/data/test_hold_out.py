"""data.val_fraction: each image is in one split, and new images move none. Also the test split."""

import os
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from resnext.config.data import DataConfig
from resnext.config.schema import parse_config, to_dict
from resnext.data import image_check, index_cache
from resnext.data.hold_out import hash_path, hold_out
from resnext.data.image_check import ImageCheck
from resnext.data.images import load_images, load_other_images, load_split
from resnext.data.index import ImageIndex, identify_data
from resnext.data.index_cache import load_splits
from resnext.data.listing import index_images
from resnext.errors import UserError
from resnext.prepare.pack import prepare_pack
from resnext.run.identity import describe_differences
from support.old_folders import age, settle
from support.small_run import small_config, write_images


def config_of(root: Path, val_fraction: float | None = 0.3, **changes: object) -> DataConfig:
    return DataConfig(name="image_folder", root=str(root), val_fraction=val_fraction, **changes)


def draw_names(seed: int, sizes: list[int]) -> set[tuple[str, str]]:
    """(path, class) of the given number of images of each class, with random names."""
    random = np.random.default_rng(seed)
    return {
        (f"class{label}/{random.integers(2**48)}.jpg", f"class{label}")
        for label, n in enumerate(sizes)
        for _ in range(n)
    }


def split(names: set[tuple[str, str]], fraction: float) -> tuple[set[str], set[str]]:
    """The paths of both splits."""
    every, _ = index_images(Path("images"), names, names)
    train, val = hold_out(every, fraction)
    assert (train.root, train.classes) == (val.root, val.classes) == (every.root, every.classes)
    for part in (train, val):
        assert [f"class{label}" for label in part.labels] == [path.split("/")[0] for path in paths(part)]
    return set(paths(train)), set(paths(val))


def paths(index: ImageIndex) -> list[str]:
    return [os.fsdecode(index.relative_path(image)) for image in range(len(index))]


@pytest.fixture
def unsplit(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    write_images(root, {"cat": 9, "dog": 7, "dog/puppies": 3})
    return root


def test_the_hash_is_that_of_b2sum():
    """`printf cat/0.png | b2sum -l 64` prints 33fa0bd83b0b96dd. Another hash would change the split of every run."""
    assert hash_path(b"cat/0.png") == pytest.approx(0x33FA0BD83B0B96DD / 2**64, abs=2**-52)


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("seed", range(5))
def test_every_image_is_in_one_split_and_every_class_with_two_images_in_both(seed: int, fraction: float):
    names = draw_names(seed, [1, 2, 3, 5, 30])
    train, val = split(names, fraction)
    assert train | val == {path for path, _ in names}
    assert not train & val
    for label, size in enumerate([1, 2, 3, 5, 30]):
        counts = [sum(path.startswith(f"class{label}/") for path in part) for part in (train, val)]
        assert sum(counts) == size
        assert min(counts) >= 1 if size > 1 else counts == [1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_new_images_move_no_image_of_a_class_that_the_hashes_split(seed: int):
    names = draw_names(seed, [60, 80, 100])  # the chance that a class has no hash below 0.2 is 1e-6
    before = split(names, 0.2)
    for more in range(1, 4):
        after = split(names | draw_names(seed + 100 * more, [more, 50 * more, 0, 7]), 0.2)
        assert all(old <= new for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("fraction", [0.02, 0.98])
def test_new_images_move_at_most_one_image_of_a_small_class(fraction: float):
    moved = Counter[int]()
    for seed in range(50):
        names = draw_names(seed, [3])
        before, after = split(names, fraction), split(names | draw_names(seed + 1000, [30]), fraction)
        moved[len(before[0] - after[0]) + len(before[1] - after[1])] += 1
    assert moved[1] > 0
    assert set(moved) <= {0, 1}


def test_each_class_has_about_its_fraction():
    """Within five standard deviations of the binomial distribution."""
    sizes, fraction = [400, 1000, 4000], 0.25
    _, val = split(draw_names(0, sizes), fraction)
    for label, size in enumerate(sizes):
        count = sum(path.startswith(f"class{label}/") for path in val)
        assert abs(count - size * fraction) < 5 * (size * fraction * (1 - fraction)) ** 0.5


def test_train_alone_and_class_folders_alone_have_the_same_split(unsplit: Path, tmp_path: Path):
    shutil.copytree(unsplit, tmp_path / "root/train")
    bare, nested = load_images(config_of(unsplit)), load_images(config_of(tmp_path / "root"))
    assert [paths(index) for index in bare] == [paths(index) for index in nested]
    assert identify_data(*bare) == identify_data(*nested)
    assert {index.root for index in nested} == {tmp_path / "root/train"}
    assert all(index.path(image).is_file() for index in (*bare, *nested) for image in range(len(index)))


def test_a_second_start_lists_nothing_and_checks_no_file_again(unsplit: Path, monkeypatch: pytest.MonkeyPatch):
    age(unsplit)
    settle(monkeypatch)
    first, other = load_splits(unsplit, 0.3), load_splits(unsplit, 0.5)
    with monkeypatch.context() as without:
        without.setattr(index_cache, "scan_splits", None)
        without.setattr(image_check, "looks_complete", lambda path: checked.append(path) or True)
        for _ in range(2):
            checked: list[Path] = []
            second = load_splits(unsplit, 0.3)
            check = ImageCheck(unsplit, *second, 0, Path("damaged.txt"), 0.3)
            check.start()
            check._thread.join()
            check.report()
        assert checked == []
        assert [paths(index) for index in second] == [paths(index) for index in first]
        assert paths(load_splits(unsplit, 0.5)[1]) == paths(other[1]) != paths(first[1])
    write_images(unsplit, {"cat/more": 1})
    assert sum(map(len, load_splits(unsplit, 0.3))) == 20


def test_the_fraction_is_part_of_the_identity_and_older_runs_have_none(unsplit: Path):
    tenth, other = (small_config(unsplit, data__val_fraction=each) for each in (0.1, 0.2))
    assert describe_differences(tenth, other) == "data.val_fraction was 0.1 and is now 0.2"
    older = to_dict(small_config(unsplit))
    del older["data"]["val_fraction"]
    assert describe_differences(parse_config(older), small_config(unsplit)) == ""


@pytest.mark.parametrize(
    ("folders", "fraction", "message"),
    [
        ({"a": 2, "b": 2}, None, "ROOT/train does not exist: .* it has a, b; data.val_fraction=0.1 .* takes a tenth"),
        ({"train/a": 2, "train/b": 2}, None, "ROOT/val does not exist: .* it has train; data.val_fraction=0.1 "),
        ({"val/a": 2, "val/b": 2}, None, "ROOT/train does not exist: .* it has val$"),
        ({"photos/a": 2}, None, "ROOT/train does not exist: .* it has photos$"),
        ({"a": 2, "b": 0}, None, "ROOT/train does not exist: .* it has a, b$"),
        ({"train/a": 2, "val/a": 2}, 0.1, "data.val_fraction=0.1, but ROOT has val/: leave out data.val_fraction$"),
        ({"train/a": 2, "valid/a": 2}, 0.1, "data.val_fraction=0.1, but ROOT has valid/: leave out data.val_fraction$"),
        ({"a": 2, "b": 2, "val/a": 2}, 0.1, "data.val_fraction=0.1, but ROOT has val/: leave out data.val_fraction$"),
        ({"photos/a": 2}, 0.1, "data.val_fraction=0.1, but ROOT has one class folder, photos/: is "),
        ({"a": 1, "b": 1}, 0.1, "data.val_fraction=0.1, but no class of ROOT has two images: .* add images"),
        (
            {"car": 2, "train/ice": 2, "train/old": 2},
            0.1,
            "splits ROOT/train, but ROOT has other folders with ima",
        ),
        (
            {"a": 2, "b": 2, "test": 3},
            0.1,
            "ROOT/test has images and no class folders: rename ",
        ),
        ({".": 3}, 0.1, "ROOT has 3 images and no class folders: sort the images into one folder for each class"),
    ],
)
def test_a_folder_that_cannot_be_split_gives_one_line(tmp_path: Path, folders: dict, fraction: float, message: str):
    root = tmp_path / "root"
    write_images(root, folders)
    with pytest.raises(UserError, match=message.replace("ROOT", re.escape(str(root)))) as error:
        load_images(config_of(root, fraction))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, "half"])
def test_a_wrong_fraction_is_refused_with_the_key(fraction: object):
    with pytest.raises(UserError, match=r"^data.val_fraction=.* is not allowed: it should "):
        small_config(Path(), data__val_fraction=fraction)


def test_a_class_may_have_the_name_of_a_split(tmp_path: Path):
    write_images(tmp_path / "vehicles", {"train": 4, "car": 4})
    assert load_images(config_of(tmp_path / "vehicles"))[0].classes == ("car", "train")


def test_a_pack_of_unsplit_images_has_their_identity(unsplit: Path, tmp_path: Path):
    def pack(fraction: float | None) -> None:
        prepare_pack(unsplit, tmp_path / "pack", short_side=None, shard_bytes=4096, val_fraction=fraction)

    with pytest.raises(UserError, match=r"--val-fraction 0.1\) takes a tenth of each class"):
        pack(None)
    pack(0.3)
    folder = identify_data(*load_images(config_of(unsplit)))
    for fraction in (0.3, None):
        assert identify_data(*load_images(config_of(tmp_path / "pack", fraction))) == folder
    with pytest.raises(UserError, match=r"data.val_fraction=0.2, but the pack .*/pack has another split: "):
        load_images(config_of(tmp_path / "pack", 0.2))
    with pytest.raises(UserError, match=r"started with other options, by `.* --val-fraction 0.3 --shard-size 4096\"`"):
        pack(0.2)


def test_images_elsewhere_are_those_of_val_or_else_the_ones_held_out(unsplit: Path, image_folder: Path):
    """A copy of the run's own folder must not count images that the run was trained on."""
    assert paths(load_other_images(config_of(unsplit))[1]) == paths(load_images(config_of(unsplit))[1])
    assert len(load_other_images(config_of(image_folder))[1]) == 5
    shutil.rmtree(image_folder / "train")
    train, val = load_other_images(config_of(image_folder))
    assert (train, len(val)) == (None, 5)


def test_a_pack_elsewhere_has_its_own_split(image_folder: Path, tmp_path: Path):
    prepare_pack(image_folder, tmp_path / "pack", short_side=None, shard_bytes=4096)
    assert len(load_other_images(config_of(tmp_path / "pack", 0.3))[1]) == 5


@pytest.mark.parametrize("fraction", [None, 0.3])
def test_a_test_split_has_the_labels_of_the_training(image_folder: Path, fraction: float | None):
    config = config_of(image_folder, fraction)
    if fraction:
        for name in ("cat", "dog"):
            shutil.move(image_folder / "train" / name, image_folder)
        shutil.rmtree(image_folder / "train")
        shutil.rmtree(image_folder / "val")
    before = [index.fingerprint for index in load_images(config)]
    write_images(image_folder, {"test/dog": 3})  # a subset of the classes
    test = load_split(config, "test")
    assert (test.root, test.classes, test.labels.tolist()) == (image_folder / "test", ("cat", "dog"), [1, 1, 1])
    assert [index.fingerprint for index in load_images(config)] == before
    assert load_split(config, "val").fingerprint == before[1]
    write_images(image_folder, {"test/bird": 1})
    with pytest.raises(UserError, match=r"/test has 1 class that train/ does not have \(bird\)"):
        load_split(config, "test")


def test_without_training_images_the_classes_of_a_test_split_are_its_own(tmp_path: Path):
    write_images(tmp_path / "root", {"test/dog": 2, "test/ant": 1})
    assert load_split(config_of(tmp_path / "root", None), "test").classes == ("ant", "dog")


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({"train/a": 1, "val/a": 1}, "ROOT/test does not exist: a test split is ROOT/test/CLASS/"),
        ({"train/a": 1, "test": 2}, "ROOT/test has 2 images and no class folders"),
        ({"train/a": 1, "test/a": 0}, "ROOT/test has no images in its class folders .*: add some$"),
    ],
)
def test_a_missing_or_empty_test_split_gives_one_line(tmp_path: Path, folders: dict, message: str):
    root = tmp_path / "root"
    write_images(root, folders)
    with pytest.raises(UserError, match=message.replace("ROOT", re.escape(str(root)))):
        load_split(config_of(root, None), "test")
