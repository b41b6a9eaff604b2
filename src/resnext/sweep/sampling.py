"""propose: the next trial, by one of Optuna's samplers, as a pure function of the trials so far.

Each proposal uses a new sampler, seeded by the trial's number. So a sweep that was killed proposes the same trials as
one that was not.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler, GPSampler, GridSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from resnext.config.sweep import SweepConfig
from resnext.sweep.journal import STATES
from resnext.sweep.space import SearchSpace
from resnext.sweep.trial import Trial


def propose(config: SweepConfig, space: SearchSpace, before: Sequence[FrozenTrial]) -> FrozenTrial:
    """A trial with a value of each key. `before`: all earlier trials, from `seen_by_sampler`."""
    study = optuna.create_study(direction=config.direction, sampler=_build_sampler(config, space, len(before)))
    study.add_trials(before)
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        study.ask(space.distributions)
    made = study.trials[-1]
    return create_trial(
        state=TrialState.RUNNING,
        params=made.params,
        distributions=made.distributions,
        system_attrs=made.system_attrs,
    )


def seen_by_sampler(trial: Trial, recorded: FrozenTrial) -> FrozenTrial:
    """A trial that waits for a promotion looks pruned: a sampler learns nothing from a trial that is still running."""
    state = TrialState.PRUNED if trial.is_waiting else STATES[trial.state]
    finished: dict[str, Any] = {"value": trial.value} if state in (TrialState.COMPLETE, TrialState.PRUNED) else {}
    return create_trial(
        state=state,
        params=recorded.params,
        distributions=recorded.distributions,
        system_attrs=recorded.system_attrs,
        intermediate_values=trial.values,
        **finished,
    )


def _build_sampler(config: SweepConfig, space: SearchSpace, number: int) -> BaseSampler:
    own_seed = (config.sampler_seed * 1_000_003 + number) % 2**32
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
        match config.sampler:
            case "grid":
                grid = {key: values or [] for key, values in space.grid.items()}
                return GridSampler(grid, seed=config.sampler_seed % 2**32)
            case "random":
                return RandomSampler(seed=own_seed)
            case "tpe":
                return TPESampler(seed=own_seed)
            case "gp":
                return GPSampler(seed=own_seed)
