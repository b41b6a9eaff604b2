"""Every image of a split: class folders in, flat arrays out. What was scanned once is kept (index_cache.py)."""

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from resnext.data.decode import decode_image, unreadable
from resnext.data.image_file import read_image_file
from resnext.errors import UserError
from resnext.run.identity import DataIdentity
from resnext.terminal import progress

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
UNREAD_SUFFIXES = (".gif", ".avif", ".heic", ".heif", ".jfif", ".jxl", ".jp2")  # images too, but not for our decoders
VAL_NAMES = ("val", "validation", "valid")
SCAN_THREADS = 16  # a network file system answers many questions at once


@dataclass(frozen=True)
class ImageIndex:
    """The images below `root`, in order of class and path.

    Paths are one block of bytes with offsets, so that loader processes share them and copy no Python object.

    Attributes:
        classes: the class names; a label is a position in them.
        labels: int64 [images].
        paths: uint8 [bytes], all relative paths one after another, as the file system spells them.
        offsets: int64 [images + 1], where each path begins.
        unread: how many images each suffix that is not read has; they belong to no identity.
    """

    root: Path
    classes: tuple[str, ...]
    labels: np.ndarray
    paths: np.ndarray
    offsets: np.ndarray
    unread: dict[str, int] = field(default_factory=dict, kw_only=True)

    def __len__(self) -> int:
        return len(self.labels)

    def relative_path(self, image: int) -> bytes:
        return self.paths[self.offsets[image] : self.offsets[image + 1]].tobytes()

    def path(self, image: int) -> Path:
        return self.root / os.fsdecode(self.relative_path(image))

    def name(self, image: int) -> str:
        """For messages: printable, whatever the file system holds."""
        return printable(os.fsencode(self.path(image)))

    def read(self, image: int) -> bytes:
        """The file's content. Raises UserError if it cannot be read."""
        try:
            return read_image_file(self.path(image))
        except (OSError, ValueError) as error:
            raise unreadable(self.name(image), error) from error

    def pixels(self, image: int) -> np.ndarray:
        """uint8 [height, width, 3]. Raises UserError, as `read` and `decode_image` do."""
        return decode_image(self.read(image), self.name(image))

    @property
    def fingerprint(self) -> str:
        """Changes with any class, path or label: 16 hexadecimal digits."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256("\0".join(self.classes).encode(errors="surrogateescape"))
        for part in (self.paths, self.offsets, self.labels):
            digest.update(part.data)
        return digest.hexdigest()[:16]


def identify_data(train: ImageIndex, val: ImageIndex) -> DataIdentity:
    return DataIdentity(train.classes, f"{train.fingerprint}-{val.fingerprint}")


class FolderStamp(NamedTuple):
    """A folder as it was when it was listed: another time or another inode is another content.

    `changed_ns` is the inode's, which no program can set back; tar and rsync restore the time of modification.
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
    """Lists root/train and root/val. The classes are those of train/, for both.

    Raises:
        UserError: a folder is missing or unreadable, a class is empty, val/ is flat or has a class unknown to train/.
    """
    folders: list[FolderStamp] = []
    val = find_val(root)
    classes = _class_names(root / "train", root, folders)
    train = _scan_split(root / "train", classes, folders)
    _check_validation_classes(val, _class_names(val, root, folders), classes)
    return Scan(train, _scan_split(val, classes, folders, may_be_empty=True), folders)


def _class_names(split: Path, root: Path, folders: list[FolderStamp]) -> tuple[str, ...]:
    if not split.is_dir():
        found = [entry.name for entry in _entries(root, []) if entry.is_dir()]
        has = f"it has {_some(found)}" if found else "it has no folders"
        raise UserError(f"{split} does not exist: data.root must hold train/CLASS/ and val/CLASS/, but {has}")
    entries = _entries(split, folders)
    dangling = [entry.name for entry in entries if entry.is_symlink() and not Path(entry.path).exists()]
    if dangling:
        raise UserError(
            f"{split / dangling[0]} is a link that leads nowhere: mend it, or remove it with its class from both splits"
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
            f"{val} has {len(unknown)} class{'es' if len(unknown) > 1 else ''} that train/ does not know "
            f"({_some(unknown)}): rename or remove them, or add them to train/"
        )


def _scan_split(
    split: Path, classes: tuple[str, ...], folders: list[FolderStamp], *, may_be_empty: bool = False
) -> ImageIndex:
    """Raises UserError for a class without images; in val/ only if all classes are."""
    paths: list[bytes] = []
    labels: list[int] = []
    unread: list[str] = []  # the suffix of each
    with progress(f"listing {split}", len(classes)) as advance, ThreadPoolExecutor(SCAN_THREADS) as pool:
        scans = pool.map(lambda name: _scan_class(split, name, folders, unread, advance), classes)
        for label, found in enumerate(scans):
            if not found and not may_be_empty:
                raise UserError(
                    f"{split / classes[label]} has no images ({', '.join(IMAGE_SUFFIXES)}): "
                    "add some, or remove the folder"
                )
            paths += found
            labels += [label] * len(found)
    if not paths:
        raise UserError(f"{split} has no images in its class folders: move some there from train/")
    offsets = np.cumsum([0, *map(len, paths)], dtype=np.int64)
    joined = np.frombuffer(b"".join(paths), dtype=np.uint8)
    return ImageIndex(split, classes, np.array(labels, dtype=np.int64), joined, offsets, unread=dict(Counter(unread)))


def _scan_class(
    split: Path, name: str, folders: list[FolderStamp], unread: list[str], advance: Callable[[int], None]
) -> list[bytes]:
    """The paths of a class below `split`; none for a class that val/ does not have."""
    paths: list[bytes] = []
    if (split / name).is_dir():
        _add_images(split / name, os.fsencode(name), paths, folders, unread)
    advance(1)
    return paths


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
    """Sorted, without hidden files; the folder's stamp is taken before, so that a later change shows."""
    try:
        folders.append(FolderStamp.of(folder))
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from error


def printable(path: bytes) -> str:
    text = path.decode(errors="backslashreplace")
    return text if text.isprintable() else repr(text)[1:-1]


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
