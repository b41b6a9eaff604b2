"""A pack: the images of a folder in tar shards, with an index of their positions. They are read in any order.

PACK/pack.json        the source folder and the options
PACK/train-000000.tar WebDataset's names: CLASS/NUMBER.jpg, and CLASS/NUMBER.cls with the label
PACK/index            the position of each image; written last, so that a pack with an index is complete
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from resnext.data.arrays import read_arrays, write_arrays
from resnext.data.decode import unreadable
from resnext.data.image_file import MAX_BYTES
from resnext.data.index import ImageIndex, printable
from resnext.errors import UserError
from resnext.files import read_text

SETTINGS = "pack.json"
INDEX = "index"
MAX_OPEN = 256  # shards per process; by default a process may open 1024 files
PARTS = ("labels", "paths", "offsets", "shards", "starts", "lengths")


@dataclass(frozen=True)
class PackedImages(ImageIndex):
    """An index of images in shards. Its paths are the paths in the folder that was packed.

    Attributes:
        shard_names: file names in `root`, the folder of the pack.
        shards, starts, lengths: int32, int64 and int64 [images]: the shard of an image, and its bytes in the shard.
        short_side: pixels after resizing, None if the images were not resized.
    """

    shard_names: tuple[str, ...]
    shards: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    short_side: int | None
    _files: dict[int, int] = field(default_factory=dict, repr=False, compare=False)

    def name(self, image: int) -> str:
        return f"{self.root / self.shard_names[self.shards[image]]}: {printable(self.relative_path(image))}"

    def read(self, image: int) -> bytes:
        start, length = int(self.starts[image]), int(self.lengths[image])
        try:
            data = os.pread(self._file(int(self.shards[image])), length, start)
        except OSError as error:
            raise unreadable(self.name(image), error) from error
        if len(data) < length:
            raise unreadable(self.name(image), OSError("the shard ends before the image does"))
        return data

    @property
    def fingerprint(self) -> str:
        """The folder's fingerprint. If the images were resized, also their short side: they are different data."""
        return super().fingerprint + (f"@{self.short_side}" if self.short_side else "")

    def _file(self, shard: int) -> int:
        if shard not in self._files:
            if len(self._files) >= MAX_OPEN:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[shard] = os.open(self.root / self.shard_names[shard], os.O_RDONLY)
        return self._files[shard]

    def __getstate__(self) -> dict[str, Any]:
        """An unpickled copy opens the files again. A forked process shares them: pread uses no file position."""
        return {**self.__dict__, "_files": {}}


def is_pack(root: Path) -> bool:
    return (root / SETTINGS).is_file()


def load_pack(root: Path) -> tuple[PackedImages, PackedImages]:
    """The training and the validation images of a pack.

    Raises:
        UserError: if the index is missing or damaged, or a shard does not have its original size.
    """
    try:
        header, arrays = read_arrays(root / INDEX)
        train, val = (_images(root, split, header, arrays) for split in ("train", "val"))
        for images in (train, val):
            _check_places(images, np.array(header["shard_bytes"], np.int64))
        _check_shards(root, header)
    except FileNotFoundError:
        raise UserError(f"{root} is an incomplete pack: `{describe_command(root)}` continues it") from None
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, OverflowError, IndexError) as error:
        reason = error if isinstance(error, OSError) else f"{root / INDEX} is damaged"
        raise UserError(f"{reason}: pack again into the same folder, or copy {root} again") from error
    return train, val


def _check_shards(root: Path, header: dict[str, Any]) -> None:
    """Raises UserError for the first shard that does not have its original size."""
    for name, size in zip(header["shard_names"], header["shard_bytes"], strict=True):
        found = (root / name).stat().st_size if (root / name).is_file() else None
        if found != size:
            has = "does not exist" if found is None else f"has {found:,} bytes"
            raise UserError(
                f"{root / name} {has}, but the index says {size:,}: copy it again, or pack again into the same folder"
            )


def describe_command(root: Path) -> str:
    """The command that started the pack."""
    settings = read_settings(root)
    short_side = f"--short-side {settings['short_side']} " if settings["short_side"] else ""
    held_out = f"--val-fraction {settings['val_fraction']} " if settings.get("val_fraction") else ""
    options = f"{short_side}{held_out}--shard-size {settings['shard_bytes']}"
    return f'make prepare ARGS="pack {settings["source"]} {root} {options}"'


def read_settings(root: Path) -> dict[str, Any]:
    """The content of pack.json. Raises UserError if it is damaged."""
    try:
        settings = json.loads(read_text(root / SETTINGS))
        missing = {"source", "fingerprints", "short_side", "shard_bytes"} - settings.keys()
        if missing:
            raise ValueError(f"it has no {sorted(missing)[0]}")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{root / SETTINGS} is damaged ({error}): remove {root} and pack again") from error
    return settings


def write_index(root: Path, shard_names: list[str], train: dict[str, Any], val: dict[str, Any], **about: Any) -> None:
    """Completes a pack. `train` and `val` map each of PARTS to its array; `about`: the classes and the short side."""
    sizes = [(root / name).stat().st_size for name in shard_names]
    arrays = {f"{split}/{part}": parts[part] for split, parts in (("train", train), ("val", val)) for part in PARTS}
    write_arrays(root / INDEX, {"shard_names": shard_names, "shard_bytes": sizes, **about}, arrays)


def _images(root: Path, split: str, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> PackedImages:
    parts: dict[str, Any] = {part: arrays[f"{split}/{part}"] for part in PARTS}
    return PackedImages(
        root=root,
        classes=tuple(header["classes"]),
        shard_names=tuple(header["shard_names"]),
        short_side=header["short_side"],
        **parts,
    )


def _check_places(images: PackedImages, shard_bytes: np.ndarray) -> None:
    """Raises ValueError if an image lies outside of its shard, is too large, or has no path or class.

    Takes 20 ms for ImageNet.
    """
    parts = [getattr(images, part) for part in PARTS]
    count = len(images)
    holds = (
        all(isinstance(name, str) for name in (*images.classes, *images.shard_names))
        and all(part.ndim == 1 and part.dtype.kind in "iu" for part in parts)
        and len(images.offsets) == count + 1
        and all(len(part) == count for part in (images.shards, images.starts, images.lengths))
        and _within(images.labels, len(images.classes))
        and _within(images.shards, len(images.shard_names))
        and _within(np.diff(images.offsets, prepend=0), len(images.paths) + 1)
        and images.offsets[-1] == len(images.paths)
        and _within(images.starts, 2**62)
        and _within(images.lengths, MAX_BYTES + 1)
        and bool((images.lengths <= shard_bytes[images.shards] - images.starts).all())
    )
    if not holds:
        raise ValueError("an image lies outside of its shard, or is too large")


def _within(values: np.ndarray, end: int) -> bool:
    return not len(values) or (values.min() >= 0 and values.max() < end)
