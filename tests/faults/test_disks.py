"""Full disks, a folder that becomes read-only, a full TMPDIR. The tests mount file systems, which needs root."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.commands import OPTIONS, Command, check_files, wait_for, wait_for_step

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small file system")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB; a run takes 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount here: {mounted.stderr.decode()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Fills the disk to the last byte; returns the file to delete."""
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space left"), open(filler, "ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                if size == 1:
                    raise
    return filler


def has_failed(command: Command, times: int) -> Callable[[], bool]:
    return lambda: command.output.count("last.ckpt could not be saved: ") >= times


def test_a_training_survives_a_full_disk(
    start: Callable, resnext: Callable, whole: Path, small_disk: Path, tmp_path: Path
):
    """The disk becomes full twice. The training continues with warnings; the second time it is killed, then resumed."""
    run = tmp_path / "runs/parts"
    (tmp_path / "runs").symlink_to(small_disk)
    options = (*OPTIONS, "run=parts", "checkpoint.every_steps=2", "checkpoint.max_failures=999")
    command = start("train", *options)
    wait_for_step(run, 20, command)
    filler = fill(small_disk)
    wait_for(has_failed(command, 3), command)
    wait_for(lambda: "metrics.csv cannot be written: No space left on device" in command.output, command)
    check_files(run)
    filler.unlink()
    failures = command.output.count("could not be saved")
    wait_for_step(run, 60, command)
    filler = fill(small_disk)
    wait_for(has_failed(command, failures + 3), command)
    command.kill(signal.SIGKILL)
    assert command.wait() == -signal.SIGKILL, command.output
    check_files(run)
    filler.unlink()
    resnext("train", *options)
    check_files(run)
    resnext("compare", str(whole), "runs/parts")


def test_a_disk_that_stays_full_ends_the_training(
    start: Callable, resnext: Callable, whole: Path, small_disk: Path, tmp_path: Path
):
    """The training ends after checkpoint.max_failures, with one line, and can be resumed when there is space."""
    run = tmp_path / "runs/parts"
    (tmp_path / "runs").symlink_to(small_disk)
    command = start("train", *OPTIONS, "run=parts", "checkpoint.every_steps=5", "checkpoint.max_failures=4")
    wait_for_step(run, 20, command)
    filler = fill(small_disk)
    assert command.wait() == 1, command.output
    assert "could not be saved, 4 times in a row (checkpoint.max_failures=4)" in command.output
    assert "Traceback" not in command.output
    check_files(run)
    filler.unlink()
    resnext("resume", "runs/parts")
    resnext("compare", str(whole), "runs/parts")


def test_a_training_survives_a_read_only_folder(start: Callable, resnext: Callable, whole: Path, tmp_path: Path):
    folder = tmp_path / "runs/parts/checkpoints"
    command = start("train", *OPTIONS, "run=parts", "checkpoint.every_steps=5", "checkpoint.max_failures=999")
    wait_for_step(tmp_path / "runs/parts", 20, command)
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        wait_for(has_failed(command, 3), command)
        assert "Read-only file system" in command.output
        check_files(tmp_path / "runs/parts")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
    assert command.wait() == 0, command.output
    resnext("compare", str(whole), "runs/parts")


def test_a_full_tmpdir_does_not_matter(start: Callable, resnext: Callable, whole: Path, small_disk: Path):
    fill(small_disk)
    command = start("train", *OPTIONS, "run=parts", "data.workers=1", TMPDIR=str(small_disk))
    assert command.wait() == 0, command.output
    assert "could not be saved" not in command.output
    resnext("compare", str(whole), "runs/parts")
