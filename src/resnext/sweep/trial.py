"""A trial of a sweep, as its journal knows it, and its runs, as their directories know them. Pure data."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from resnext.config.sweep import SweepConfig
from resnext.errors import UserError, describe_error
from resnext.run.directory import RUNS, Run
from resnext.run.metrics import read_rows
from resnext.run.run_files import is_run

State = Literal["open", "complete", "pruned", "failed"]


@dataclass(frozen=True)
class TrialRun:
    """One run of a trial.

    Attributes:
        seed: None is the experiment's own.
        curve: the metric after each validated epoch.
        steps: optimizer steps so far.
        seconds: of training, without start-up and validation, if its speed is the same throughout.
        is_finished: whether the run has no step left.
        damage: why the run cannot be read, or is not the trial's; then its curve is empty.
        command: that made the run; None before.
    """

    name: str
    seed: int | None
    curve: dict[int, float]
    steps: int = 0
    seconds: float = 0.0
    is_finished: bool = False
    damage: str = ""
    command: tuple[str, ...] | None = None

    def checked(self, overrides: Sequence[str]) -> "TrialRun":
        """This run; damaged if another command than that of a trial with these overrides has made it."""
        if self.command is None or set(overrides) <= set(self.command):
            return self
        damage = f"{self.path} was made with other values: move it away, and give the sweep another run=NAME"
        return TrialRun(self.name, self.seed, {}, damage=damage)

    @property
    def epochs(self) -> int:
        return max(self.curve, default=0)

    def best(self, epochs: int, direction: str) -> float:
        """The best value up to this epoch; it is NaN if none is a number."""
        values = [value for epoch, value in self.curve.items() if epoch <= epochs and value == value]
        return (max if direction == "maximize" else min)(values, default=float("nan"))

    @property
    def path(self) -> Path:
        return RUNS / self.name


@dataclass(frozen=True)
class Trial:
    """One set of values.

    Attributes:
        rungs: the epochs at which the pruner decides, and at last the epochs of the training.
        values: rung → the mean over the seeds of the best value so far.
        promotions: how many rungs it may go beyond the first.
    """

    number: int
    params: dict[str, Any]
    overrides: tuple[str, ...]
    rungs: tuple[int, ...]
    runs: tuple[TrialRun, ...]
    values: dict[int, float]
    promotions: int = 0
    state: State = "open"
    error: str = ""

    @property
    def target(self) -> int:
        """The epoch that its runs may train to now."""
        return self.rungs[self.promotions]

    def has_reached_target(self, run: TrialRun) -> bool:
        """At the last rung, the run must have finished: its last row is written before its last checkpoint."""
        return run.is_finished or (self.target != self.rungs[-1] and run.epochs >= self.target)

    @property
    def is_waiting(self) -> bool:
        """Whether its runs have reached the target, and only the pruner can let it go on."""
        return self.state == "open" and self.target in self.values and self.target != self.rungs[-1]

    @property
    def value(self) -> float | None:
        """The newest value."""
        return self.values[max(self.values)] if self.values else None


def run_name(sweep: str, number: int, seed: int | None) -> str:
    return f"{sweep}-{number}" if seed is None else f"{sweep}-{number}-seed{seed}"


def read_runs(
    sweep: str, number: int, config: SweepConfig, damage: type[Exception] = UserError
) -> tuple[TrialRun, ...]:
    """The runs of a trial, from their directories. An error of the type `damage` makes only its own run damaged."""

    def read(name: str, seed: int | None) -> TrialRun:
        try:
            return read_run(name, seed, config.metric)
        except damage as error:
            text = str(error) if isinstance(error, UserError) else describe_error(error)
            return TrialRun(name, seed, {}, damage=text)

    return tuple(read(run_name(sweep, number, seed), seed) for seed in config.seeds or (None,))


def read_run(name: str, seed: int | None, metric: str | None) -> TrialRun:
    path = RUNS / name
    if not is_run(path):
        return TrialRun(name, seed, {})
    best_by, batch_size = _read_recipe(path.absolute())
    rows, summary = read_rows(path / "metrics.csv"), Run(path).summary
    curve = {int(row["epoch"]): float(row[metric or best_by]) for row in rows if row.get(metric or best_by)}
    steps = max(int(rows[-1]["step"]) if rows else 0, summary.get("steps", 0))
    speed = summary.get("images_per_sec")
    seconds = steps * batch_size / speed if speed else 0.0
    is_finished = summary["status"] == "finished"
    return TrialRun(name, seed, curve, steps, seconds, is_finished=is_finished, command=_read_command(path.absolute()))


@functools.cache
def _read_command(path: Path) -> tuple[str, ...]:
    """The command that made the run."""
    return tuple(map(str, Run(path).info.get("command", ())))


@functools.cache  # it cannot change, and a controller reads every run after every event
def _read_recipe(path: Path) -> tuple[str, int]:
    """The run's own metric and its batch size."""
    recipe = Run(path).made.recipe
    return recipe.best_by, recipe.batch_size
