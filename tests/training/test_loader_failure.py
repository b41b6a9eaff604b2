"""A DataLoader worker that dies or hangs ends the real command with one line, and no process is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

WORKER_TIMEOUT = 3
SECONDS_TO_CLEAR_AWAY = 30  # the DataLoader itself waits 5 s for each worker, and the machine may be busy


@pytest.fixture
def training(image_folder: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A running training of very many epochs."""
    arguments = f"""train experiment=image_folder model=resnext_small data.root={image_folder} data.workers=1 run=loader
        data.worker_timeout={WORKER_TIMEOUT} recipe.image_size=8 recipe.batch_size=4 recipe.epochs=100000
        logger.mode=disabled trainer.accelerator=cpu"""
    command = [sys.executable, "-m", "resnext", *arguments.split()]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    wait_for(lambda: (tmp_path / "runs/loader/checkpoints/last.ckpt").exists())
    yield process
    process.kill()


def wait_for(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(
    ("signum", "message"),
    [
        (
            signal.SIGKILL,
            "a DataLoader worker was killed by SIGKILL: if the machine ran out of memory, give fewer data.workers",
        ),
        (signal.SIGSTOP, "no DataLoader worker returned a batch within data.worker_timeout=3 seconds: check whether"),
    ],
)
def test_a_lost_worker_ends_the_run(training: subprocess.Popen[str], signum: int, message: str, tmp_path: Path):
    workers = children(training.pid)
    os.kill(workers[0], signum)
    _, errors = training.communicate(timeout=WORKER_TIMEOUT + SECONDS_TO_CLEAR_AWAY)
    assert training.returncode == 1
    assert message in errors
    assert errors.count("\n") == 1
    assert '"failed"' in (tmp_path / "runs/loader/summary.json").read_text()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), seconds=5)
