"""A training as a job on the test cluster: submits it as a user does, watches it, disturbs it, reads its results."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from slurm.cluster import BRIDGE, output

HOOKS = Path(__file__).with_name("hooks")
TINY = (
    "model=resnext_small",
    "model.width=8",
    "data.workers=0",
    "recipe.epochs=3",
    "trainer.precision=32-true",
    "logger=csv",
    "logger.every_steps=1",
    "logger.report=false",
)
STEPS = 66  # 3 epochs of 1437 // 64 steps
PATIENCE = 480.0  # seconds; the machine may be busy


class Job:
    """`resnext slurm run=NAME` on nodes × tasks ranks. `environment` is for hooks/sitecustomize.py."""

    def __init__(self, lab: Path, name: str, *overrides: str, nodes: int = 2, tasks: int = 1, **environment: str):
        self.run, self.lab = lab / "runs" / name, lab
        self.marker = lab / f"{name}.marker"
        hooks = {"PYTHONPATH": str(HOOKS), "PAUSE_MARKER": str(self.marker), **environment}
        self.submission = resnext(
            lab,
            "slurm",
            *TINY,
            f"run={name}",
            f"slurm.nodes={nodes}",
            f"slurm.tasks_per_node={tasks}",
            *overrides,
            **hooks,
        )
        assert self.submission.returncode == 0, self.submission.stderr
        self.id = re.search(r"submitted job (\d+)", self.submission.stdout)[1]

    def show(self) -> dict[str, str]:
        """The fields of `scontrol show job`."""
        return dict(re.findall(r"(\w+)=(\S*)", output("scontrol", "show", "job", "--oneliner", self.id)))

    def wait_for(self, *states: str) -> dict[str, str]:
        wait_until(lambda: self.show()["JobState"] in states, f"job {self.id} of {self.run.name} to be {states}", self)
        return self.show()

    def wait_for_steps(self, count: int) -> None:
        wait_until(lambda: self.steps >= count, f"{count} steps of {self.run.name}", self)

    def wait_for_pause(self) -> None:
        wait_until(self.marker.exists, f"the pause of {self.run.name}", self)

    @property
    def steps(self) -> int:
        try:
            rows = list(csv.DictReader((self.run / "metrics.csv").read_text().rpartition("\n")[0].splitlines()))
        except FileNotFoundError:
            return 0
        return int(rows[-1]["step"]) if rows else 0

    @property
    def log(self) -> str:
        return (self.run / f"slurm-{self.id}.out").read_text()

    @property
    def history(self) -> list[str]:
        """The lines of the batch script in jobs.txt, without times: `start`, `stop preempted`, `crash exit code 1` …"""
        lines = (self.run / "jobs.txt").read_text().splitlines()
        return [re.sub(r"^\d+ (\w+) \S+ restart (\d+): ", r"\2 \1 ", line) for line in lines if "submitted" not in line]

    @property
    def summary(self) -> dict:
        return json.loads((self.run / "summary.json").read_text())

    @property
    def info(self) -> dict:
        return json.loads((self.run / "run.json").read_text())

    def signal(self, name: str) -> None:
        """Sends a signal to the ranks, like SLURM before a time limit."""
        subprocess.run(["scancel", f"--signal={name}", self.id], check=True)

    def cancel(self) -> None:
        subprocess.run(["scancel", self.id], check=True)

    def requeue(self) -> None:
        subprocess.run(["scontrol", "requeue", self.id], check=True)

    def kill_rank(self, rank: int) -> None:
        """Kills a rank with SIGKILL."""
        for pid in output("ip", "netns", "pids", f"{BRIDGE}-{self.nodes[rank]}").split():
            try:
                command = Path(f"/proc/{pid}/cmdline").read_text()
            except OSError:
                continue
            if f"fit\0runs/{self.run.name}\0" in command and "srun" not in command:
                os.kill(int(pid), signal.SIGKILL)

    @property
    def nodes(self) -> list[str]:
        return output("scontrol", "show", "hostnames", self.show()["NodeList"]).split()

    def assert_finished(self, restarts: int = 1) -> None:
        """Asserts COMPLETED with every step in metrics.csv, after at least `restarts` requeues; with 0, after none.

        On a slow machine SLURM's kill of the start before may come late, and ends one more start.
        """
        final = self.wait_for("COMPLETED", "FAILED", "CANCELLED")
        assert final["JobState"] == "COMPLETED", self.log
        assert int(final["Restarts"]) >= restarts if restarts else final["Restarts"] == "0", self.log
        assert self.summary["status"] == "finished"
        assert self.steps == STEPS


def resnext(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "resnext", *arguments],
        cwd=folder,
        env={**os.environ, "RESNEXT_DATA": str(folder / "data"), **environment},
        capture_output=True,
        text=True,
    )


def wait_until(condition: Callable[[], bool], what: str, job: Job, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} in {seconds:g} s: {job.show()}\n{job.log}")
        time.sleep(0.1)
