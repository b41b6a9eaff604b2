"""Checkpoint files: a save writes a complete file or leaves the earlier file, and damaged files are skipped."""

import errno
import io
import os
import pickle
import shutil
import signal
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from resnext.errors import UserError
from resnext.run.identity import RunMark
from resnext.runtime import checkpoint as checkpoint_reading
from resnext.runtime import checkpoint_io
from resnext.runtime.checkpoint import (
    DamagedCheckpoint,
    check_network,
    find_latest,
    find_positions,
    load_checkpoint,
    parse_checkpoint,
    read_checkpoint,
    read_position,
)
from resnext.runtime.checkpoint_io import AtomicCheckpointIO
from support.kills import kill_at_file_operation
from support.not_regular import NOT_REGULAR

MARK = RunMark("abcd1234", "digest")


def content(step: int, **more: object) -> dict:
    ours = {"run": MARK._asdict(), "best": None, "metrics": ""}
    return {"global_step": step, "validated": True, "state_dict": {"w": torch.arange(8.0) * step}, **ours, **more}


def save(folder: Path, step: int, name: str = "last.ckpt") -> AtomicCheckpointIO:
    io = AtomicCheckpointIO()
    io.save_checkpoint(content(step), folder / name)
    return io


def test_the_previous_checkpoint_is_kept(tmp_path: Path):
    assert kept_after_three_saves(tmp_path) == {"best.ckpt": 3, "last.ckpt": 3, "previous.ckpt": 2}


def kept_after_three_saves(folder: Path) -> dict[str, int]:
    """The step in each file."""
    for step in (1, 2, 3):
        save(folder, step)
    save(folder, 3, "best.ckpt")
    return {path.name: read_checkpoint(path).step for path in folder.iterdir()}


def test_the_previous_checkpoint_is_kept_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_links(*_arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert kept_after_three_saves(tmp_path) == {"best.ckpt": 3, "last.ckpt": 3, "previous.ckpt": 2}


def half_written(_content: object, file) -> None:
    file.write(b"half")
    raise OSError(28, "No space left on device")


def torch_hides_it(_content: object, file) -> None:
    try:
        half_written(_content, file)
    except OSError:
        raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904 - as torch does


@pytest.mark.parametrize("fail", [half_written, torch_hides_it])
def test_a_failed_save_is_a_warning_and_leaves_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: Callable, caplog: pytest.LogCaptureFixture
):
    io = save(tmp_path, 1)
    before = (tmp_path / "last.ckpt").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail)
        for failures in (1, 2):
            io.save_checkpoint(content(2), tmp_path / "last.ckpt")
            assert io.failures == failures
    assert caplog.text.count("last.ckpt could not be saved: No space left on device; the earlier file is intact") == 2
    assert (tmp_path / "last.ckpt").read_bytes() == before
    assert os.listdir(tmp_path) == ["last.ckpt"]
    io.save_checkpoint(content(3), tmp_path / "last.ckpt")
    assert io.failures == 0


def test_a_failed_sync_loses_neither_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    for step in (1, 2):
        save(tmp_path, step)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        assert save(tmp_path, 3).failures == 1
    assert [read_checkpoint(tmp_path / name).step for name in ("last.ckpt", "previous.ckpt")] == [2, 1]


def test_a_disk_with_too_little_room_is_not_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / ".last.ckpt.partial").touch()  # of a killed save
    monkeypatch.setattr(checkpoint_io.shutil, "disk_usage", lambda _folder: shutil._ntuple_diskusage(100, 90, 10))
    monkeypatch.setattr(torch, "save", lambda *_: pytest.fail("written"))
    assert save(tmp_path, 1).failures == 1
    assert " B are needed and 10 B are free" in caplog.text
    assert os.listdir(tmp_path) == []


def test_a_program_error_is_not_a_failed_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_arguments: object) -> None:
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RuntimeError, match="CUDA error"):
        save(tmp_path, 1)


def test_a_kill_between_any_two_file_operations_loses_no_checkpoint(tmp_path: Path):
    """A child is killed at its n-th file operation, for every n, until a child finishes."""
    for operation in range(1, 20):
        folder = tmp_path / str(operation)
        folder.mkdir()
        save(folder, 1)
        save(folder, 2)
        child = os.fork()
        if child == 0:
            kill_at_file_operation(operation)
            save(folder, 3)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        found = find_latest(folder, MARK, set_aside=True)
        assert found is not None
        assert torch.equal(load_checkpoint(found.path)["state_dict"]["w"], torch.arange(8.0) * found.step)
        assert not list(folder.glob("*damaged*"))
        if os.WIFEXITED(status):
            assert (os.WEXITSTATUS(status), found.step) == (0, 3)
            assert operation > 3
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert found.step in (2, 3)
        save(folder, 4)
        assert sorted(os.listdir(folder)) == ["last.ckpt", "previous.ckpt"]
    pytest.fail("the child was always killed")


def test_every_flipped_bit_is_found_or_harmless(tmp_path: Path):
    """Flips one bit in each byte of the file. A file that passes the check holds the written content."""
    save(tmp_path, 5)
    path = tmp_path / "last.ckpt"
    whole = path.read_bytes()
    found = 0
    for position in range(len(whole)):
        altered = bytearray(whole)
        altered[position] ^= 1 << position % 8
        path.write_bytes(altered)
        try:
            loaded = load_checkpoint(path)
        except DamagedCheckpoint:
            found += 1
        else:
            assert loaded["global_step"] == 5
            assert torch.equal(loaded["state_dict"]["w"], torch.arange(8.0) * 5)
    assert found > 400  # the rest is padding and dates


def test_every_truncation_is_found(tmp_path: Path):
    save(tmp_path, 5)
    path = tmp_path / "last.ckpt"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedCheckpoint, match=r"last.ckpt is damaged: "):
            read_checkpoint(path)


@pytest.mark.parametrize("damage", [b"", b"half of a file", None])
def test_a_damaged_checkpoint_is_named_renamed_and_skipped(
    tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
):
    save(tmp_path, 1)
    save(tmp_path, 2)
    last = tmp_path / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100] if damage is None else damage)
    for set_aside in (False, True, True):
        found = find_latest(tmp_path, MARK, set_aside=set_aside)
        assert found is not None
        assert (found.path, found.step, found.validated) == (tmp_path / "previous.ckpt", 1, True)
    assert caplog.text.count("last.ckpt is damaged: ") == 1
    (aside,) = tmp_path.glob("last.damaged-*.ckpt")
    assert f"it was renamed to {aside.name} and is skipped" in caplog.text


def test_the_newest_intact_checkpoint_is_found(tmp_path: Path):
    assert find_latest(tmp_path, MARK, set_aside=True) is None
    save(tmp_path, 4, "best.ckpt")
    save(tmp_path, 3)
    found = find_latest(tmp_path, MARK, set_aside=True)
    assert found is not None
    assert (found.path.name, found.step) == ("best.ckpt", 4)


def flip_a_weight(path: Path) -> None:
    """Flips one bit of a tensor. The position can still be read."""
    whole = bytearray(path.read_bytes())
    whole[whole.index((torch.arange(8.0) * read_position(path).step).numpy().tobytes()) + 6] ^= 1
    path.write_bytes(whole)


@pytest.mark.parametrize("set_aside", [False, True])
def test_older_files_are_read_only_if_the_newest_is_damaged(
    tmp_path: Path, set_aside: bool, monkeypatch: pytest.MonkeyPatch
):
    """Damage in older files does not matter, except that the rank with `set_aside` also checks best.ckpt."""
    read: list[str] = []
    load = checkpoint_reading.load_checkpoint
    monkeypatch.setattr(checkpoint_reading, "load_checkpoint", lambda path: read.append(path.name) or load(path))
    save(tmp_path, 2, "best.ckpt")
    save(tmp_path, 2)
    save(tmp_path, 3)
    for name in ("best.ckpt", "previous.ckpt"):
        flip_a_weight(tmp_path / name)
    assert [each.path.name for each in find_positions(tmp_path, MARK)] == ["last.ckpt", "previous.ckpt", "best.ckpt"]
    assert read == []

    found = find_latest(tmp_path, MARK, set_aside=set_aside)
    assert found is not None
    assert torch.equal(found.content["state_dict"]["w"], torch.arange(8.0) * 3)
    assert read == ["last.ckpt"]
    assert len(list(tmp_path.glob("*.damaged-*"))) == set_aside
    assert (tmp_path / "best.ckpt").exists() != set_aside

    flip_a_weight(tmp_path / "last.ckpt")
    assert find_latest(tmp_path, MARK, set_aside=set_aside) is None
    assert len(list(tmp_path.glob("*.damaged-*"))) == 3 * set_aside


def test_a_loaded_checkpoint_is_not_kept_in_memory(tmp_path: Path):
    save(tmp_path, 3)
    found = read_checkpoint(tmp_path / "last.ckpt")
    weights = found.content["state_dict"]
    (tmp_path / "last.ckpt").unlink()
    assert AtomicCheckpointIO(found).load_checkpoint(tmp_path / "last.ckpt")["state_dict"] is weights
    assert (found.step, found.content) == (3, {})


class Payload:
    def __reduce__(self):
        return (open, ("ran", "w"))


def test_a_payload_is_a_one_line_error_and_is_not_run(tmp_path: Path):
    """In a file of torch.save, and as a bare pickle."""
    torch.save(content(1, callbacks=Payload()), tmp_path / "last.ckpt")
    for _ in range(2):
        with pytest.raises(UserError, match=r"last.ckpt holds more than tensors and plain values.*remove it") as error:
            find_latest(tmp_path, MARK, set_aside=True)
        assert "\n" not in str(error.value)
        (tmp_path / "last.ckpt").write_bytes(pickle.dumps(Payload()))
    assert not Path("ran").exists()


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_torchscript_archive_is_named(tmp_path: Path):
    torch.jit.script(torch.nn.Identity()).save(tmp_path / "last.ckpt")
    with pytest.raises(DamagedCheckpoint, match=r"last.ckpt is a TorchScript archive and not a checkpoint") as error:
        load_checkpoint(tmp_path / "last.ckpt")
    assert "weights_only" not in str(error.value)
    assert find_latest(tmp_path, MARK, set_aside=True) is None


@pytest.mark.parametrize("name", ["last.ckpt", "previous.ckpt", "best.ckpt"])
@pytest.mark.parametrize(("make", "what"), NOT_REGULAR)
def test_a_file_that_is_not_regular_is_set_aside_and_not_opened(
    tmp_path: Path, name: str, make: Callable, what: str, caplog: pytest.LogCaptureFixture
):
    save(tmp_path, 2, "best.ckpt" if name != "best.ckpt" else "last.ckpt")
    make(tmp_path / name)
    with pytest.raises(DamagedCheckpoint, match=f"{name} {what}"):
        load_checkpoint(tmp_path / name)
    found = find_latest(tmp_path, MARK, set_aside=True)
    assert found is not None
    assert found.step == 2
    assert f"{name} {what}" in caplog.text
    assert not os.path.lexists(tmp_path / name)


def test_an_archive_of_other_content_is_damaged(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "last.ckpt", "w") as archive:
        archive.writestr("photo.jpg", b"pixels")
    with pytest.raises(DamagedCheckpoint):
        read_checkpoint(tmp_path / "last.ckpt")
    torch.save({"weights": torch.ones(1)}, tmp_path / "last.ckpt")
    with pytest.raises(DamagedCheckpoint, match="is not a checkpoint of a training: it has no 'global_step'"):
        read_checkpoint(tmp_path / "last.ckpt")
    for step in (None, "three", float("nan"), float("inf")):
        torch.save({"global_step": step, "validated": True}, tmp_path / "last.ckpt")
        with pytest.raises(DamagedCheckpoint, match="is not a checkpoint of a training"):
            read_checkpoint(tmp_path / "last.ckpt")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("metrics", 7),
        ("metrics", None),
        ("state_dict", None),
        ("state_dict", [torch.zeros(8)]),
        ("state_dict", {"w": 7}),
        ("best", 7),
        ("best", {"epoch": 1}),
    ],
)
def test_a_checkpoint_with_a_wrong_type_is_damaged_and_skipped(tmp_path: Path, key: str, value: object):
    save(tmp_path, 1)
    save(tmp_path, 2)
    torch.save(content(3, **{key: value}), tmp_path / "last.ckpt")
    with pytest.raises(DamagedCheckpoint, match=f"is not a checkpoint of a training: its {key} is not"):
        read_checkpoint(tmp_path / "last.ckpt")
    found = find_latest(tmp_path, MARK, set_aside=False)
    assert found is not None
    assert found.step == 1


def test_a_checkpoint_without_weights_is_damaged(tmp_path: Path):
    torch.save({key: value for key, value in content(3).items() if key != "state_dict"}, tmp_path / "last.ckpt")
    with pytest.raises(DamagedCheckpoint, match="is not a checkpoint of a training: it has no 'state_dict'"):
        read_checkpoint(tmp_path / "last.ckpt")


@pytest.mark.parametrize(
    ("network", "found"),
    [
        ({"w": torch.zeros(9)}, r"w is \[8\] in it and \[9\] in this run"),
        ({"w": torch.zeros(8), "v": torch.zeros(2)}, r"v is missing in it and \[2\] in this run"),
        ({}, r"w is \[8\] in it and missing in this run"),
    ],
)
def test_weights_of_another_network_are_named(tmp_path: Path, network: dict, found: str):
    save(tmp_path, 1)
    checkpoint = read_checkpoint(tmp_path / "last.ckpt")
    check_network(checkpoint, {"w": torch.zeros(8)}, prefix="")
    with pytest.raises(UserError, match=rf"last.ckpt belongs to another network: {found}"):
        check_network(checkpoint, network, prefix="")


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENOMEM])
def test_a_storage_error_is_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int):
    """A file that may be intact is not renamed, and no older file is used instead."""
    save(tmp_path, 3)

    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch, pytest.raises(OSError, match=os.strerror(code)):
        patch.setattr(torch, "load", fail)
        find_latest(tmp_path, MARK, set_aside=True)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_too_little_memory_is_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """torch reports both as a RuntimeError."""
    save(tmp_path, 3)

    def fail(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", fail)
        with pytest.raises(DamagedCheckpoint):  # there is memory
            load_checkpoint(tmp_path / "last.ckpt")
        patch.setattr(torch, "empty", fail)
        with pytest.raises(MemoryError, match=r"last.ckpt needs \d.+ k?B of memory, which are not free"):
            load_checkpoint(tmp_path / "last.ckpt")


def test_a_storage_error_in_the_middle_of_a_file_is_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whichever read fails, of zipfile or of torch."""
    save(tmp_path, 3)

    class Failing(io.FileIO):
        reads_left = 0

        def readinto(self, buffer) -> int:
            if not Failing.reads_left:
                raise OSError(errno.EIO, "Input/output error")
            Failing.reads_left -= 1
            return super().readinto(buffer)

    opened = lambda path, mode: io.BufferedReader(Failing(path), 64)  # noqa: E731
    monkeypatch.setattr(checkpoint_reading, "open", opened, raising=False)
    reads = 0
    while True:
        Failing.reads_left = reads = reads + 1
        try:
            assert load_checkpoint(tmp_path / "last.ckpt")["global_step"] == 3
            break
        except OSError as error:
            assert "Input/output error" in str(error)  # noqa: PT017 - other errors fail the test too
    assert reads > 20


def test_a_load_needs_the_memory_of_the_tensors_only(tmp_path: Path):
    """Beside the tensors, which Python's allocator does not hold, never more than one of them at a time."""
    tensors = {f"{number}": torch.full((250_000,), number * 1.0) for number in range(20)}
    AtomicCheckpointIO().save_checkpoint(content(1, state_dict=tensors), tmp_path / "last.ckpt")
    tracemalloc.start()
    loaded = load_checkpoint(tmp_path / "last.ckpt")["state_dict"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 1_000_000 < peak < 2_000_000  # the file has 20 MB
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())


def test_the_buffers_of_a_loss_are_not_compared_with_the_network(tmp_path: Path):
    weights = {"network.w": torch.zeros(8), "loss.weight": torch.ones(10)}
    content = {"global_step": 1, "validated": True, "state_dict": weights}
    checkpoint = parse_checkpoint(tmp_path / "last.ckpt", content)
    check_network(checkpoint, {"w": torch.zeros(8)}, prefix="network.")
    with pytest.raises(UserError, match=r"network.w is \[8\] in it and \[9\] in this run"):
        check_network(checkpoint, {"w": torch.zeros(9)}, prefix="network.")
