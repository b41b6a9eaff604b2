"""Lists the images in the class folders of train/ and val/."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from resnext.data.index import ImageIndex
from resnext.errors import UserError
from resnext.terminal import progress

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
UNREAD_SUFFIXES = (".gif", ".avif", ".heic", ".heif", ".jfif", ".jxl", ".jp2")  # formats of images that we do not read
VAL_NAMES = ("val", "validation", "valid")
SCAN_THREADS = 16  # a network file system answers many requests at the same time


class FolderStamp(NamedTuple):
    """The state of a folder when it was listed. If a time or the inode differs, the content may differ.

    `changed_ns` is the inode's change time, which no program can set. `modified_ns` alone is not enough: tar and rsync
    restore it.
    """

    path: str
    modified_ns: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, folder: Path) -> Self:
        found = folder.stat()
        return cls(str(folder), found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


class Scan(NamedTuple):
    """Both splits, and every folder that was listed for them."""

    train: ImageIndex
    val: ImageIndex
    folders: list[FolderStamp]


def find_val(root: Path) -> Path:
    """root/val, validation or valid, whichever exists; root/val if none does. Raises UserError for more than one."""
    found = [root / name for name in VAL_NAMES if (root / name).is_dir()]
    if len(found) > 1:
        names = " and ".join(f"{path.name}/" for path in found)
        raise UserError(f"{root} has {names}: keep one of them for validation, and move the others away")
    return found[0] if found else root / "val"


def scan_splits(root: Path) -> Scan:
    """Lists root/train and root/val. Both have the classes of train/.

    Raises:
        UserError: if a folder is missing or unreadable, a class is empty, or val/ has no class folders or a class that
            train/ does not have.
    """
    folders: list[FolderStamp] = []
    val = find_val(root)
    classes = _class_names(root / "train", root, folders)
    train = _scan_split(root / "train", classes, folders)
    _check_validation_classes(val, _class_names(val, root, folders), classes)
    return Scan(train, _scan_split(val, classes, folders, may_be_empty=True), folders)


def scan_val(root: Path) -> ImageIndex:
    """Lists root/val alone; its class folders are the classes. Raises UserError as scan_splits does."""
    return scan_class_folders(find_val(root), root)


def scan_class_folders(split: Path, root: Path) -> ImageIndex:
    """Lists the class folders in `split`, a folder of `root`. Raises the errors of scan_splits."""
    folders: list[FolderStamp] = []
    return _scan_split(split, _class_names(split, root, folders), folders, may_be_empty=True)


def _class_names(split: Path, root: Path, folders: list[FolderStamp]) -> tuple[str, ...]:
    if not split.is_dir():
        found = [entry.name for entry in _entries(root, []) if entry.is_dir()]
        has = f"it has {_first_three(found)}" if found else "it has no folders"
        raise UserError(f"{split} does not exist: data.root must hold train/CLASS/ and val/CLASS/, but {has}")
    entries = _entries(split, folders)
    dangling = [entry.name for entry in entries if entry.is_symlink() and not Path(entry.path).exists()]
    if dangling:
        raise UserError(
            f"{split / dangling[0]} is a broken link: repair it, or remove it with its class from both splits"
        )
    names = tuple(entry.name for entry in entries if entry.is_dir())
    if names:
        return names
    images = sum(1 for entry in entries if _is_image(entry.name))
    found = f"{images} images and no class folders" if images else "nothing to train on"
    raise UserError(f"{split} has {found}: sort the images into one folder for each class, {split}/CLASS/")


def _check_validation_classes(val: Path, names: tuple[str, ...], classes: tuple[str, ...]) -> None:
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise UserError(
            f"{val} has {len(unknown)} class{'es' if len(unknown) > 1 else ''} that train/ does not have "
            f"({_first_three(unknown)}): rename or remove them, or add them to train/"
        )


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
        remedy = "move some there from train/"
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
    for entry in _entries(folder, folders):
        path = prefix + b"/" + os.fsencode(entry.name)
        if entry.is_dir():
            _add_images(Path(entry.path), path, paths, folders, unread)
        elif _is_image(entry.name):
            paths.append(path)
        elif (suffix := os.path.splitext(entry.name)[1].lower()) in UNREAD_SUFFIXES:  # noqa: PTH122 - a million names
            unread.append(suffix)


def _entries(folder: Path, folders: list[FolderStamp]) -> list[os.DirEntry[str]]:
    """The entries, sorted, without hidden files. Takes the folder's stamp first, so that a later change is noticed."""
    try:
        folders.append(FolderStamp.of(folder))
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from error


def describe_unread(unread: Mapping[str, int]) -> str:
    """`2 .gif, 1 .heic`."""
    return ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(unread.items()))


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _first_three(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
