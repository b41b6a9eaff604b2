"""A trial of a sweep, as its journal knows it, and its runs, as their directories know them. Pure data."""

import functools
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
        damage: why the run's files cannot be read, for a page; then its curve is empty.
    """

    name: str
    seed: int | None
    curve: dict[int, float]
    steps: int = 0
    seconds: float = 0.0
    is_finished: bool = False
    damage: str = ""

    @property
    def epochs(self) -> int:
        return max(self.curve, default=0)

    def has_reached(self, epochs: int) -> bool:
        return self.is_finished or self.epochs >= epochs

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

    @property
    def is_waiting(self) -> bool:
        """Whether its runs have reached the target, and only the pruner can let it go on."""
        return self.state == "open" and self.target in self.values and self.target != self.rungs[-1]

    @property
    def value(self) -> float | None:
        """The newest value."""
        return self.values[max(self.values)] if self.values else None

    @property
    def label(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.params.items())


def run_name(sweep: str, number: int, seed: int | None) -> str:
    return f"{sweep}-{number}" if seed is None else f"{sweep}-{number}-seed{seed}"


def read_runs(sweep: str, number: int, config: SweepConfig) -> tuple[TrialRun, ...]:
    """The runs of a trial, from their directories. Raises UserError for a damaged one."""
    return tuple(read_run(run_name(sweep, number, seed), seed, config.metric) for seed in config.seeds or (None,))


def read_damaged_runs(sweep: str, number: int, config: SweepConfig) -> tuple[TrialRun, ...]:
    """The same, with the `damage` of a damaged run."""
    return tuple(
        _read_damaged_run(run_name(sweep, number, seed), seed, config.metric) for seed in config.seeds or (None,)
    )


def _read_damaged_run(name: str, seed: int | None, metric: str | None) -> TrialRun:
    try:
        return read_run(name, seed, metric)
    except UserError as error:
        return TrialRun(name, seed, {}, damage=str(error))
    except Exception as error:  # damage that nobody thought of must not cost the other trials
        return TrialRun(name, seed, {}, damage=describe_error(error))


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
    return TrialRun(name, seed, curve, steps, seconds, is_finished=summary["status"] == "finished")


@functools.cache  # it cannot change, and a controller reads every run after every event
def _read_recipe(path: Path) -> tuple[str, int]:
    """The run's own metric and its batch size."""
    recipe = Run(path).made.recipe
    return recipe.best_by, recipe.batch_size
