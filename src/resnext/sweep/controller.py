"""Controller: gives every free place its next run, and records what the runs reach.

It may be killed at any moment: what it knows is in the journal and in the run directories.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from optuna.trial import FrozenTrial

from resnext.config.schema import Config
from resnext.config.sweep import SweepConfig
from resnext.errors import RunFailed, UserError
from resnext.sweep.journal import Journal
from resnext.sweep.local import Ended
from resnext.sweep.pruning import find_rungs, is_promoted
from resnext.sweep.sampling import propose, seen_by_sampler
from resnext.sweep.schedule import Job, find_job, find_promotion
from resnext.sweep.space import SearchSpace
from resnext.sweep.table import append_job, describe, write_csv
from resnext.sweep.trial import Trial, read_runs
from resnext.sweep.trials import FindRuns, read_trial

SECONDS_BETWEEN_LOOKS = 5.0  # at the budget


class Workers(Protocol):
    """Where runs train: local.py or slurm.py."""

    @property
    def waits(self) -> bool: ...
    @property
    def training(self) -> set[str]: ...
    def has_place(self) -> bool: ...
    def start(self, job: Job) -> None: ...
    def wait(self, seconds: float) -> list[Ended]: ...
    def stop(self) -> None: ...


class Controller:
    """A sweep that goes on.

    Args:
        compose: overrides → the configuration of a run.
        find_runs: reads the runs of a trial.
    """

    def __init__(
        self,
        folder: Path,
        config: SweepConfig,
        journal: Journal,
        workers: Workers,
        compose: Callable[[list[str]], Config],
        find_runs: FindRuns = read_runs,
    ) -> None:
        self.folder, self.config, self.journal, self.workers = folder, config, journal, workers
        self.compose, self.find_runs = compose, find_runs
        self.space = SearchSpace(config)
        self._ended: dict[int, Trial] = {}
        self._began = time.monotonic()

    def run(self) -> int:
        """Returns 0 when all is done; else the number of runs that are in SLURM's queue, or that the budget stopped.

        Raises:
            RunFailed: if more than sweep.max_failures trials have failed.
        """
        try:
            while True:
                if self._is_over_budget():
                    return max(1, len(self.workers.training))
                self._start_jobs()
                write_csv(self.folder, self.trials, self.config.direction)
                if ended := self.workers.wait(SECONDS_BETWEEN_LOOKS):
                    for each in ended:
                        self._close(each)
                elif not self.workers.training:
                    self._prune_the_rest()
                    return 0
                elif not self.workers.waits:
                    return len(self.workers.training)
        finally:
            self.workers.stop()
            write_csv(self.folder, self.trials, self.config.direction)

    @property
    def trials(self) -> list[Trial]:
        """All trials. The runs of a trial that has ended are read once: every event asks for all trials."""
        return [self._ended.get(recorded.number) or self._read(recorded) for recorded in self.journal.trials]

    def _read(self, recorded: FrozenTrial) -> Trial:
        trial = read_trial(recorded, self.find_runs(self.folder.name, recorded.number, self.config))
        if trial.state != "open" and not self._trains(trial):
            self._ended[trial.number] = trial
        return trial

    def _start_jobs(self) -> None:
        """Fills the free places. A promoted trial may have reached its next rung already, by early stopping."""
        while True:
            self._record_all()
            if not self.workers.has_place():
                return
            trials = self.trials
            if (job := find_job(trials, self.workers.training)) is not None:
                self.workers.start(job)
            elif not (self._promote(trials) or self._add_trial(trials) or self._promote_best_waiting(trials)):
                return

    def _add_trial(self, trials: Sequence[Trial]) -> bool:
        """Asks the sampler for another trial. Returns False if there are enough."""
        limits = [each for each in (self.config.trials, self.space.size) if each is not None]
        is_grid = self.config.sampler == "grid"
        if len(trials) >= (min(limits) if is_grid else limits[0]):
            return False
        before = [seen_by_sampler(*each) for each in zip(trials, self.journal.trials, strict=True)]
        made = propose(self.config, self.space, before)
        overrides = self.space.overrides(made.params)
        try:
            epochs = self.compose([*self.config.overrides, *overrides]).recipe.epochs
        except UserError as error:  # each value is allowed, but not these together
            self.journal.add(made, overrides, (1,))
            self._fail(len(trials), str(error))
            return True
        self.journal.add(made, overrides, find_rungs(self.config, epochs))
        return True

    def _promote(self, trials: Sequence[Trial], *, no_other_work: bool = False) -> bool:
        def may_go_on(trial: Trial) -> bool:
            return is_promoted(self.config, trial, trials, no_other_work=no_other_work)

        trial = find_promotion(trials, self.config.direction, may_go_on)
        if trial is not None:
            self.journal.promote(trial.number, trial.promotions + 1)
        return trial is not None

    def _promote_best_waiting(self, trials: Sequence[Trial]) -> bool:
        """With few trials, a rung may never be full. Then its best trial continues, so that one reaches its end."""
        if self.workers.training or any(trial.state == "complete" for trial in trials):
            return False
        return self._promote(trials, no_other_work=True)

    def _record_all(self) -> None:
        """A run that has ended early reaches several rungs at once."""
        while self._record():
            pass

    def _record(self) -> bool:
        """Records the trials whose runs have all reached their target. Returns whether the median pruner promoted one.

        A result and the decision that follows from it are two records. After a kill between them, the next start writes
        the second.
        """
        for trial in self.trials:
            if trial.state == "open" and trial.target not in trial.values and not self._trains(trial):
                self._report_if_reached(trial)
        has_promoted = False
        for trial in self.trials:
            if trial.state == "open" and trial.target in trial.values:
                has_promoted |= self._decide(trial)
        return has_promoted

    def _report_if_reached(self, trial: Trial) -> None:
        if damages := [f"{run.name}: {run.damage}" for run in trial.runs if run.damage]:
            self._fail(trial.number, damages[0])
        elif all(map(trial.has_reached_target, trial.runs)):
            value = statistics.fmean(run.best(trial.target, self.config.direction) for run in trial.runs)
            if math.isnan(value):
                self._fail(trial.number, f"the metric of {trial.runs[0].name} is not a number")
            else:
                self.journal.report(trial.number, trial.target, value)
                if self.config.pruner == "asha" and trial.target != trial.rungs[-1]:
                    self._say(trial.number)

    def _decide(self, trial: Trial) -> bool:
        """Completes a trial at its last rung. The median pruner decides once for each rung; returns its promotion."""
        value = trial.values[trial.target]
        if trial.target == trial.rungs[-1]:
            self.journal.complete(trial.number, value)
            self._say(trial.number)
        elif self.config.pruner == "median":
            if is_promoted(self.config, trial, self.trials, no_other_work=False):
                self.journal.promote(trial.number, trial.promotions + 1)
                return True
            self.journal.prune(trial.number, value)
            self._say(trial.number)
        return False

    def _close(self, ended: Ended) -> None:
        """Takes note of a job that has ended."""
        append_job(self.folder, ended)
        trial = self.trials[ended.job.trial.number]
        run = next(each for each in trial.runs if each.name == ended.job.run.name)
        reached = ended.job.trial.has_reached_target(run)
        if trial.state == "open" and (ended.error or not reached):
            error = ended.error or run.damage or f"it ended after epoch {run.epochs} of {ended.job.trial.target}"
            self._fail(trial.number, f"{run.name}: {error}")

    def _fail(self, number: int, error: str) -> None:
        """Raises RunFailed if more than sweep.max_failures trials have failed."""
        self.journal.fail(number, error)
        self._say(number)
        failed = [trial for trial in self.trials if trial.state == "failed"]
        if len(failed) > self.config.max_failures:
            raise RunFailed(
                f"{len(failed)} trials have failed (sweep.max_failures={self.config.max_failures}), the last: "
                f"{failed[-1].error}; fix the cause, then start a new sweep, or give a higher sweep.max_failures"
            )

    def _prune_the_rest(self) -> None:
        for trial in self.trials:
            if trial.is_waiting:
                self.journal.prune(trial.number, trial.values[trial.target])

    def _trains(self, trial: Trial) -> bool:
        return any(run.name in self.workers.training for run in trial.runs)

    def _is_over_budget(self) -> bool:
        minutes = self.config.budget_minutes
        return minutes is not None and time.monotonic() - self._began > minutes * 60

    def _say(self, number: int) -> None:
        print(describe(self.trials[number]), flush=True)
