"""Which trials go on, by Optuna's pruners, and the rungs at which they decide.

ASHA (Li et al. 2018, arXiv 1810.05934) promotes a trial as soon as it is among the best 1 / `reduction_factor` of its
rung. Optuna decides once for each trial; here a trial that waits is asked about again after each new result, since a
run can go on exactly.
"""

from collections.abc import Sequence

import optuna
from optuna.pruners import BasePruner, MedianPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, TrialState, create_trial

from resnext.config.sweep import SweepConfig
from resnext.sweep.trial import Trial


def find_rungs(config: SweepConfig, epochs: int) -> tuple[int, ...]:
    """The epochs at which the pruner decides, and at last `epochs`. An asha without min_epochs has two rungs."""
    if config.pruner == "none":
        return (epochs,)
    if config.pruner == "median":
        step = config.min_epochs or max(1, epochs // 10)
        return (*range(step, epochs, step), epochs)
    factor = config.reduction_factor
    rung = config.min_epochs or max(1, epochs // factor**2)
    rungs: list[int] = []
    while rung < epochs:
        rungs.append(rung)
        rung *= factor
    return (*rungs, epochs)


def is_promoted(config: SweepConfig, trial: Trial, trials: Sequence[Trial], *, no_other_work: bool) -> bool:
    """Whether a trial that waits at its target may go on.

    `no_other_work`: no other work is left, so the best of an incomplete rung is promoted too, as Optuna does.
    """
    study = optuna.create_study(direction=config.direction)
    study.add_trials([_seen_by_pruner(each) for each in trials if each is not trial])
    study.add_trial(_seen_by_pruner(trial, asked=True))
    return not _build_pruner(config, trial, no_other_work).prune(study, study.trials[-1])


def _build_pruner(config: SweepConfig, trial: Trial, no_other_work: bool) -> BasePruner:
    if config.pruner == "median":
        return MedianPruner()
    return SuccessiveHalvingPruner(
        min_resource=trial.rungs[0],
        reduction_factor=config.reduction_factor,
        bootstrap_count=0 if no_other_work else config.reduction_factor - 1,
    )


def _seen_by_pruner(trial: Trial, *, asked: bool = False) -> FrozenTrial:
    """The trial with its results, as Optuna's SuccessiveHalvingPruner keeps them: `completed_rung_N`.

    That of the newest rung is missing if the pruner is `asked` about this trial: it adds the value itself.
    """
    done = [rung for rung in trial.rungs[:-1] if rung in trial.values and not (asked and rung == trial.target)]
    complete = trial.state == "complete"
    return create_trial(
        state=TrialState.COMPLETE if complete else TrialState.RUNNING,
        value=trial.value if complete else None,
        intermediate_values={rung: value for rung, value in trial.values.items() if not asked or rung <= trial.target},
        system_attrs={f"completed_rung_{trial.rungs.index(rung)}": trial.values[rung] for rung in done},
    )
