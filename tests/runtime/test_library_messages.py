"""The installed libraries still use the messages of library_messages.py; each test makes a library raise one."""

import os
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image
from torch.distributed import DistNetworkError, DistStoreError, FileStore, HashStore, ProcessGroupGloo, TCPStore

from resnext.runtime.library_messages import count_extraneous_bytes, is_gloo_failure, is_jpeg_damage, is_timeout

ONES = torch.ones(1)


@pytest.fixture
def jpeg() -> bytes:
    file = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(file, "JPEG")
    return file.getvalue()


def collective(path: Path, rank: int, timeout: float = 20.0) -> ProcessGroupGloo:
    group = ProcessGroupGloo(FileStore(str(path), 2), rank, 2, timedelta(seconds=timeout))
    group.allreduce([ONES.clone()]).wait()
    return group


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[int]:
    """Another process in a group of two. After one collective it waits for a byte, and then ends."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        group = collective(tmp_path / "store", 1)
        os.read(reader, 1)
        os._exit(group.rank() - 1)
    os.close(reader)
    yield writer
    os.close(writer)
    assert os.waitpid(child, 0)[1] == 0


def failure(group: ProcessGroupGloo) -> Exception:
    with pytest.raises(RuntimeError) as error:
        group.allreduce([ONES.clone()]).wait()
    assert type(error.value) is RuntimeError  # if gloo had its own error type, the message would not matter
    return error.value


def test_a_lost_process_is_a_gloo_failure(tmp_path: Path, peer: int):
    group = collective(tmp_path / "store", 0)
    os.write(peer, b"x")
    error = failure(group)
    assert is_gloo_failure(error)
    assert not is_timeout(error)


def test_a_timeout_of_gloo_is_recognized(tmp_path: Path, peer: int):
    group = collective(tmp_path / "store", 0, timeout=0.5)
    for error in (failure(group), failure(group)):  # the second one: Application timeout caused pair closure
        assert is_gloo_failure(error)
        assert is_timeout(error)


def test_timeouts_of_stores_are_recognized():
    with pytest.raises(DistStoreError) as waited:
        HashStore().wait(["key"], timedelta(milliseconds=10))
    with pytest.raises(DistNetworkError) as unanswered:
        TCPStore("127.0.0.1", 1, 2, is_master=False, timeout=timedelta(milliseconds=200))
    assert is_timeout(waited.value)
    assert is_timeout(unanswered.value)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file or directory", "/data/gloo/train"),
        RuntimeError("/home/gloo/model.py:3: NCCL is not what it was"),
        ValueError("[/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error"),
    ],
)
def test_other_errors_are_not_gloo_failures(error: Exception):
    assert not is_gloo_failure(error)


def jpeg_warning(data: bytes) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - simplejpeg raises nothing else
        simplejpeg.decode_jpeg(data, "RGB")
    return str(error.value)


def test_wrong_pixels_are_damage(jpeg: bytes):
    assert is_jpeg_damage(jpeg_warning(jpeg[:1500]))  # Premature end of JPEG file
    assert is_jpeg_damage(jpeg_warning(jpeg[:-20] + b"\xff\xd9"))  # Corrupt JPEG data: premature end of data segment


def test_extraneous_bytes_are_counted(jpeg: bytes):
    longer, shorter = (jpeg_warning(jpeg[:-2] + bytes(padding) + jpeg[-2:]) for padding in (90, 70))
    assert is_jpeg_damage(longer)
    assert count_extraneous_bytes(longer) - count_extraneous_bytes(shorter) == 20  # libjpeg reads some of them ahead


def test_an_unsupported_coding_is_not_damage(jpeg: bytes):
    """Pillow decodes it instead."""
    header = jpeg.index(b"\xff\xc0")
    twelve_bits = jpeg[: header + 4] + b"\x0c" + jpeg[header + 5 :]
    assert not is_jpeg_damage(jpeg_warning(twelve_bits))
    assert count_extraneous_bytes("Premature end of JPEG file") is None
