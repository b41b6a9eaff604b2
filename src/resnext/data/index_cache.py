"""Caches the list of images in $XDG_CACHE_HOME/resnext/ (~/.cache/resnext/).

There is one file for each data.root and data.val_fraction. It is valid until a time or the inode of a folder below
data.root changes.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from resnext.data.arrays import read_arrays, write_arrays
from resnext.data.class_folders import FolderStamp, find_unsplit, find_val
from resnext.data.index import ImageIndex
from resnext.data.scan import scan_splits
from resnext.files import atomic_write

CLOCK_TICK_NS = 2_000_000_000  # of FAT, the coarsest: two changes of a folder within one tick have the same time
VERSION = 3
DAMAGED = ".damaged"  # the suffix of the file beside an index that holds the result of image_check.py
Stamp = list[int]  # time, inode and size of a cached index
MAX_FILES = 20  # of 60 MB each for ImageNet; the oldest are removed


def load_splits(root: Path, val_fraction: float | None = None) -> tuple[ImageIndex, ImageIndex]:
    """The training and validation images below `root`: cached, or listed again if a folder changed.

    Raises the errors of `scan_splits`.
    """
    root = root.absolute()
    path = _cache_path(root, val_fraction)
    if path is not None and (kept := _read(path, root, *_find_roots(root, val_fraction))):
        return kept
    scan = scan_splits(root, val_fraction)
    newest = max(stamp.changed_ns for stamp in scan.folders)
    if path is not None and newest < time.time_ns() - CLOCK_TICK_NS:
        with suppress(OSError):  # the home is full or read-only: the next start lists again
            _write(path, root, scan.train, scan.val, scan.folders)
    return scan.train, scan.val


def read_stamp(root: Path, val_fraction: float | None = None) -> Stamp | None:
    """Identifies the cached index: a newer index has another stamp. None if no index is cached."""
    path = _cache_path(root.absolute(), val_fraction)
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return [found.st_mtime_ns, found.st_ino, found.st_size] if found else None


def load_damaged(root: Path, val_fraction: float | None, stamp: Stamp | None) -> dict[str, list[int]]:
    """What `save_damaged` saved for the index with this stamp, else an empty dict."""
    path = _cache_path(root.absolute(), val_fraction)
    if path is None or stamp is None:
        return {}
    try:
        kept = json.loads(path.with_suffix(DAMAGED).read_text())
        return kept["damaged"] if kept["index"] == stamp and _lists_images(kept["damaged"]) else {}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # missing or incomplete
        return {}


def save_damaged(root: Path, val_fraction: float | None, stamp: Stamp | None, damaged: dict[str, list[int]]) -> None:
    """Saves split → damaged images beside a cached index, for the splits whose files were all checked."""
    path = _cache_path(root.absolute(), val_fraction)
    if path is not None and stamp is not None:
        with suppress(OSError):  # the home is full or read-only: the next start checks again
            atomic_write(path.with_suffix(DAMAGED), json.dumps({"index": stamp, "damaged": damaged}))


def _lists_images(damaged: Any) -> bool:
    return isinstance(damaged, dict) and all(
        isinstance(images, list) and all(type(image) is int and image >= 0 for image in images)
        for images in damaged.values()
    )


def _cache_path(root: Path, val_fraction: float | None) -> Path | None:
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(home) if home else Path.home() / ".cache"
    except RuntimeError:  # no home
        return None
    key = os.fsencode(root) + (b"" if val_fraction is None else f"\0{val_fraction!r}".encode())
    return folder / "resnext" / f"{hashlib.sha256(key).hexdigest()[:16]}.index"


def _find_roots(root: Path, val_fraction: float | None) -> tuple[Path, Path]:
    """The roots of both splits. They are the same folder if `val_fraction` splits it."""
    if val_fraction is None:
        return root / "train", find_val(root)
    unsplit = find_unsplit(root, val_fraction)
    return unsplit, unsplit


def _read(path: Path, root: Path, train: Path, val: Path) -> tuple[ImageIndex, ImageIndex] | None:
    """None if there is no valid file."""
    try:
        header, arrays = read_arrays(path)
        if (header["version"], header["root"], header["val"]) != (VERSION, str(root), str(val.relative_to(root))):
            return None
        if any(FolderStamp.of(Path(stamp[0])) != tuple(stamp) for stamp in header["folders"]):
            return None
        return _index(train, "train", header, arrays), _index(val, "val", header, arrays)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _index(folder: Path, split: str, header: dict[str, Any], arrays: dict[str, Any]) -> ImageIndex:
    parts = {name: arrays[f"{split}/{name}"] for name in ("labels", "paths", "offsets")}
    return ImageIndex(folder, tuple(header["classes"]), **parts, unread=header["unread"][split])


def _write(path: Path, root: Path, train: ImageIndex, val: ImageIndex, folders: list[FolderStamp]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {
        "version": VERSION,
        "root": str(root),
        "val": str(val.root.relative_to(root)),
        "classes": train.classes,
        "folders": folders,
        "unread": {"train": train.unread, "val": val.unread},
    }
    arrays = {
        f"{split}/{name}": getattr(index, name)
        for split, index in (("train", train), ("val", val))
        for name in ("labels", "paths", "offsets")
    }
    write_arrays(path, header, arrays)
    for old in sorted(path.parent.glob("*.index"), key=lambda kept: kept.stat().st_mtime_ns)[:-MAX_FILES]:
        old.unlink(missing_ok=True)
        old.with_suffix(DAMAGED).unlink(missing_ok=True)
