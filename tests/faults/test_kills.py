"""Kills at random moments, during a save, and of one process of several. The result equals the uninterrupted run."""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from faults.commands import OPTIONS, RANKS, Command, check_files, children, wait_for, wait_for_step
from resnext.runtime.checkpoint import BEST, LAST

KILLS = 20


def test_kills_at_random_moments(
    start: Callable, resnext: Callable, whole: Path, tmp_path: Path, instants: random.Random
):
    """Every second kill is during a save; the others are at any time after the start of the process."""
    seconds = float((whole / "seconds").read_text()) / 4
    run = tmp_path / "runs/parts"
    options = [*OPTIONS, "run=parts", "checkpoint.every_steps=1"]
    endings, in_a_save = [], 0
    for number in range(KILLS):
        left = find_partial_files(run)  # left by the previous kill
        command = start("train", *options, f"data.workers={number // 2 % 2}")
        if number % 2 == 0:
            stop_in_a_save(command, lambda: find_partial_files(run) - left, after=instants.uniform(0, 0.3))  # noqa: B023
            command.kill(signal.SIGKILL)
        else:
            time.sleep(instants.uniform(0, seconds))
            command.kill(instants.choice([signal.SIGKILL, signal.SIGTERM]))
        endings.append(command.wait())
        assert endings[-1] in (-signal.SIGKILL, -signal.SIGTERM, 143, 0), command.output
        in_a_save += endings[-1] == -signal.SIGKILL and bool(find_partial_files(run) - left)
        if run.exists():
            check_files(run)
        if endings[-1] == 0:
            break  # the run is finished
    resnext("train", *options)
    check_files(run)
    killed = len([code for code in endings if code])
    print(f"{killed} were killed, {in_a_save} of them in a save")
    assert killed >= KILLS // 2, endings
    assert in_a_save >= killed / 3
    resnext("compare", str(whole), "runs/parts")


def stop_in_a_save(command: Command, find_files: Callable[[], set], after: float) -> None:
    """Stops the command (SIGSTOP) while it writes a file, at least `after` seconds after the first save.

    A save takes a few milliseconds, so it may be over when its file is seen; then this tries again.
    """
    wait_for(find_files, command, every=0)
    time.sleep(after)
    while command.is_running():
        wait_for(find_files, command, every=0)
        command.kill(signal.SIGSTOP)
        wait_for(command.is_stopped, command, every=0)
        if find_files():
            return
        command.kill(signal.SIGCONT)


def find_partial_files(run: Path) -> set[tuple[int, int]]:
    """Incomplete checkpoints: a process is writing them, or was killed while it wrote them."""
    found = set()
    for name in (LAST, BEST):
        with suppress(FileNotFoundError):
            status = (run / "checkpoints" / f".{name}.partial").stat()
            found.add((status.st_ino, status.st_mtime_ns))
    return found


@pytest.mark.parametrize("size", [0, 1000])
def test_a_truncated_last_checkpoint_is_replaced_by_the_previous_one(
    start: Callable, resnext: Callable, whole: Path, tmp_path: Path, size: int
):
    """The file is empty or cut. The run continues from previous.ckpt and computes the later steps again."""
    command = start("train", *OPTIONS, "run=parts", "checkpoint.every_steps=10")
    run = tmp_path / "runs/parts"
    wait_for_step(run, 35, command)
    command.kill(signal.SIGKILL)
    command.wait()
    os.truncate(run / "checkpoints/last.ckpt", size)
    resumed = resnext("resume", "runs/parts")
    assert "last.ckpt is damaged: " in resumed.output
    assert ": previous.ckpt" in resumed.output
    assert len(list((run / "checkpoints").glob("last.damaged-*.ckpt"))) == 1
    resnext("compare", str(whole), "runs/parts")


def test_a_killed_worker_ends_the_run_with_one_line(start: Callable, resnext: Callable, whole: Path, tmp_path: Path):
    run = tmp_path / "runs/parts"
    command = start("train", *OPTIONS, "run=parts", "data.workers=2", "checkpoint.every_steps=10")
    wait_for_step(run, 30, command)
    os.kill(children(command.pid)[0], signal.SIGKILL)
    assert command.wait() == 1, command.output
    assert "a DataLoader worker was killed by SIGKILL" in command.output
    resnext("resume", "runs/parts")
    check_files(run)
    resnext("compare", str(whole), "runs/parts")


def test_after_a_rank_is_killed_all_ranks_are_restarted(
    start: Callable, resnext: Callable, whole_pair: Path, tmp_path: Path
):
    run = tmp_path / "runs/parts"
    command = start("train", *OPTIONS, *RANKS, "run=parts", "checkpoint.every_steps=10", "trainer.max_restarts=2")
    for rank, step in ((1, 30), (0, 70)):
        wait_for_step(run, step, command)
        os.kill(children(command.pid)[rank], signal.SIGKILL)
    assert command.wait() == 0, command.output
    for rank, restart in ((1, 1), (0, 2)):
        line = f"rank {rank} was killed by SIGKILL: restart {restart} of trainer.max_restarts=2"
        assert line in command.output, command.output
    check_files(run)
    resnext("compare", str(whole_pair), "runs/parts")


def test_three_ranks_are_bit_identical_after_a_kill_and_a_stop(start: Callable, resnext: Callable, tmp_path: Path):
    """With three ranks or more, a sum depends on its order. tests/training/test_resume_ranks.py has up to 8 ranks."""
    options = (*OPTIONS, "recipe.epochs=2", "recipe.batch_size=48", "trainer.devices=3")
    resnext("train", *options, "run=whole")
    run = tmp_path / "runs/parts"
    command = start("train", *options, "run=parts", "checkpoint.every_steps=5", "trainer.max_restarts=1")
    wait_for_step(run, 12, command)
    os.kill(children(command.pid)[2], signal.SIGKILL)
    wait_for_step(run, 40, command)
    command.kill(signal.SIGTERM)
    assert command.wait() == 143, command.output
    assert "rank 2 was killed by SIGKILL: restart" in command.output
    resnext("resume", "runs/parts")
    check_files(run)
    resnext("compare", "runs/whole", "runs/parts")


def test_a_hung_rank_ends_all_processes(start: Callable, tmp_path: Path):
    command = start("train", *OPTIONS, *RANKS, "run=hung", "recipe.epochs=999", "trainer.timeout_minutes=0.1")
    wait_for_step(tmp_path / "runs/hung", 30, command)
    ranks = children(command.pid)
    os.kill(ranks[1], signal.SIGSTOP)
    began = time.monotonic()
    assert command.wait() == 1, command.output
    assert time.monotonic() - began < 90  # the timeout of 6 s, torchrun's 30 s for a hung process, a busy machine
    assert "another process has not answered for trainer.timeout_minutes=0.1" in command.output
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)
