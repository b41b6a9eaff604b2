"""The cached index: it is used only while the folder has not changed."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from resnext.data import index_cache
from resnext.data.index import ImageIndex
from resnext.data.index_cache import load_splits
from resnext.data.scan import scan_splits
from support.old_folders import age, settle
from support.small_run import write_images


@pytest.fixture
def settled(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that was written long enough ago, so that its index is cached."""
    write_images(image_folder, {"train/cat/nested": 2})
    age(image_folder)
    settle(monkeypatch)
    return image_folder


def same(ours: ImageIndex, theirs: ImageIndex) -> bool:
    paths = [index.path(image) for index in (ours, theirs) for image in range(len(index))]
    return ours.fingerprint == theirs.fingerprint and paths[: len(ours)] == paths[len(ours) :]


def test_a_second_start_does_not_list_the_folder(settled: Path, monkeypatch: pytest.MonkeyPatch):
    first = load_splits(settled)
    monkeypatch.setattr(index_cache, "scan_splits", None)  # a call would raise
    second = load_splits(settled)
    assert all(same(*pair) for pair in zip(first, second, strict=True))
    assert not second[0].labels.flags.owndata


def test_counts_of_unread_images_and_the_name_of_val_are_cached(image_folder: Path, monkeypatch: pytest.MonkeyPatch):
    (image_folder / "train/cat/a.gif").touch()
    (image_folder / "val").rename(image_folder / "valid")
    age(image_folder)
    settle(monkeypatch)
    load_splits(image_folder)
    with monkeypatch.context() as without_scan:
        without_scan.setattr(index_cache, "scan_splits", None)
        train, val = load_splits(image_folder)
    assert (train.unread, val.unread, val.root) == ({".gif": 1}, {}, image_folder / "valid")
    (image_folder / "valid").rename(image_folder / "validation")
    assert load_splits(image_folder)[1].path(0).is_file()


@pytest.mark.parametrize(
    "change",
    [
        lambda root: shutil.copy(root / "train/cat/0.png", root / "train/cat/new.png"),
        lambda root: (root / "train/cat/nested/0.png").unlink(),
        lambda root: (root / "val/dog/0.png").rename(root / "val/dog/9.png"),
        lambda root: write_images(root, {"train/bird": 1}),
        lambda root: replace_folder(root / "train/dog"),
        lambda root: restore_times(root, shutil.copy(root / "train/cat/0.png", root / "train/cat/new.png")),
    ],
)
def test_a_changed_folder_is_listed_again(settled: Path, change):
    load_splits(settled)
    change(settled)
    assert all(same(*pair) for pair in zip(load_splits(settled), scan_splits(settled)[:2], strict=True))


def restore_times(root: Path, _copy: Path) -> None:
    """Restores the modification times, like tar and rsync."""
    age(root)


def replace_folder(folder: Path) -> None:
    """Replaces the folder by another one with the same name and time; only its inode differs."""
    shutil.copytree(folder, folder.with_name(".other"))
    (folder.with_name(".other") / "0.png").rename(folder.with_name(".other") / "00.png")
    shutil.rmtree(folder)
    folder.with_name(".other").rename(folder)
    age(folder.parents[1])


def test_the_index_of_a_folder_that_just_changed_is_not_cached(image_folder: Path, tmp_path: Path):
    """The folder may change again within the same tick of the clock."""
    load_splits(image_folder)
    assert not list((tmp_path / "cache").rglob("*.index"))


def test_a_damaged_cache_is_ignored(settled: Path, tmp_path: Path):
    expected = load_splits(settled)[0].fingerprint
    (kept,) = (tmp_path / "cache/resnext").glob("*.index")
    for content in (b"", b"resnext1" + bytes(100), kept.read_bytes()[:-1]):
        kept.write_bytes(content)
        assert load_splits(settled)[0].fingerprint == expected


def test_a_cache_that_cannot_be_written_gives_no_error(settled: Path, tmp_path: Path):
    (tmp_path / "cache").write_text("a file where the folder would be")
    assert len(load_splits(settled)[0]) == 14


def test_two_folders_of_the_same_name_have_separate_caches(settled: Path, tmp_path: Path):
    load_splits(settled)
    other = tmp_path / "other/images"
    shutil.copytree(settled, other)
    (other / "train/cat/0.png").unlink()
    assert len(load_splits(other)[0]) == len(load_splits(settled)[0]) - 1
    assert np.array_equal(load_splits(settled)[0].labels, scan_splits(settled).train.labels)
