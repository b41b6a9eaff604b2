"""`resnext resume` of the runs of a multirun."""

import dataclasses
from pathlib import Path

import pytest

from resnext.__main__ import run_verb
from resnext.cli.resume import find_jobs
from resnext.errors import RunFailed, UserError
from resnext.run.directory import Run
from support.small_run import make_run, small_config


@pytest.fixture
def sweep(image_folder: Path) -> list[Run]:
    """`lr`, of twelve jobs, beside runs whose names begin alike."""
    config = small_config(image_folder, recipe__batch_size=8)
    names = (*(f"lr-{number}" for number in range(12)), "lr-warm-3", "lr-x", "lr-20261124-153000", "lr-01", "a=b-0")
    return [make_run(dataclasses.replace(config, run=name)) for name in names][:12]


def test_the_jobs_of_a_multirun_are_its_own_in_their_order(sweep: list[Run]):
    assert [run.path for run in find_jobs("lr")] == [run.path for run in sweep]
    assert [run.path.name for run in find_jobs("runs/lr-warm")] == ["lr-warm-3"]
    assert find_jobs("lr-3") == []
    assert [run.path.name for run in find_jobs("a=b")] == ["a=b-0"]


@pytest.mark.parametrize("name", ["lr", "lr-20261124", "lr-20261125"])
def test_no_name_of_a_run_is_invented(image_folder: Path, name: str, capsys):
    """Neither from 01, nor from the time in a name that was not given, also before 10 o'clock."""
    config = small_config(image_folder, recipe__batch_size=8)
    names = ("lr-01", "lr-20261124-153000", "lr-20261125-000001")
    for each in names:
        make_run(dataclasses.replace(config, run=each))
    assert find_jobs(name) == []
    assert run_verb(["resume", name]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"resnext resume: {name} is not a run directory; give one as RUN=runs/NAME: there are ")
    assert {path.name for path in Path("runs").iterdir()} == set(names)


def test_a_run_whose_name_has_an_equals_sign_is_not_an_override(image_folder: Path, monkeypatch, capsys):
    resumed: list[Run] = []
    monkeypatch.setattr("resnext.launch.local.launch", lambda run, _parts: resumed.append(run))
    config = small_config(image_folder, recipe__batch_size=8)
    for each in ("other", "seed=1", "a=b-0"):
        make_run(dataclasses.replace(config, run=each))
    for given in ("runs/seed=1", "seed=1", "a=b"):
        assert run_verb(["resume", given]) == 0
    assert [run.path.name for run in resumed] == ["seed=1", "seed=1", "a=b-0"]
    root = make_run(dataclasses.replace(config, run="images-0")).config.data.root
    assert run_verb(["resume", f"data.root={root}"]) == 0  # neither the multirun `images`, nor a run
    assert resumed[-1].path.name == "images-0"
    assert run_verb(["resume", "runs/seed=1", "logger.every_steps=3"]) == 0
    assert (resumed[-1].path.name, resumed[-1].config.logger.every_steps) == ("seed=1", 3)
    assert run_verb(["resume", "logger.every_step=3"]) == 2
    assert "logger.every_step is not a configuration key" in capsys.readouterr().err


def test_one_that_fails_does_not_keep_the_others_from_their_turn(sweep: list[Run], monkeypatch, capsys):
    turns: list[str] = []

    def launch(run: Run, _parts: object) -> None:
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
