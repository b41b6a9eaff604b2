"""A launcher that is killed leaves no rank, no DataLoader worker and no lock."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from resnext.loggers.csv import read_rows
from resnext.run.directory import Run

SECONDS_TO_BE_GONE = 4  # less than the 5 s in which a DataLoader's own watchdog notices
OPTIONS = (
    *("model=resnext_small", "model.width=8", "recipe.epochs=9999", "data.workers=1", "logger=csv", "run=x"),
    *("logger.every_steps=1", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.devices=2"),
)


@pytest.mark.processes
def test_a_killed_launcher_leaves_no_process_and_no_lock(digits: Path, tmp_path: Path):
    run = Run(tmp_path / "runs/x")
    launcher = start_training(digits)
    ranks = wait_for(lambda: ranks_of(launcher))
    wait_for(lambda: "libtorch" in Path(f"/proc/{ranks[1]}/maps").read_text())
    os.kill(ranks[1], signal.SIGSTOP)  # while rank 1 imports torch and rank 0 waits for it in init_process_group
    wait_for(lambda: (run.path / "summary.json").exists() and run.summary["status"] == "running")
    kill_and_check(launcher, [*ranks.values()], run)

    launcher = start_training(digits)
    ranks = wait_for(lambda: ranks_of(launcher))
    wait_for(lambda: len(read_rows(run.path / "metrics.csv")) > 2)
    workers = [worker for rank in ranks.values() for worker in children(rank)]
    assert len(workers) == 2
    kill_and_check(launcher, [*ranks.values(), *workers], run)


def start_training(data: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "resnext", "train", *OPTIONS, f"data.root={data}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ranks_of(launcher: subprocess.Popen[bytes]) -> dict[int, int] | None:
    """Process ids by rank, when both ranks have started."""
    ranks = {}
    for pid in children(launcher.pid):
        with suppress(ProcessLookupError, FileNotFoundError):  # a command of the launcher that has ended
            names = Path(f"/proc/{pid}/environ").read_text().split("\0")
            ranks |= {int(name.removeprefix("RANK=")): pid for name in names if name.startswith("RANK=")}
    return ranks if len(ranks) == 2 else None


def kill_and_check(launcher: subprocess.Popen[bytes], others: list[int], run: Run) -> None:
    launcher.kill()
    launcher.wait()
    began = time.monotonic()
    try:
        wait_for(lambda: not any(is_alive(pid) for pid in others), SECONDS_TO_BE_GONE)
    finally:
        took = time.monotonic() - began
        alive = [pid for pid in others if is_alive(pid)]
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
    assert not alive, f"{len(alive)} of {len(others)} processes live on {took:.1f} s after their launcher"
    assert wait_for(lambda: not run.lock().is_taken(), SECONDS_TO_BE_GONE)  # a zombie's threads may end a little later


def wait_for(condition: Callable[[], object], seconds: float = 120) -> object:
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return value


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    """False for a zombie: it has ended, and only waits until its new parent collects it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
