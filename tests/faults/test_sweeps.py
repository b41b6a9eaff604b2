"""A sweep whose process is killed at random moments loses no trial, and trains none twice."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from faults.commands import OPTIONS, Command, children, wait_for
from resnext.run.directory import Run
from resnext.run.metrics import read_rows

KILLS = 20
SECONDS = 10.0  # the longest time until a kill; the runs begin to train after about 7
RUNS = (
    *OPTIONS,
    "recipe.epochs=1",
    "checkpoint.every_steps=5",
    "recipe.optimizer.lr=0.01,0.03,0.1,0.3",
    "recipe.batch_size=64,96,128",
)
TRIALS = 12


def test_a_sweep_killed_at_random_moments_trains_each_trial_once(
    start: Callable, resnext: Callable, digits: Path, tmp_path: Path, instants: random.Random
):
    """Two places. Each run ends bit-identical to the same run trained alone. Every second kill also kills the runs."""
    sweep, one_thread = ("sweep", "run=swept", *RUNS, "sweep.parallel=2"), {"OMP_NUM_THREADS": "1"}
    killed = 0
    for number in range(KILLS):
        process = start(*sweep, **one_thread)
        if number % 3 == 0:  # at any speed of the machine, some kills come while runs train
            before = count_rows(tmp_path)
            wait_for(lambda: count_rows(tmp_path) > before, process, every=0.05)  # noqa: B023
            time.sleep(instants.uniform(0, 1))
        else:
            time.sleep(instants.uniform(0, SECONDS))
        if number % 2:
            kill_runs(process)
        process.kill(signal.SIGKILL)
        code = process.wait()
        assert code in (-signal.SIGKILL, 0), process.output
        killed += code != 0
    assert killed >= KILLS / 2
    process = start(*sweep, **one_thread)
    assert process.wait() == 0, process.output

    rows = list(csv.DictReader((tmp_path / "runs/swept/trials.csv").read_text().splitlines()))
    assert [(row["state"], row["epochs"]) for row in rows] == [("complete", "1")] * TRIALS
    assert len({(row["recipe.optimizer.lr"], row["recipe.batch_size"]) for row in rows}) == TRIALS
    names = {path.parent.name for path in tmp_path.glob("runs/swept-*/config.yaml")}
    assert names == {row["runs"] for row in rows}
    begun = {name: [start["from_step"] for start in Run(tmp_path / "runs" / name).info["starts"]] for name in names}
    assert all(steps == sorted(steps) for steps in begun.values()), begun  # a run never begins again
    assert any(len(steps) > 1 for steps in begun.values()), begun
    print(f"{killed} kills; the starts of each run began at step {sorted(begun.values())}")

    train_alone(tmp_path, digits.parent)
    alone = {values(Run(path.parent)): path.parent for path in tmp_path.glob("runs/alone-*/config.yaml")}
    for name in names:
        swept = tmp_path / "runs" / name
        resnext("compare", str(swept), str(alone[values(Run(swept))]))


def train_alone(folder: Path, data: Path) -> None:
    command = [sys.executable, "-m", "resnext", "train", "-m", "run=alone", *RUNS]
    environment = {"RESNEXT_DATA": str(data), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def count_rows(folder: Path) -> int:
    return sum(len(read_rows(path)) for path in folder.glob("runs/swept-*/metrics.csv"))


def kill_runs(sweep: Command) -> None:
    """Stops the process of the sweep first: it would record that its runs were killed."""
    sweep.kill(signal.SIGSTOP)
    for run in children(sweep.pid):
        with suppress(ProcessLookupError):
            os.kill(run, signal.SIGKILL)


def values(run: Run) -> tuple[float | None, int]:
    recipe = run.config.recipe
    return recipe.optimizer.lr, recipe.batch_size
