"""A running `resnext` command, and functions that wait for its progress."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from resnext.run.metrics import read_rows
from resnext.runtime.checkpoint import read_checkpoint

SECONDS = 120  # the longest wait

OPTIONS = (
    *("experiment=resnext_digits", "model.width=8", "logger=csv", "logger.every_steps=1", "data.workers=0"),
    "logger.report=false",
    *("trainer.accelerator=cpu", "trainer.precision=32-true", "recipe.epochs=6"),
    *("recipe.ema.decay=0.9", "recipe.mixing.mixup_alpha=0.2", "recipe.drop_path_rate=0.1"),
    "recipe.augmentation.auto_augment=rand-m5-mstd0.5",
)

RANKS = ("trainer.devices=2", "trainer.micro_batch_size=16")


class Command:
    """A running command and its output."""

    def __init__(self, server: subprocess.Popen[str], log: Path) -> None:
        assert server.stdout is not None
        self.server, self.log = server, log
        self.pid = int(server.stdout.readline())
        self.code: int | None = None
        self.started = time.monotonic()

    def kill(self, signum: int) -> None:
        """Sends a signal. Safe after the command has ended: until `wait`, no other process gets its id."""
        os.kill(self.pid, signum)

    def is_running(self) -> bool:
        return self._state() != "Z"

    def is_stopped(self) -> bool:
        return self._state() == "T"

    def _state(self) -> str:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def wait(self) -> int:
        """The exit code of the command, or minus the signal that killed it."""
        assert self.server.stdout is not None
        print("wait", file=self.server.stdin, flush=True)
        self.code = int(self.server.stdout.readline())
        return self.code

    @property
    def output(self) -> str:
        return self.log.read_text()


def wait_for(condition: Callable[[], object], command: Command, every: float = 0.002) -> None:
    """Waits until `condition` is true or the command has ended."""
    deadline = time.monotonic() + SECONDS
    while command.is_running() and not condition():
        assert time.monotonic() < deadline, command.output
        time.sleep(every)


def wait_for_step(run: Path, step: int, command: Command) -> None:
    wait_for(lambda: any(int(row["step"]) >= step for row in read_rows(run / "metrics.csv")), command)
    assert command.is_running(), command.output


def check_files(run: Path) -> None:
    """Asserts that every file is complete, and that no checkpoint was renamed as damaged."""
    for path in (run / "checkpoints").glob("*.ckpt"):
        assert "damaged" not in path.name
        read_checkpoint(path)
    for name in ("run.json", "summary.json"):
        json.loads((run / name).read_text())


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
