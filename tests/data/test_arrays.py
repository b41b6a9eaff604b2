"""Arrays in a file: reading returns what was written, and a damaged file gives an error."""

import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from resnext.data.arrays import ALIGNMENT, MAGIC, START, read_arrays, write_arrays
from resnext.errors import UserError

ARRAYS = {"labels": np.arange(5), "paths": np.frombuffer(b"abc", np.uint8), "none": np.empty((0, 2), np.int32)}


def test_arrays_are_read_as_written(tmp_path: Path):
    write_arrays(tmp_path / "file", {"classes": ["cat", "\udcff"]}, ARRAYS)
    header, arrays = read_arrays(tmp_path / "file")
    assert header == {"classes": ["cat", "\udcff"]}
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert np.array_equal(arrays[name], array)
    with pytest.raises(ValueError, match="read-only"):
        arrays["labels"][0] = 1


def test_every_truncation_and_every_flipped_byte_is_an_error(tmp_path: Path):
    """Except in the padding, which is never read."""
    path = tmp_path / "file"
    write_arrays(path, {"classes": ["cat", "dog"]}, {"labels": np.arange(40)})
    data = path.read_bytes()
    first, text = data.index(np.arange(40).tobytes()), data.rindex(b"}") + 1
    read = [*range(text), *range(first, first + 320)]
    broken = [data[:size] for size in range(0, len(data), 9)]
    broken += [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in read]
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged"):
            read_arrays(path)


@pytest.mark.parametrize(
    "text",
    [
        b"[1]",
        b"5",
        b"{}",
        b"[" * 99_999,
        b'{"header": {}, "arrays": {}, "bytes": 0}',
        b'{"header": {}, "arrays": [1], "bytes": 0, "checksum": 0}',
        b'{"header": {}, "arrays": {"a": 5}, "bytes": 0, "checksum": 0}',
        b'{"header": {}, "arrays": {"a": ["<i8", [2305843009213693952, 8], 0]}, "bytes": 0, "checksum": 0}',
        b'{"header": {}, "arrays": {"a": ["<i8", [1], -64]}, "bytes": 0, "checksum": 0}',
        b'{"header": {}, "arrays": {"a": ["|O", [1], 0]}, "bytes": 0, "checksum": 0}',
        b'{"header": {}, "arrays": {"a": ["nonsense", [1], 0]}, "bytes": 0, "checksum": 0}',
    ],
)
def test_wrong_content_in_a_header_with_a_valid_checksum_is_an_error(tmp_path: Path, text: bytes):
    start = START.pack(MAGIC, len(text), zlib.crc32(text)) + text
    (tmp_path / "file").write_bytes(start + bytes(-len(start) % ALIGNMENT))
    with pytest.raises(ValueError, match=r"file is damaged"):
        read_arrays(tmp_path / "file")


def test_a_header_that_is_too_long_is_not_read(tmp_path: Path):
    """A sparse file of 8 GB: it takes no space on the disk, but would fill the memory."""
    with (tmp_path / "file").open("wb") as file:
        file.write(START.pack(MAGIC, 7 << 30, 0))
        file.truncate(8 << 30)
    with pytest.raises(ValueError, match="is damaged"):
        read_arrays(tmp_path / "file")


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_only_a_regular_file_is_opened(tmp_path: Path, make):
    make(tmp_path / "file")
    with pytest.raises(UserError, match=r"file is a (FIFO|folder|device) and not a regular file"):
        read_arrays(tmp_path / "file")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path):
    write_arrays(tmp_path / "file", {"version": 1}, ARRAYS)
    with pytest.raises(TypeError):
        write_arrays(tmp_path / "file", {"version": object()}, ARRAYS)
    assert read_arrays(tmp_path / "file")[0] == {"version": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
