"""Every image of a split: class folders in, flat arrays out."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from resnext.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True)
class ImageIndex:
    """The images of `root`, in order of class and path.

    Paths are one block of bytes with offsets, so that a forked worker process shares them and copies no Python object.

    Attributes:
        classes: the class names; a label is a position in them.
        labels: int64 [images].
        paths: all relative paths, one after another, as the file system spells them.
        offsets: int64 [images + 1], where each path begins.
    """

    root: Path
    classes: tuple[str, ...]
    labels: np.ndarray
    paths: bytes
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, image: int) -> Path:
        return self.root / os.fsdecode(self.paths[self.offsets[image] : self.offsets[image + 1]])

    @property
    def fingerprint(self) -> str:
        """Changes with any class, path or label: 16 hexadecimal digits."""
        digest = hashlib.sha256("\0".join(self.classes).encode(errors="surrogateescape"))
        for part in (self.paths, self.offsets.tobytes(), self.labels.tobytes()):
            digest.update(part)
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class DataIdentity:
    """Which data a run belongs to: its classes, and a fingerprint of all its image paths and labels."""

    classes: tuple[str, ...]
    fingerprint: str

    @classmethod
    def of(cls, train: ImageIndex, val: ImageIndex) -> Self:
        return cls(train.classes, f"{train.fingerprint}-{val.fingerprint}")


def load_splits(root: Path, num_classes: int | None, missing: str) -> tuple[ImageIndex, ImageIndex]:
    """The training and the validation images below `root`. The classes are those of train/, for both.

    Args:
        num_classes: how many classes there must be; None takes what is found.
        missing: what the user is told to do where `root` does not exist.

    Raises:
        UserError: a folder is missing or unreadable, a class is empty, val/ is flat or has a class unknown to train/.
    """
    if not root.is_dir():
        raise UserError(f"data.root={root} {'is no folder' if root.exists() else 'does not exist'}: {missing}")
    train = _scan(root / "train", _class_names(root / "train", root))
    if num_classes not in (None, len(train.classes)):
        raise UserError(
            f"data.num_classes={num_classes}, but {root / 'train'} has {len(train.classes)} classes; "
            f"give data.num_classes={len(train.classes)} if that is right, or data.num_classes=null to count them"
        )
    _check_validation_classes(root / "val", _class_names(root / "val", root), train.classes)
    return train, _scan(root / "val", train.classes, may_be_empty=True)


def _class_names(split: Path, root: Path) -> tuple[str, ...]:
    if not split.is_dir():
        folders = [entry.name for entry in _entries(root) if entry.is_dir()]
        found = f"it has {_some(folders)}" if folders else "it has no folders"
        raise UserError(f"{split} does not exist: data.root must hold train/CLASS/ and val/CLASS/, but {found}")
    names = tuple(entry.name for entry in _entries(split) if entry.is_dir())
    if names:
        return names
    images = sum(1 for entry in _entries(split) if _is_image(entry.name))
    found = f"{images} images and no class folders" if images else "nothing to train on"
    raise UserError(f"{split} has {found}: sort the images into one folder for each class, {split}/CLASS/")


def _check_validation_classes(val: Path, names: tuple[str, ...], classes: tuple[str, ...]) -> None:
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise UserError(
            f"{val} has {len(unknown)} class{'es' if len(unknown) > 1 else ''} that train/ does not know "
            f"({_some(unknown)}): rename or remove them, or add them to train/"
        )


def _scan(split: Path, classes: tuple[str, ...], *, may_be_empty: bool = False) -> ImageIndex:
    """Raises UserError for a class without images; in val/ only if all classes are."""
    paths: list[bytes] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = list(_images(split / name))
        if not found and not may_be_empty:
            raise UserError(
                f"{split / name} has no images ({', '.join(IMAGE_SUFFIXES)}): add some, or remove the folder"
            )
        paths += [os.fsencode(os.path.relpath(path, split)) for path in found]
        labels += [label] * len(found)
    if not paths:
        raise UserError(f"{split} has no images in its class folders: move some there from train/")
    offsets = np.cumsum([0, *map(len, paths)], dtype=np.int64)
    return ImageIndex(split, classes, np.array(labels, dtype=np.int64), b"".join(paths), offsets)


def _images(folder: Path) -> Iterator[str]:
    """The image files below `folder`, sorted; a class that val/ does not have yields none."""
    if not folder.is_dir():
        return
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _images(Path(entry.path))
        elif _is_image(entry.name):
            yield entry.path


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Sorted, without hidden files."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from error


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
