"""prepare_pack: a folder of images into tar shards. An interrupted pack goes on; bad images are listed, not packed."""

import json
import os
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
import simplejpeg

from resnext.data.crop import resize_short_side
from resnext.data.decode import JPEG_START, decode_image
from resnext.data.index import ImageIndex
from resnext.data.index_cache import load_splits
from resnext.data.pack import INDEX, SETTINGS, is_pack, read_settings, write_index
from resnext.errors import UserError
from resnext.progress import progress

JPEG_QUALITY = (
    85  # at 90 a pack is decoded 9 % slower (docs/performance.md); what either costs in accuracy is unmeasured
)
BAD = "bad.txt"

T = TypeVar("T")
R = TypeVar("R")


class Packed(NamedTuple):
    """How many images lie in the pack, and a line for each that could not be read."""

    images: int
    bad: list[str]


class Place(NamedTuple):
    """Where an image's bytes lie."""

    shard: int
    start: int
    length: int


@dataclass
class ShardWriter:
    """Tar shards of one split, each under a temporary name until it is whole.

    Attributes:
        names: the whole shards' names, after those of other splits.
        places: image → where it lies.
    """

    root: Path
    split: str
    shard_bytes: int
    names: list[str]
    places: dict[int, Place] = field(default_factory=dict)
    _file: IO[bytes] | None = None
    _first: int = 0

    def __post_init__(self) -> None:
        self._first = len(self.names)
        while (self.root / self._name()).exists():
            self._take_up(self.root / self._name())

    def add(self, image: int, member: str, data: bytes, label: int) -> None:
        file = self._file or self._begin()
        stem = member.rpartition(".")[0]
        start = self._add_member(file, member, data)
        self._add_member(file, f"{stem}.cls", str(label).encode())
        self.places[image] = Place(len(self.names), start, len(data))
        if file.tell() >= self.shard_bytes:
            self.end_shard()

    def end_shard(self) -> None:
        """Makes the open shard, if there is one, a whole one."""
        if self._file is None:
            return
        self._file.write(bytes(2 * tarfile.BLOCKSIZE))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        os.replace(self._aside, self.root / self._name())
        self.names.append(self._name())

    def abandon_shard(self) -> None:
        """Leaves no half-written shard, and gives its space back."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._aside.unlink(missing_ok=True)

    @property
    def _aside(self) -> Path:
        return self.root / f".{self._name()}.part"

    def _name(self) -> str:
        return f"{self.split}-{len(self.names) - self._first:06d}.tar"

    def _begin(self) -> IO[bytes]:
        self._file = self._aside.open("wb")
        return self._file

    @staticmethod
    def _add_member(file: IO[bytes], name: str, data: bytes) -> int:
        """Returns where the data begins."""
        info = tarfile.TarInfo(name)
        info.size = len(data)
        file.write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        start = file.tell()
        file.write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
        return start

    def _take_up(self, path: Path) -> None:
        """A whole shard of an earlier, interrupted call."""
        with tarfile.open(path, "r:", errors="surrogateescape") as shard:
            for member in shard:
                if not member.name.endswith(".cls"):
                    image = int(member.name.rpartition("/")[2].partition(".")[0])
                    self.places[image] = Place(len(self.names), member.offset_data, member.size)
        self.names.append(path.name)


def prepare_pack(source: Path, target: Path, *, short_side: int | None, shard_bytes: int) -> Packed:
    """Packs source/train and source/val into `target`, decoding every image once.

    Args:
        short_side: larger images are resized to it, with JPEG_QUALITY; None keeps every file's bytes.
        shard_bytes: a shard ends with the image that reaches it.

    Raises:
        UserError: if `source` is no image folder, `target` holds something else, or cannot be written.
    """
    if is_pack(source):
        raise UserError(f"{source} is a pack already: give the folder of images that it was made from")
    splits = dict(zip(("train", "val"), load_splits(source), strict=True))
    settings = {
        "source": str(source.absolute()),
        "fingerprints": [index.fingerprint for index in splits.values()],
        "short_side": short_side,
        "shard_bytes": shard_bytes,
    }
    _begin(target, settings)
    if (target / INDEX).exists():
        bad = (target / BAD).read_text().splitlines() if (target / BAD).exists() else []
        return Packed(sum(map(len, splits.values())) - len(bad), bad)
    names: list[str] = []
    bad: list[str] = []
    parts = {split: _pack_split(split, index, target, settings, names, bad) for split, index in splits.items()}
    if bad:
        (target / BAD).write_text("".join(f"{line}\n" for line in bad))
    write_index(target, names, **parts, classes=splits["train"].classes, short_side=short_side)
    return Packed(sum(len(part["labels"]) for part in parts.values()), bad)


def _begin(target: Path, settings: dict[str, Any]) -> None:
    """Writes pack.json, or checks that the one there says the same."""
    if is_pack(target):
        kept = read_settings(target)
        other = [key for key in settings if key != "source" and kept.get(key) != settings[key]]
        if other:
            key = other[0]
            raise UserError(
                f"{target} was begun with {key}={kept.get(key)}, now it is {settings[key]}: "
                f"give the same, or another folder than {target}"
            )
        return
    if target.exists() and any(target.iterdir()):
        raise UserError(f"{target} holds something else: give a new folder, or an empty one")
    target.mkdir(parents=True, exist_ok=True)
    aside = target / f".{SETTINGS}"
    aside.write_text(json.dumps(settings, indent=2) + "\n")
    os.replace(aside, target / SETTINGS)


def _pack_split(
    split: str, index: ImageIndex, target: Path, settings: dict[str, Any], names: list[str], bad: list[str]
) -> dict[str, np.ndarray]:
    """Adds to `names` and `bad`; returns the arrays of the pack's index."""
    writer = ShardWriter(target, split, settings["shard_bytes"], names)
    todo = [image for image in range(len(index)) if image not in writer.places]
    with progress(f"packing {split}", len(index)) as advance:
        advance(len(index) - len(todo))
        try:
            encoded = _map_in_order(lambda image: _encode(index, image, settings["short_side"]), todo)
            for image, data in zip(todo, encoded, strict=True):
                if isinstance(data, UserError):
                    bad.append(str(data))
                else:
                    label = int(index.labels[image])
                    writer.add(image, _member(index, image, data), data, label)
                advance(1)
            writer.end_shard()
        except OSError as error:
            raise UserError(
                f"{target} cannot be written: {error.strerror}; whole shards are kept, and the same command goes on"
            ) from error
        finally:
            writer.abandon_shard()
    return _arrays(index, writer.places)


def _encode(index: ImageIndex, image: int, short_side: int | None) -> bytes | UserError:
    try:
        data = index.read(image)
        pixels = decode_image(data, index.name(image))
    except UserError as error:
        return error
    if short_side is None or min(pixels.shape[:2]) <= short_side:
        return data
    small = resize_short_side(pixels, short_side, "bicubic")
    return simplejpeg.encode_jpeg(small, JPEG_QUALITY, "RGB", "420", fastdct=False)


def _member(index: ImageIndex, image: int, data: bytes) -> str:
    """CLASS/NUMBER.SUFFIX; the suffix by content where it is JPEG or PNG, as readers of tar shards go by it."""
    suffix = "jpg" if data.startswith(JPEG_START) else "png" if data.startswith(b"\x89PNG") else None
    suffix = suffix or index.path(image).suffix[1:].lower()
    return f"{index.classes[index.labels[image]]}/{image:08d}.{suffix}"


def _arrays(index: ImageIndex, places: dict[int, Place]) -> dict[str, np.ndarray]:
    """Of the images that were packed, in the folder's order."""
    images = np.array(sorted(places), dtype=np.int64)
    paths = [index.relative_path(image) for image in images]
    shards, starts, lengths = np.array([places[image] for image in images.tolist()], dtype=np.int64).reshape(-1, 3).T
    return {
        "labels": index.labels[images],
        "paths": np.frombuffer(b"".join(paths), dtype=np.uint8),
        "offsets": np.cumsum([0, *map(len, paths)], dtype=np.int64),
        "shards": shards.astype(np.int32),
        "starts": starts,
        "lengths": lengths,
    }


def _map_in_order(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """As map, on a thread a core (decoding holds no lock), and never far ahead of what was taken."""
    threads = os.cpu_count() or 1
    pending: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 4 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
