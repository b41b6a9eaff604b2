"""Lists the images in the class folders of train/, val/ and test/, or of a folder without splits."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from resnext.data.class_folders import (
    IMAGE_SUFFIXES,
    FolderStamp,
    check_classes,
    find_train_classes,
    find_unsplit,
    find_val,
    is_image,
    list_classes,
    list_entries,
)
from resnext.data.hold_out import hold_out
from resnext.data.index import ImageIndex
from resnext.errors import UserError
from resnext.terminal import progress

UNREAD_SUFFIXES = (".gif", ".avif", ".heic", ".heif", ".jfif", ".jxl", ".jp2")  # formats of images that we do not read
SCAN_THREADS = 16  # a network file system answers many requests at the same time


class Scan(NamedTuple):
    """Both splits, and every folder that was listed for them."""

    train: ImageIndex
    val: ImageIndex
    folders: list[FolderStamp]


def scan_splits(root: Path, val_fraction: float | None = None) -> Scan:
    """Lists root/train and root/val. Both have the classes of train/. With `val_fraction`, see hold_out.py.

    Raises:
        UserError: if a folder is missing or unreadable, a class is empty, or val/ has no class folders or a class that
            train/ does not have.
    """
    folders: list[FolderStamp] = []
    if val_fraction is not None:
        unsplit = find_unsplit(root, val_fraction)
        images = _scan_split(unsplit, list_classes(unsplit, root, folders), folders)
        return Scan(*hold_out(images, val_fraction), folders)
    val = find_val(root)
    classes = list_classes(root / "train", root, folders)
    train = _scan_split(root / "train", classes, folders)
    check_classes(val, list_classes(val, root, folders), classes)
    return Scan(train, _scan_split(val, classes, folders, may_be_empty=True), folders)


def scan_val(root: Path) -> ImageIndex:
    """Lists root/val alone; its class folders are the classes. Raises UserError as scan_splits does."""
    return scan_class_folders(find_val(root), root)


def scan_class_folders(split: Path, root: Path) -> ImageIndex:
    """Lists the class folders in `split`, a folder of `root`. Raises the errors of scan_splits."""
    folders: list[FolderStamp] = []
    return _scan_split(split, list_classes(split, root, folders), folders, may_be_empty=True)


def scan_test(root: Path) -> ImageIndex:
    """Lists root/test. Its classes are those of the training images; without any, its own class folders.

    Raises:
        UserError: if it is missing, has no images, or has a class that the training images do not have.
    """
    folders: list[FolderStamp] = []
    test = root / "test"
    if not test.is_dir():
        raise UserError(f"{test} does not exist: a test split is {test}/CLASS/, with the class folders of train/")
    names = list_classes(test, root, folders)
    classes = find_train_classes(root) or names
    check_classes(test, names, classes)
    return _scan_split(test, classes, folders, may_be_empty=True)


def _scan_split(
    split: Path, classes: tuple[str, ...], folders: list[FolderStamp], *, may_be_empty: bool = False
) -> ImageIndex:
    """Raises UserError for a class without images; in val/, only if all classes have none."""
    paths: list[bytes] = []
    labels: list[int] = []
    unread = Counter[str]()
    with progress(f"listing {split}", len(classes)) as advance, ThreadPoolExecutor(SCAN_THREADS) as pool:
        scans = pool.map(lambda name: _scan_class(split, name, folders, advance), classes)
        for label, (found, skipped) in enumerate(scans):
            unread += skipped
            if not found and not may_be_empty:
                folder = split / classes[label]
                raise UserError(_describe_empty(f"{folder} has no images", "add some, or remove the folder", skipped))
            paths += found
            labels += [label] * len(found)
    if not paths:
        remedy = "move some there from train/" if split.name != "test" else "add some"
        raise UserError(_describe_empty(f"{split} has no images in its class folders", remedy, unread))
    offsets = np.cumsum([0, *map(len, paths)], dtype=np.int64)
    joined = np.frombuffer(b"".join(paths), dtype=np.uint8)
    return ImageIndex(split, classes, np.array(labels, dtype=np.int64), joined, offsets, unread=dict(unread))


def _scan_class(
    split: Path, name: str, folders: list[FolderStamp], advance: Callable[[int], None]
) -> tuple[list[bytes], Counter[str]]:
    """The paths of a class below `split`, and the number of images of each suffix that is not read.

    Both are empty for a class that val/ does not have.
    """
    paths: list[bytes] = []
    unread: list[str] = []
    if (split / name).is_dir():
        _add_images(split / name, os.fsencode(name), paths, folders, unread)
    advance(1)
    return paths, Counter(unread)


def _describe_empty(found: str, remedy: str, unread: Mapping[str, int]) -> str:
    """One line for a folder without images that can be read."""
    if not unread:
        return f"{found} ({', '.join(IMAGE_SUFFIXES)}): {remedy}"
    return f"{found} that can be read, only {describe_unread(unread)}: convert them to JPEG or PNG"


def _add_images(folder: Path, prefix: bytes, paths: list[bytes], folders: list[FolderStamp], unread: list[str]) -> None:
    for entry in list_entries(folder, folders):
        path = prefix + b"/" + os.fsencode(entry.name)
        if entry.is_dir():
            _add_images(Path(entry.path), path, paths, folders, unread)
        elif is_image(entry.name):
            paths.append(path)
        elif (suffix := os.path.splitext(entry.name)[1].lower()) in UNREAD_SUFFIXES:  # noqa: PTH122 - a million names
            unread.append(suffix)


def describe_unread(unread: Mapping[str, int]) -> str:
    """`2 .gif, 1 .heic`."""
    return ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(unread.items()))
