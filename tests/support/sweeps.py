"""Sweeps that nobody trained: trials with the curves that a test gives them."""

import statistics
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState, create_trial

from resnext.config.sweep import make_sweep
from resnext.sweep.result import Result
from resnext.sweep.trial import State, Trial, TrialRun, run_name

STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


def made_trial(
    number: int,
    params: dict[str, Any],
    curves: Sequence[Sequence[float]],
    *,
    state: State = "complete",
    rungs: tuple[int, ...] = (3,),
    error: str = "",
) -> Trial:
    """`curves`: the values after epoch 1, 2, … of each seed."""
    seeds = range(len(curves)) if len(curves) > 1 else [None]
    runs = tuple(
        TrialRun(run_name("made", number, seed), seed, dict(enumerate(curve, 1)))
        for seed, curve in zip(seeds, curves, strict=True)
    )
    reached = min(len(curve) for curve in curves)
    values = {reached: statistics.fmean(max(curve) for curve in curves)} if reached else {}
    overrides = tuple(f"{key}={value}" for key, value in params.items())
    return Trial(number, params, overrides, rungs, runs, values, state=state, error=error)


def made_result(made: Sequence[Trial], distributions: dict[str, BaseDistribution], **settings: Any) -> Result:
    """`distributions`: of the keys of the trials. `settings`: those of sweep.yaml."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    for trial in made:
        state = STATES.get(trial.state, TrialState.RUNNING)
        study.add_trial(
            create_trial(
                state=state,
                value=trial.value if state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
                params=trial.params,
                distributions=distributions,
            )
        )
    searched = {} if "points" in settings else {"space": dict.fromkeys(distributions, "1,2")}
    return Result("made", make_sweep({"metric": "val/top1"} | searched | settings), made, study)
