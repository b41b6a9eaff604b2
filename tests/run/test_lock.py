"""Who holds the lock of a run, and when a process may take it."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from resnext.errors import UserError
from resnext.run import lock as lock_module
from resnext.run.lock import RunLock
from support.not_regular import NOT_REGULAR

SKEWS = [0, 3600, -3600]  # seconds by which the holder's clock is behind this one


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat comes every 0.3 s, and is stale after 1 s."""
    monkeypatch.setattr(lock_module, "HEARTBEAT_SECONDS", 0.3)
    monkeypatch.setattr(lock_module, "STALE_SECONDS", 1.0)
    monkeypatch.setenv("SLURM_JOB_ID", "12")


def write_holder(path: Path, host: str = "elsewhere", job: str | None = None, seconds_ago: float = 0) -> None:
    path.write_text(json.dumps({"host": host, "process": 1, "job": job, "since": "2026-01-01 00:00:00"}))
    os.utime(path, (time.time() - seconds_ago,) * 2)


@contextmanager
def beating(path: Path, behind: float) -> Iterator[None]:
    """A holder with a heartbeat. Its clock is `behind` seconds behind this clock."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.3):
            os.utime(path, (time.time() - behind,) * 2)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture(params=[True, False], ids=["locks", "no locks"])
def _with_and_without_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests with locks that do not work across hosts, and on a file system without locks."""

    def no_locks(*_arguments: object) -> None:
        raise OSError(37, "No locks available")

    if not request.param:
        monkeypatch.setattr("fcntl.lockf", no_locks)


@pytest.mark.usefixtures("_with_and_without_locks")
@pytest.mark.parametrize("behind", SKEWS)
def test_the_lock_of_a_dead_holder_on_another_host_is_taken(tmp_path: Path, behind: int):
    write_holder(tmp_path / "lock", seconds_ago=behind)
    began = time.monotonic()
    with RunLock(tmp_path / "lock") as held:
        assert 0.9 <= time.monotonic() - began < 5
        assert held.is_beating()
    assert not held.is_beating()


@pytest.mark.usefixtures("_with_and_without_locks")
@pytest.mark.parametrize("behind", SKEWS)
@pytest.mark.parametrize("job", [None, "13"])
def test_the_lock_of_a_live_holder_on_another_host_is_not_taken(tmp_path: Path, behind: int, job: str | None):
    write_holder(tmp_path / "lock", job=job, seconds_ago=behind)
    with (
        beating(tmp_path / "lock", behind),
        pytest.raises(UserError, match=r"is being trained by process 1 on elsewhere.*, since 2026"),
        RunLock(tmp_path / "lock"),
    ):
        pass


def seconds_to_lock(path: Path) -> float:
    """How long this process waits for a lock that it then holds."""
    began = time.monotonic()
    with RunLock(path):
        waited = time.monotonic() - began
        assert json.loads(path.read_text())["process"] == os.getpid()
    return waited


def test_a_lock_that_is_days_old_is_taken_immediately(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock_module, "STALE_SECONDS", 1e6)
    write_holder(tmp_path / "lock", seconds_ago=3 * 86400)
    assert seconds_to_lock(tmp_path / "lock") < 60


def test_the_lock_of_a_dead_holder_on_this_host_is_taken_immediately(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The kernel released the lock, so the heartbeat does not count."""
    monkeypatch.setattr(lock_module, "STALE_SECONDS", 1e6)
    for seconds_ago in (0, -3600):
        write_holder(tmp_path / "lock", socket.gethostname(), seconds_ago=seconds_ago)
        assert seconds_to_lock(tmp_path / "lock") < 60


def test_reading_the_heartbeat_does_not_release_the_lock(tmp_path: Path):
    """POSIX ends a lock when any descriptor of its file is closed."""
    write_holder(tmp_path / "lock")
    with RunLock(tmp_path / "lock"):
        child = os.fork()
        if child == 0:
            os._exit(not RunLock(tmp_path / "lock").is_taken())
        assert os.waitpid(child, 0)[1] == 0


def test_a_requeued_job_waits_for_its_earlier_start(tmp_path: Path):
    """This start waits another minute. It takes the lock if the earlier start dies, as here, and otherwise fails."""
    path = tmp_path / "lock"
    write_holder(path, job="12")
    with beating(path, 3600), pytest.raises(UserError, match="on elsewhere, SLURM job 12"), RunLock(path):
        pass
    last_beat = threading.Timer(0.5, os.utime, [path, (0, 0)])
    last_beat.start()
    with RunLock(path):
        last_beat.join()


@pytest.mark.parametrize(("behind", "beats"), [(0, True), (30, False), (-30, False)])
def test_is_beating_does_not_trust_a_heartbeat_in_the_future(tmp_path: Path, behind: int, beats: bool):
    write_holder(tmp_path / "lock", seconds_ago=behind)
    assert RunLock(tmp_path / "lock").is_beating() is beats
    if behind < 0:
        with beating(tmp_path / "lock", behind):
            assert RunLock(tmp_path / "lock").is_beating()


@pytest.mark.parametrize("content", [b"[1]", b"5", b"", b"{", bytes(99), b"\xff\xfe", b"[" * 99_999, b"{" * 9**7])
def test_a_damaged_lock_has_no_holder(tmp_path: Path, content: bytes):
    (tmp_path / "lock").write_bytes(content)
    assert not RunLock(tmp_path / "lock").is_beating()
    with RunLock(tmp_path / "lock") as held:
        assert held.is_beating()


def test_a_lock_with_a_damaged_holder_is_reported(tmp_path: Path):
    (tmp_path / "lock").write_text('{"host": ["x"]}')
    with beating(tmp_path / "lock", 0), pytest.raises(UserError, match="is being trained by process"):
        RunLock(tmp_path / "lock").__enter__()


@pytest.mark.parametrize(("make", "what"), NOT_REGULAR)
def test_a_lock_that_is_not_a_regular_file_is_refused(tmp_path: Path, make, what: str):
    make(tmp_path / "lock")
    for use in (RunLock.__enter__, RunLock.is_beating):
        with pytest.raises(UserError, match=what):
            use(RunLock(tmp_path / "lock"))
