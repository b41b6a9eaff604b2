"""The controller, with runs whose results are a formula: what it trains, records and proposes, also after kills."""

import csv
import dataclasses
import statistics
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from resnext.errors import RunFailed, UserError
from resnext.sweep.table import rank
from sweep.formula_runs import FormulaRuns, Killed, accuracy

Make = Callable[..., FormulaRuns]


def test_a_grid_trains_each_combination_once(sweep: Make):
    runs = sweep(seeds=(0, 1, 5))
    trials = runs.start()
    assert sorted(trial.params["lr"] for trial in trials) == ["0.01", "0.1", "1"]
    assert {trial.state for trial in trials} == {"complete"}
    assert sorted(name for name, *_ in runs.jobs) == sorted(
        {f"{runs.folder.name}-{n}-seed{s}" for n in range(3) for s in (0, 1, 5)}
    )
    for trial in trials:
        values = [accuracy(trial.params, seed, 9) for seed in (0, 1, 5)]
        assert trial.value == statistics.fmean(values)


def test_trials_csv_has_mean_spread_and_count(sweep: Make):
    runs = sweep(seeds=(0, 1, 5))
    runs.start()
    rows = list(csv.DictReader((runs.folder / "trials.csv").read_text().splitlines()))
    best = max(rows, key=lambda row: float(row["value"]))
    assert (best["lr"], best["n"], best["epochs"]) == ("0.1", "3", "9")
    assert float(best["std"]) == pytest.approx(0.001 * statistics.stdev([0, 1, 5]))


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe", "gp"])
@pytest.mark.parametrize("pruner", ["none", "asha", "median"])
def test_a_sweep_killed_at_any_moment_proposes_and_trains_the_same(sweep: Make, sampler: str, pruner: str):
    """With one place. A run that was killed goes on, so no epoch is trained twice and none is missing."""
    space = "0.01,0.03,0.1,0.3,1" if sampler == "grid" else "tag(log,interval(0.001,10))"
    settings = {"space": space, "sampler": sampler, "trials": 14 if sampler != "grid" else None, "pruner": pruner}
    whole = sweep(**settings)
    expected = whole.start()
    killed = sweep(**settings)
    kills = 0
    while True:
        try:
            found = killed.start(killed_after=(5 * kills) % 13)
            break
        except Killed:
            kills += 1
            assert kills < 1000, "the sweep makes no progress"
    assert kills > 5
    own, other = killed.folder.name, whole.folder.name
    assert [(trial.params, trial.state, trial.values) for trial in found] == [
        (trial.params, trial.state, trial.values) for trial in expected
    ]
    assert killed.jobs == [(name.replace(other, own), *epochs) for name, *epochs in whole.jobs]


def test_asha_finds_the_best_of_a_grid_with_a_third_of_its_epochs(sweep: Make):
    values = ",".join(f"{10 ** (number / 4 - 3):.4g}" for number in range(18))
    whole, asha = (sweep(values, epochs=27, pruner=pruner, parallel=2) for pruner in ("none", "asha"))
    best = [max(runs.start(), key=lambda trial: (trial.state == "complete", trial.value)) for runs in (whole, asha)]
    assert best[0].params == best[1].params
    assert whole.trained_epochs == 18 * 27
    assert asha.trained_epochs <= whole.trained_epochs / 3
    states = [trial.state for trial in asha.controller.trials]
    assert states.count("complete") >= 1
    assert states.count("complete") + states.count("pruned") == 18


def test_asha_promotes_a_trial_later_and_its_run_goes_on(sweep: Make):
    """Hyperband's example: of the first three, one goes on; with six, the second may go on as well."""
    runs = sweep("0.1,0.11,0.01,0.001,1,10", epochs=3, pruner="asha", min_epochs=1)
    runs.start()
    assert sorted(to for _, since, to in runs.jobs if since == 0) == [1] * 6
    resumed = [(since, to) for _, since, to in runs.jobs if since]
    assert resumed == [(1, 3)] * 2


def test_asha_trains_one_trial_to_its_end_even_if_no_rung_is_full(sweep: Make):
    runs = sweep("0.1,1", epochs=9, pruner="asha", min_epochs=1)
    trials = runs.start()
    assert {trial.params["lr"]: trial.state for trial in trials} == {"0.1": "complete", "1": "pruned"}


def test_the_median_pruner_stops_what_is_below_the_median(sweep: Make):
    """Optuna's default: the first five trials are never pruned."""
    runs = sweep(
        "range(1,9)", epochs=4, curve=lambda params, _seed, epoch: params["lr"] % 5 + epoch / 100, pruner="median"
    )
    trials = runs.start()
    for at, trial in enumerate(trials):
        done = [each.values for each in trials[:at] if each.state == "complete"]
        medians = (
            {rung: statistics.median(each[rung] for each in done) for rung in trial.rungs[:-1]}
            if len(done) >= 5
            else {}
        )
        below = [rung for rung in medians if trial.params["lr"] % 5 + rung / 100 < medians[rung]]
        assert (trial.state, max(trial.values)) == (("pruned", below[0]) if below else ("complete", 4))
    assert "pruned" in {trial.state for trial in trials}


def test_a_failed_trial_is_recorded_and_does_not_stop_the_others(sweep: Make):
    runs = sweep()
    runs.fails[f"{runs.folder.name}-1"] = "the loss is not finite"
    trials = runs.start()
    assert [trial.state for trial in trials] == ["complete", "failed", "complete"]
    assert trials[1].error == f"{runs.folder.name}-1: the loss is not finite"
    assert runs.start() == trials  # it is not trained again


def test_too_many_failures_stop_the_sweep(sweep: Make):
    runs = sweep(max_failures=1)
    runs.fails |= dict.fromkeys((f"{runs.folder.name}-{number}" for number in range(3)), "no such data")
    with pytest.raises(RunFailed, match=r"2 trials have failed \(sweep.max_failures=1\), the last: .*no such data"):
        runs.start()


def test_a_metric_that_is_never_a_number_fails_the_trial(sweep: Make):
    runs = sweep(curve=lambda params, _seed, _epoch: float("nan") if params["lr"] == "1" else 0.5)
    assert {trial.params["lr"]: trial.state for trial in runs.start()} == {
        "0.01": "complete",
        "0.1": "complete",
        "1": "failed",
    }


def test_two_places_are_never_empty_while_a_trial_is_left(sweep: Make):
    runs = sweep("range(1,8)", parallel=2, curve=lambda *_: 0.5)
    trials = runs.start()
    assert len(trials) == len({trial.number for trial in trials}) == 7
    assert len(runs.jobs) == 7


def test_a_run_that_stops_early_is_promoted_without_training(sweep: Make):
    """Its trial is decided at each rung with its last value, and it is complete if it reaches the last rung."""
    for pruner in ("asha", "median", "none"):
        runs = sweep("0.1,0.11,0.01,0.001,1,10", epochs=9, pruner=pruner, min_epochs=1)
        runs.ends_early = {f"{runs.folder.name}-{number}": 2 for number in range(6)}
        assert {trial.state for trial in runs.start()} <= {"complete", "pruned"}
        assert max(to for _, _, to in runs.jobs) <= 9
        assert "complete" in {trial.state for trial in runs.start()}


def test_a_lower_metric_can_be_better(sweep: Make):
    runs = sweep("0.01,0.1,1", metric="val/loss", direction="minimize", curve=lambda *given: 1 - accuracy(*given))
    assert rank(runs.start(), "minimize")[0].params == {"lr": "0.1"}


def test_the_best_trial_may_be_a_shorter_one(sweep: Make):
    long, short = sweep("0.01,0.001", epochs=20).start(), sweep("0.1,1", epochs=9).start()
    assert rank([*long, *short], "maximize")[0].params == {"lr": "0.1"}


def test_a_run_of_another_command_is_not_credited_to_a_trial(sweep: Make, monkeypatch: pytest.MonkeyPatch):
    """For example after the journal was restored from a backup."""
    runs = sweep("0.01,0.1")
    find = runs.find
    other = {"command": ("resnext", "train", "lr=0.5")}
    monkeypatch.setattr(
        runs,
        "find",
        lambda *given: tuple(dataclasses.replace(run, **other) if run.curve else run for run in find(*given)),
    )
    trials = runs.start()
    assert {trial.state for trial in trials} == {"failed"}
    assert "was made with other values: move it away" in trials[0].error


def test_values_that_are_not_allowed_together_are_a_failed_trial(sweep: Make, monkeypatch: pytest.MonkeyPatch):
    runs = sweep("0.01,0.1")

    def refuse(overrides: list[str]) -> object:
        if "lr=0.1" in overrides:
            raise UserError("min_lr is above lr")
        return SimpleNamespace(recipe=SimpleNamespace(epochs=runs.epochs))

    monkeypatch.setattr(runs, "compose", refuse)
    assert {trial.params["lr"]: trial.state for trial in runs.start()} == {"0.01": "complete", "0.1": "failed"}


def test_the_budget_stops_the_sweep_between_two_ends(sweep: Make):
    runs = sweep("0.01,0.1,1", budget_minutes=1e-9)
    assert runs.start() == []
    assert runs.jobs == []
