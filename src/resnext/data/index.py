"""ImageIndex: the images of a split as flat arrays. scan.py lists them, and index_cache.py caches the list."""

import functools
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from resnext.data.decode import decode_image, unreadable
from resnext.data.image_file import read_image_file
from resnext.errors import UserError
from resnext.run.identity import DataIdentity
from resnext.terminal import pluralize


@dataclass(frozen=True)
class ImageIndex:
    """The images below `root`, in order of class and path.

    The paths are one block of bytes with offsets, so that workers share them and copy no Python objects.

    Attributes:
        classes: the class names; a label is a position in them.
        labels: int64 [images].
        paths: uint8 [bytes], all relative paths one after another, as the file system spells them.
        offsets: int64 [images + 1], where each path begins.
        unread: suffix → number of images that are not read because of it; not part of a run's identity.
    """

    root: Path
    classes: tuple[str, ...]
    labels: np.ndarray
    paths: np.ndarray
    offsets: np.ndarray
    unread: dict[str, int] = field(default_factory=dict, kw_only=True)

    def __len__(self) -> int:
        return len(self.labels)

    def find_empty_classes(self) -> list[str]:
        """The classes without an image."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return [self.classes[label] for label in np.flatnonzero(counts == 0)]

    def relative_path(self, image: int) -> bytes:
        return self.paths[self.offsets[image] : self.offsets[image + 1]].tobytes()

    def path(self, image: int) -> Path:
        return self.root / os.fsdecode(self.relative_path(image))

    def name(self, image: int) -> str:
        """The path in messages: printable, even if it is not valid Unicode."""
        return printable(os.fsencode(self.path(image)))

    def read(self, image: int) -> bytes:
        """The file's content. Raises UserError if it cannot be read."""
        try:
            return read_image_file(self.path(image))
        except (OSError, ValueError) as error:
            raise unreadable(self.name(image), error) from error

    def pixels(self, image: int) -> np.ndarray:
        """uint8 [height, width, 3]. Raises the errors of `read` and `decode_image`."""
        return decode_image(self.read(image), self.name(image))

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits, which change with any class, path or label."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256("\0".join(self.classes).encode(errors="surrogateescape"))
        for part in (self.paths, self.offsets, self.labels):
            digest.update(part.data)
        return digest.hexdigest()[:16]


def identify_data(train: ImageIndex, val: ImageIndex) -> DataIdentity:
    return DataIdentity(train.classes, f"{train.fingerprint}-{val.fingerprint}")


def check_enough(val: ImageIndex, ranks: int) -> None:
    """Raises UserError if there is no validation image for each rank."""
    if len(val) < ranks:
        raise UserError(
            f"{val.root} has {pluralize(len(val), 'image')}, and each of the {ranks} ranks needs one: add images, or "
            "use fewer devices"
        )


def printable(path: bytes) -> str:
    text = path.decode(errors="backslashreplace")
    return text if text.isprintable() else repr(text)[1:-1]
