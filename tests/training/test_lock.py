"""Whose lock it is, and when it is nobody's any more."""

import json
import os
import socket
import time
from pathlib import Path

import pytest

from resnext.errors import UserError
from resnext.training import lock as lock_module
from resnext.training.lock import RunLock


def write_holder(path: Path, host: str, job: str | None, seconds_ago: float) -> None:
    path.write_text(json.dumps({"host": host, "process": 1, "job": job, "since": "2026-01-01 00:00:00"}))
    os.utime(path, (time.time() - seconds_ago,) * 2)


@pytest.mark.parametrize(
    ("host", "job", "seconds_ago", "waits"),
    [
        (socket.gethostname(), None, 0, 0),  # the kernel knows better: nobody has it here
        ("elsewhere", None, 61, 0),
        ("elsewhere", "12", 58, 2),  # this job's former start, on a node that may still be alive
    ],
)
def test_a_lock_that_is_taken_over(
    tmp_path: Path, monkeypatch, host: str, job: str | None, seconds_ago: int, waits: int
):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    write_holder(tmp_path / "lock", host, job, seconds_ago)
    began = time.monotonic()
    with RunLock(tmp_path / "lock") as held:
        assert waits - 0.5 <= time.monotonic() - began < waits + 1.5
        assert held.is_beating()
    assert not held.is_beating()


@pytest.mark.parametrize("job", [None, "13"])
def test_a_lock_of_somebody_alive(tmp_path: Path, monkeypatch, job: str | None):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    write_holder(tmp_path / "lock", "elsewhere", job, 10)
    assert RunLock(tmp_path / "lock").is_beating()
    with pytest.raises(UserError, match="is being trained by process 1 on elsewhere"), RunLock(tmp_path / "lock"):
        pass


def test_a_former_start_that_is_still_alive(tmp_path: Path, monkeypatch):
    """Its heart goes on beating while this one waits, which therefore gives up."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setattr(lock_module, "STALE_SECONDS", 1.0)
    monkeypatch.setattr(RunLock, "_age", lambda self: 0.0)
    write_holder(tmp_path / "lock", "elsewhere", "12", 0)
    with pytest.raises(UserError, match="on elsewhere, SLURM job 12"), RunLock(tmp_path / "lock"):
        pass
