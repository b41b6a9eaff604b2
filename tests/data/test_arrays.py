"""Arrays in a file: what was written is read, and what is damaged is not."""

from pathlib import Path

import numpy as np
import pytest

from resnext.data.arrays import read_arrays, write_arrays

ARRAYS = {"labels": np.arange(5), "paths": np.frombuffer(b"abc", np.uint8), "none": np.empty((0, 2), np.int32)}


def test_a_round_trip(tmp_path: Path):
    write_arrays(tmp_path / "file", {"classes": ["cat", "\udcff"]}, ARRAYS)
    header, arrays = read_arrays(tmp_path / "file")
    assert header == {"classes": ["cat", "\udcff"]}
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert np.array_equal(arrays[name], array)
    with pytest.raises(ValueError, match="read-only"):
        arrays["labels"][0] = 1


def test_every_truncation_and_every_flipped_byte_is_an_error(tmp_path: Path):
    """But in the padding, which nothing reads."""
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


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path):
    write_arrays(tmp_path / "file", {"version": 1}, ARRAYS)
    with pytest.raises(TypeError):
        write_arrays(tmp_path / "file", {"version": object()}, ARRAYS)
    assert read_arrays(tmp_path / "file")[0] == {"version": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
