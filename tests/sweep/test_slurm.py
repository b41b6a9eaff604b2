"""Runs of a sweep as SLURM jobs, with the answers of squeue and sbatch given by the test."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from resnext.config.sweep import SweepConfig
from resnext.errors import RunFailed
from resnext.run.directory import Run
from resnext.sweep import slurm
from resnext.sweep.command import job_command
from resnext.sweep.schedule import Job
from resnext.sweep.slurm import SlurmWorkers
from resnext.sweep.trial import Trial, TrialRun
from support.small_run import make_run, small_config

RUN = TrialRun("lr-0", None, {})
JOB = Job(Trial(0, {}, (), (1, 3), (RUN,), {}), RUN)


@pytest.fixture
def submitted(image_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The runs that were submitted. Each submission makes the run and job 7."""
    names: list[str] = []

    def submit(config: SweepConfig, _folder: Path, job: Job, _lock: int) -> SimpleNamespace:
        names.append(job_command(config, job)[-1])
        make_submitted_run(image_folder)
        return SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr(slurm, "start_command", submit)
    clock = {"time": time.time, "monotonic": time.monotonic, "sleep": lambda _: None}
    monkeypatch.setattr(slurm, "time", SimpleNamespace(**clock))
    monkeypatch.setattr(slurm, "SECONDS_UNTIL_FAILED", 0.0)
    monkeypatch.setattr(slurm, "shutil", SimpleNamespace(which=lambda name: f"/usr/bin/{name}"))
    (tmp_path / "sweep/output").mkdir(parents=True)
    return names


def make_submitted_run(images: Path, pause: int = 1) -> Run:
    config = small_config(images, recipe__batch_size=8)
    trainer = dataclasses.replace(config.trainer, pause_after_epochs=pause)
    run = make_run(dataclasses.replace(config, run="lr-0", trainer=trainer))
    (run.path / "jobs.txt").write_text("7 submitted\n")
    return run


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., SlurmWorkers]:
    def make(*answers: dict[str, str] | None) -> SlurmWorkers:
        given = iter(answers)
        monkeypatch.setattr(slurm, "list_own_states", lambda: next(given))
        config = SweepConfig(space={"lr": "1,2"}, launcher="slurm")
        return SlurmWorkers(config, tmp_path / "sweep", 0, waits=False)

    return make


def test_a_run_without_a_job_is_submitted(submitted: list[str], workers: Callable):
    made = workers({}, {"7": "PENDING"}, {})
    made.start(JOB)
    assert (submitted, made.training) == (['run="lr-0"'], {"lr-0"})
    assert made.wait(0) == []
    (ended,) = made.wait(0)
    assert ended.error == "job 7 has left the queue, and the run is new: see runs/lr-0/slurm-7.out"


def test_a_job_of_an_earlier_start_is_taken_over(submitted: list[str], workers: Callable, image_folder: Path):
    make_submitted_run(image_folder)
    made = workers({"7": "RUNNING"})
    made.start(JOB)
    assert (submitted, made.training) == ([], {"lr-0"})


def test_a_job_that_left_the_queue_meanwhile_has_failed(submitted: list[str], workers: Callable, image_folder: Path):
    """It was cancelled, or crashed too often. It is not submitted again."""
    make_submitted_run(image_folder)
    made = workers({"8": "RUNNING"})
    made.start(JOB)
    assert made.training == {"lr-0"}  # until its end is taken note of
    (ended,) = made.wait(0)
    assert ended.error.startswith("job 7 has left the queue, and the run is new")
    assert (submitted, made.training) == ([], set())


def test_the_job_of_an_earlier_rung_is_waited_for(submitted: list[str], workers: Callable, image_folder: Path):
    make_submitted_run(image_folder)
    promoted = Job(dataclasses.replace(JOB.trial, promotions=1, values={1: 0.5}), RUN)
    made = workers({"7": "COMPLETING"}, {}, {})
    made.start(promoted)
    assert (submitted, made.training, made.wait(0)) == ([], {"lr-0"}, [])
    assert made.training == set()  # the run is offered again
    made.start(promoted)
    assert submitted == ['run="lr-0"']


def test_without_an_answer_of_squeue_nothing_is_submitted(submitted: list[str], workers: Callable):
    with pytest.raises(RunFailed, match="squeue does not answer"):
        workers(*[None] * 20).start(JOB)
    assert submitted == []


def test_a_refused_submission_is_a_failure_with_its_line(
    submitted: list[str], workers: Callable, monkeypatch, tmp_path: Path
):
    def refuse(*_arguments: object) -> SimpleNamespace:
        (tmp_path / "sweep/output/lr-0-to-1.txt").write_text("resnext slurm: give slurm.gpus_per_node=8\n")
        return SimpleNamespace(wait=lambda: 2)

    monkeypatch.setattr(slurm, "start_command", refuse)
    made = workers({})
    made.start(JOB)
    assert made.training == {"lr-0"}
    assert [ended.error for ended in made.wait(0)] == ["give slurm.gpus_per_node=8"]
