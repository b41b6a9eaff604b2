"""What a free place does next. Pure functions of the trials and of the runs that train now."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from resnext.sweep.trial import Trial, TrialRun


@dataclass(frozen=True)
class Job:
    """Train a run up to an epoch. The last rung has no pause."""

    trial: Trial
    run: TrialRun

    @property
    def pause_after_epochs(self) -> int | None:
        return self.trial.target if self.trial.target != self.trial.rungs[-1] else None


def find_job(trials: Sequence[Trial], training: Collection[str]) -> Job | None:
    """The first run that has not reached its trial's target and does not train now."""
    for trial in trials:
        if trial.state == "open":
            for run in trial.runs:
                if run.name not in training and not trial.has_reached_target(run):
                    return Job(trial, run)
    return None


def find_promotion(trials: Sequence[Trial], direction: str, is_promoted: Callable[[Trial], bool]) -> Trial | None:
    """The trial that goes on: of the highest rung, and there the best."""
    sign = -1 if direction == "maximize" else 1

    def rank(trial: Trial) -> tuple[float, ...]:
        value = trial.values[trial.target]
        return -trial.promotions, math.isnan(value), sign * value, trial.number

    return next((trial for trial in sorted(filter(_waits, trials), key=rank) if is_promoted(trial)), None)


def _waits(trial: Trial) -> bool:
    return trial.is_waiting
