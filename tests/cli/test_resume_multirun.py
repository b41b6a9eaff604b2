"""`resnext resume` of the runs of a multirun."""

import dataclasses
from pathlib import Path

import pytest

from conftest import make_run, small_config
from resnext.__main__ import run_verb
from resnext.cli.resume import find_jobs
from resnext.errors import RunFailed, UserError
from resnext.training.run import Run


@pytest.fixture
def sweep(image_folder: Path) -> list[Run]:
    """`lr`, of twelve jobs, beside runs whose names begin alike."""
    config = small_config(image_folder, recipe__batch_size=8)
    names = (*(f"lr-{number}" for number in range(12)), "lr-warm-3", "lr-x", "lr-20261124-153000")
    return [make_run(dataclasses.replace(config, run=name)) for name in names][:12]


def test_the_jobs_of_a_multirun_are_its_own_in_their_order(sweep: list[Run]):
    assert [run.path for run in find_jobs("lr")] == [run.path for run in sweep]
    assert [run.path.name for run in find_jobs("runs/lr-warm")] == ["lr-warm-3"]
    assert find_jobs("lr-3") == []


def test_one_that_fails_does_not_keep_the_others_from_their_turn(sweep: list[Run], monkeypatch, capsys):
    turns: list[str] = []

    def launch(run: Run) -> None:
        turns.append(run.path.name)
        if run.path.name == "lr-1":
            raise UserError("it is being trained by somebody")
        if run.path.name == "lr-4":
            raise RunFailed("out of luck")

    monkeypatch.setattr("resnext.launch.local.launch", launch)
    assert run_verb(["resume", "lr"]) == 2
    assert turns == [run.path.name for run in sweep]
    errors = capsys.readouterr().err.splitlines()
    assert errors == [
        "resnext resume: runs/lr-1: it is being trained by somebody",
        "resnext resume: runs/lr-4: out of luck",
    ]


def test_a_multirun_that_is_done_says_so(sweep: list[Run], capsys):
    for run in sweep:
        run.update_summary(status="finished")
    assert run_verb(["resume", "lr"]) == 0
    assert capsys.readouterr().out.count("is finished") == 12
