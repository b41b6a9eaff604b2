"""Stores named arrays and a header in one file. A write is atomic; a read memory-maps the arrays.

Layout: MAGIC, length and CRC-32 of the header as two uint64, the header as JSON, then each array at a multiple of 64
bytes.

The format is not safetensors, which has no checksum and copies the arrays when it reads them (docs/log.md).
"""

import json
import math
import mmap
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from resnext.files import atomic_file, check_regular

MAGIC = b"resnext2"
START = struct.Struct("<8sQQ")
ALIGNMENT = 64
MAX_HEADER_BYTES = 2**28  # enough for the paths of two million listed folders


def write_arrays(path: Path, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Replaces `path` atomically: it always has the complete old or new content. Raises OSError."""
    blocks = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    checksum, at, places = 0, 0, {}
    for name, block in blocks.items():
        checksum = zlib.crc32(block.data, checksum)
        places[name] = (block.dtype.str, block.shape, at)
        at += _padded(block.nbytes)
    text = json.dumps({"header": header, "arrays": places, "bytes": at, "checksum": checksum}).encode()
    with atomic_file(path, several_writers=True) as file:  # all runs of a user share the index of a dataset
        file.write(START.pack(MAGIC, len(text), zlib.crc32(text)) + text)
        file.write(bytes(_arrays_start(len(text)) - file.tell()))
        for block in blocks.values():
            file.write(block.data)
            file.write(bytes(_padded(block.nbytes) - block.nbytes))


def read_arrays(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the read-only arrays. All processes that read the file share their memory.

    Raises:
        OSError: if `path` cannot be read.
        ValueError: if it is damaged, or `write_arrays` did not write it.
    """
    check_regular(path)
    try:
        return _read(path)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:  # another format
        raise ValueError(f"{path} is damaged") from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with path.open("rb") as file:
        start = file.read(START.size)
        size = os.fstat(file.fileno()).st_size
        magic, length, checksum = START.unpack(start) if len(start) == START.size else (b"", 0, 0)
        text = file.read(length) if magic == MAGIC and length < min(size, MAX_HEADER_BYTES) else b""
        if not text or zlib.crc32(text) != checksum:
            raise ValueError(f"{path} is damaged")
        content = json.loads(text)
        if size != _arrays_start(length) + content["bytes"]:
            raise ValueError(f"{path} is damaged")
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    arrays, checksum = {}, 0
    for name, (dtype, shape, at) in content["arrays"].items():
        count = math.prod(shape)
        arrays[name] = np.frombuffer(memory, dtype, count, _arrays_start(length) + at).reshape(shape)
        checksum = zlib.crc32(arrays[name].data, checksum)
    if checksum != content["checksum"]:
        raise ValueError(f"{path} is damaged")
    return content["header"], arrays


def _arrays_start(header_length: int) -> int:
    """The position of the first array in the file."""
    return _padded(START.size + header_length)


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
