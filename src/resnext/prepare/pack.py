"""prepare_pack: packs a folder of images into tar shards. The same call continues an interrupted pack."""

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import simplejpeg

from resnext.data.crop import resize_short_side
from resnext.data.decode import JPEG_START, UnreadableImage, decode_image
from resnext.data.index import ImageIndex
from resnext.data.index_cache import load_splits
from resnext.data.pack import INDEX, SETTINGS, describe_command, is_pack, load_pack, read_settings, write_index
from resnext.errors import UserError
from resnext.files import atomic_write, folder_lock
from resnext.prepare.shard_writer import Place, ShardWriter
from resnext.terminal import progress

JPEG_QUALITY = 85  # 90 is 9 % slower to decode; the effect of both on accuracy is not measured
BAD = "bad.txt"

T = TypeVar("T")
R = TypeVar("R")


class Packed(NamedTuple):
    """The numbers of images in the pack, and a line for each image that cannot be read."""

    train: int
    val: int
    bad: list[str]


def prepare_pack(
    source: Path, target: Path, *, short_side: int | None, shard_bytes: int, val_fraction: float | None = None
) -> Packed:
    """Packs source/train and source/val into `target`, decoding every image once.

    Args:
        short_side: images with a longer short side are resized to it and encoded with JPEG_QUALITY; None keeps the
            bytes of every file.
        shard_bytes: a shard ends after the image that makes it reach this size.
        val_fraction: as data.val_fraction, for a source without val/.

    Raises:
        UserError: if `source` is not an image folder, `target` holds other files, or it cannot be written.
    """
    if is_pack(source):
        raise UserError(f"{source} is a pack already: give the folder of images that it was made from")
    splits: dict[str, ImageIndex] = dict(zip(("train", "val"), load_splits(source, val_fraction), strict=True))
    settings = {
        "source": str(source.absolute()),
        "fingerprints": [index.fingerprint for index in splits.values()],
        "short_side": short_side,
        "shard_bytes": shard_bytes,
        **({"val_fraction": val_fraction} if val_fraction is not None else {}),
    }
    try:
        target.mkdir(parents=True, exist_ok=True)
        with folder_lock(target):
            _begin(target, settings)
            return _pack(splits, target, settings)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written: {error.strerror}; complete shards are kept, and the same command continues"
        ) from error


def _pack(splits: dict[str, ImageIndex], target: Path, settings: dict[str, Any]) -> Packed:
    if _is_complete(target):
        return Packed(len(splits["train"]), len(splits["val"]), [])
    names: list[str] = []
    bad: list[str] = []
    parts = {split: _pack_split(split, index, target, settings, names, bad) for split, index in splits.items()}
    atomic_write(target / BAD, "".join(f"{line}\n" for line in bad))
    _check_not_empty(splits, parts, target)
    classes, short_side = splits["train"].classes, settings["short_side"]
    write_index(target, names, **parts, classes=classes, short_side=short_side)
    if not bad:
        (target / BAD).unlink()
    return Packed(len(parts["train"]["labels"]), len(parts["val"]["labels"]), bad)


def _is_complete(target: Path) -> bool:
    """Whether `target` is complete. If not, removes its index.

    Bad images are tried again. In a damaged pack, the index and the incomplete shards are written again.
    """
    if not (target / INDEX).exists():
        return False
    try:
        load_pack(target)
        if not (target / BAD).exists():
            return True
    except UserError:
        pass
    (target / INDEX).unlink()
    return False


def _check_not_empty(splits: dict[str, ImageIndex], parts: dict[str, dict[str, np.ndarray]], target: Path) -> None:
    for split, index in splits.items():
        lost = np.setdiff1d(index.labels, parts[split]["labels"])
        if len(lost):
            raise UserError(
                f"no image of {index.root / index.classes[lost[0]]} can be read: {target / BAD} lists the reasons; "
                "repair the images, or remove the class"
            )


def _begin(target: Path, settings: dict[str, Any]) -> None:
    """Writes pack.json, or checks that the existing one has the same settings."""
    if is_pack(target):
        kept = read_settings(target)
        if any(kept.get(name) != settings.get(name) for name in ("short_side", "shard_bytes", "val_fraction")):
            raise UserError(
                f"{target} was started with other options, by `{describe_command(target)}`: run that command, or "
                f"give a folder other than {target}"
            )
        if kept["fingerprints"] != settings["fingerprints"]:
            raise UserError(
                f"the images of {settings['source']} have changed since {target} was started: restore them, or give a "
                f"folder other than {target}"
            )
        return
    if any(not path.name.startswith(f".{SETTINGS}") for path in target.iterdir()):
        raise UserError(f"{target} holds other files: give a new or empty folder")
    atomic_write(target / SETTINGS, json.dumps(settings, indent=2) + "\n")


def _pack_split(
    split: str, index: ImageIndex, target: Path, settings: dict[str, Any], names: list[str], bad: list[str]
) -> dict[str, np.ndarray]:
    """Packs one split. Appends to `names` and `bad`; returns the arrays of the pack's index."""
    writer = ShardWriter(target, split, settings["shard_bytes"], names)
    todo = [image for image in range(len(index)) if image not in writer.places]
    with progress(f"packing {split}", len(index)) as advance, writer:
        advance(len(index) - len(todo))
        encoded = _map_in_order(lambda image: _encode(index, image, settings["short_side"]), todo)
        for image, data in zip(todo, encoded, strict=True):
            if isinstance(data, UserError):
                bad.append(str(data))
            else:
                writer.add(image, _member(index, image, data), data, int(index.labels[image]))
            advance(1)
    return _arrays(index, writer.places)


def _encode(index: ImageIndex, image: int, short_side: int | None) -> bytes | UserError:
    try:
        data = index.read(image)
        pixels = decode_image(data, index.name(image))
    except UnreadableImage as error:
        if error.is_damaged:
            return error
        raise UserError(
            f"{error.name} cannot be read ({error.reason}): complete shards are kept, and the same command continues"
        ) from error
    if short_side is None or min(pixels.shape[:2]) <= short_side:
        return data
    small = resize_short_side(pixels, short_side, "bicubic")
    return simplejpeg.encode_jpeg(small, JPEG_QUALITY, "RGB", "420", fastdct=False)


def _member(index: ImageIndex, image: int, data: bytes) -> str:
    """CLASS/NUMBER.SUFFIX. For JPEG and PNG the suffix follows the content: readers of tar shards rely on it."""
    suffix = "jpg" if data.startswith(JPEG_START) else "png" if data.startswith(b"\x89PNG") else None
    suffix = suffix or index.path(image).suffix[1:].lower()
    return f"{index.classes[index.labels[image]]}/{image:08d}.{suffix}"


def _arrays(index: ImageIndex, places: dict[int, Place]) -> dict[str, np.ndarray]:
    """The index arrays of the packed images, in the folder's order."""
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
    """Like map, on one thread per core (decoding releases the GIL), with at most 4 items per thread computed ahead."""
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
