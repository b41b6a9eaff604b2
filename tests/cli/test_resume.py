"""`resnext resume NAME` resumes the runs of a multirun."""

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
    """The multirun `lr` with twelve jobs, beside other runs whose names also begin with `lr`."""
    config = small_config(image_folder, recipe__batch_size=8)
    names = (*(f"lr-{number}" for number in range(12)), "lr-warm-3", "lr-x", "lr-20261124-153000", "lr-01", "a=b-0")
    return [make_run(dataclasses.replace(config, run=name)) for name in names][:12]


def test_find_jobs_returns_only_the_jobs_of_the_multirun_in_order(sweep: list[Run]):
    assert [run.path for run in find_jobs("lr")] == [run.path for run in sweep]
    assert [run.path.name for run in find_jobs("runs/lr-warm")] == ["lr-warm-3"]
    assert find_jobs("lr-3") == []
    assert [run.path.name for run in find_jobs("a=b")] == ["a=b-0"]


@pytest.mark.parametrize("name", ["lr", "lr-20261124", "lr-20261125"])
def test_other_run_names_are_not_read_as_a_multirun(image_folder: Path, name: str, capsys):
    """A job number has no leading zero, and the time in an automatic name is not a job number."""
    config = small_config(image_folder, recipe__batch_size=8)
    names = ("lr-01", "lr-20261124-153000", "lr-20261125-000001")
    for each in names:
        make_run(dataclasses.replace(config, run=each))
    assert find_jobs(name) == []
    assert run_verb(["resume", name]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"resnext resume: {name} is not a run directory: the latest runs are ")
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
    assert run_verb(["resume", f"data.root={root}"]) == 0  # an override, although the multirun `images` exists
    assert resumed[-1].path.name == "images-0"
    assert run_verb(["resume", "runs/seed=1", "logger.every_steps=3"]) == 0
    assert (resumed[-1].path.name, resumed[-1].config.logger.every_steps) == ("seed=1", 3)
    assert run_verb(["resume", "logger.every_step=3"]) == 2
    assert "logger.every_step is not a configuration key" in capsys.readouterr().err


def test_after_a_job_fails_the_others_are_resumed(sweep: list[Run], monkeypatch, capsys):
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


def test_a_finished_multirun_is_reported(sweep: list[Run], capsys):
    for run in sweep:
        run.update_summary(status="finished")
    assert run_verb(["resume", "lr"]) == 0
    assert capsys.readouterr().out.count("is finished") == 12
