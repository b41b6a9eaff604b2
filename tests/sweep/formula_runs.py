"""A sweep whose runs are not trained: their curve is a formula of their values, the epoch and the seed."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from resnext.config.sweep import SweepConfig, make_sweep
from resnext.sweep.controller import Controller
from resnext.sweep.journal import Journal
from resnext.sweep.local import Ended
from resnext.sweep.schedule import Job
from resnext.sweep.trial import Trial, TrialRun, run_name

Curve = Callable[[dict[str, Any], int, int], float]  # values, seed, epoch → the metric


def accuracy(params: dict[str, Any], seed: int, epoch: int) -> float:
    """Best at lr=0.1, rising with the epoch, with a spread of the seeds."""
    distance = math.log10(float(params["lr"])) + 1
    return 0.9 - 0.1 * distance**2 - 0.5 / (epoch + 1) + 0.001 * seed


class Killed(BaseException):
    """The process of the sweep is killed here."""


class FormulaRuns:
    """The runs of a sweep, and how far each is trained. It outlives a `Controller`, as run directories do.

    Attributes:
        jobs: each (run, from epoch, to epoch), in the order in which they ended.
        fails: run → the error of its job.
        ends_early: run → the epoch of its early stop.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], epochs: int, curve: Curve) -> None:
        self.folder, self.epochs, self.curve = folder, epochs, curve
        self.config: SweepConfig = make_sweep(settings)
        self.trained: dict[str, tuple[dict[str, Any], int, int]] = {}
        self.jobs: list[tuple[str, int, int]] = []
        self.fails: dict[str, str] = {}
        self.ends_early: dict[str, int] = {}
        self.controller: Controller | None = None

    def start(self, killed_after: float = math.inf) -> list[Trial]:
        """Goes on with the sweep to its end, or until it is killed at the moment `killed_after`."""
        workers = FormulaWorkers(self, killed_after)
        journal = KillableJournal(self.folder / "optuna.journal", self.config.direction, workers.pass_moment)
        self.controller = Controller(self.folder, self.config, journal, workers, self.compose, self.find)
        self.controller.run()
        return self.controller.trials

    def compose(self, _overrides: list[str]) -> Any:
        return SimpleNamespace(recipe=SimpleNamespace(epochs=self.epochs))

    def find(self, name: str, number: int, config: SweepConfig) -> tuple[TrialRun, ...]:
        return tuple(self._find(run_name(name, number, seed), seed) for seed in config.seeds or (None,))

    def _find(self, name: str, seed: int | None) -> TrialRun:
        params, used, epochs = self.trained.get(name, ({}, 0, 0))
        epochs = min(epochs, self.ends_early.get(name, epochs))
        curve = {epoch: self.curve(params, used, epoch) for epoch in range(1, epochs + 1)}
        return TrialRun(name, seed, curve, is_finished=epochs in (self.epochs, self.ends_early.get(name)))

    def train(self, job: Job) -> None:
        before = self.trained[job.run.name][2] if job.run.name in self.trained else 0
        self.jobs.append((job.run.name, before, job.trial.target))
        self.trained[job.run.name] = (job.trial.params, job.run.seed or 0, job.trial.target)

    @property
    def trained_epochs(self) -> int:
        return sum(to - since for _, since, to in self.jobs)


class KillableJournal(Journal):
    """Before and after each record is a moment to be killed."""

    def __init__(self, path: Path, direction: Literal["maximize", "minimize"], pass_moment: Callable[[], None]) -> None:
        super().__init__(path, direction)
        for name in ("add", "report", "promote", "complete", "prune", "fail"):
            setattr(self, name, self._killable(getattr(self, name), pass_moment))

    def _killable(self, record: Callable[..., None], pass_moment: Callable[[], None]) -> Callable[..., None]:
        def killable(*arguments: Any) -> None:
            pass_moment()
            record(*arguments)
            pass_moment()

        return killable


class FormulaWorkers:
    """Trains the job that began first, at once. Each start and each end of a job is a moment to be killed."""

    waits = True

    def __init__(self, runs: FormulaRuns, killed_after: float) -> None:
        self.runs, self.moments_left = runs, killed_after
        self.begun: list[Job] = []

    @property
    def training(self) -> set[str]:
        return {job.run.name for job in self.begun}

    def has_place(self) -> bool:
        return len(self.begun) < self.runs.config.places

    def start(self, job: Job) -> None:
        self.pass_moment()
        self.begun.append(job)

    def wait(self, seconds: float) -> list[Ended]:
        if not self.begun:
            return []
        self.pass_moment()
        job = self.begun.pop(0)
        error = self.runs.fails.get(job.run.name, "")
        if not error:
            self.runs.train(job)
        self.pass_moment()
        return [Ended(job, 0, time.time(), error)]

    def stop(self) -> None:
        self.begun.clear()

    def pass_moment(self) -> None:
        self.moments_left -= 1
        if self.moments_left < 0:
            raise Killed
