"""The journal after a full disk or a power failure, and when it is damaged."""

from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from resnext.errors import UserError
from resnext.sweep.journal import Journal


def journal_of_two(path: Path) -> Journal:
    journal = Journal(path, "maximize")
    for value in (0.1, 0.2):
        trial = create_trial(
            state=TrialState.RUNNING, params={"lr": value}, distributions={"lr": FloatDistribution(0, 1)}
        )
        journal.add(trial, [f"lr={value}"], [1, 3])
    return journal


@pytest.mark.parametrize("cut", [1, 5, 200])
def test_an_incomplete_last_line_is_dropped(tmp_path: Path, cut: int):
    path = tmp_path / "optuna.journal"
    journal_of_two(path)
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    assert [trial.params for trial in Journal(path, "maximize").trials] == [{"lr": 0.1}]
    Journal(path, "maximize").report(0, 1, 0.5)
    assert Journal(path, "maximize").trials[0].intermediate_values == {1: 0.5}


def test_a_damaged_line_is_named(tmp_path: Path):
    path = tmp_path / "optuna.journal"
    journal_of_two(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:1], b"damage\n", *lines[1:]]))
    with pytest.raises(UserError, match=r"optuna.journal is damaged \(.*restore it from a backup"):
        Journal(path, "maximize")


def test_a_trial_keeps_its_overrides_and_rungs(tmp_path: Path):
    journal = journal_of_two(tmp_path / "optuna.journal")
    assert journal.trials[1].user_attrs == {"overrides": ["lr=0.2"], "rungs": [1, 3]}
