"""read_trials: the trials of a sweep, from its journal and its run directories."""

from collections.abc import Callable

from optuna.trial import FrozenTrial, TrialState

from resnext.config.sweep import SweepConfig
from resnext.sweep.journal import ERROR, OVERRIDES, PROMOTIONS, RUNGS, STATES, Journal
from resnext.sweep.trial import State, Trial, TrialRun, read_runs

FindRuns = Callable[[str, int, SweepConfig], tuple[TrialRun, ...]]
NAMES: dict[TrialState, State] = {state: name for name, state in STATES.items()}


def read_trials(name: str, config: SweepConfig, journal: Journal, find_runs: FindRuns = read_runs) -> list[Trial]:
    return [read_trial(recorded, find_runs(name, recorded.number, config)) for recorded in journal.trials]


def read_trial(recorded: FrozenTrial, runs: tuple[TrialRun, ...]) -> Trial:
    facts = recorded.user_attrs
    return Trial(
        number=recorded.number,
        params=recorded.params,
        overrides=tuple(facts[OVERRIDES]),
        rungs=tuple(facts[RUNGS]),
        runs=tuple(run.checked(facts[OVERRIDES]) for run in runs),
        values=dict(recorded.intermediate_values),
        promotions=facts.get(PROMOTIONS, 0),
        state=NAMES[recorded.state],
        error=facts.get(ERROR, ""),
    )
