"""The report that a training writes at its end: when, and that it never changes how the training ends."""

import os
import signal
from pathlib import Path

import pytest

from resnext.__main__ import run_verb
from resnext.errors import Interrupted, RunFailed
from resnext.report.page import Page
from resnext.report.report_file import reporting
from resnext.run.directory import Run
from support.pages import PageReader
from support.small_run import make_run, small_config

TRAIN = ["experiment=resnext_digits", "run=a", "recipe.max_steps=2", "trainer.precision=32-true", "logger=csv"]


@pytest.fixture
def run(image_folder: Path) -> Run:
    return make_run(small_config(image_folder, recipe__batch_size=6))


def test_a_training_writes_its_report(
    digits: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(digits.parent / "cache"))  # the index of older files is cached
    assert run_verb(["train", *TRAIN, f"data.root={digits}"]) == 0
    assert "report    runs/a/report.html\n" in capsys.readouterr().out
    read = PageReader(Path("runs/a/report.html").read_text())
    assert "2 of 2steps" in read.text["status"]
    changed = {row[0]: row[2] for row in read.tables["differences-from-the-experiment"][0][1:]}
    assert changed["recipe.max_steps"] == "2"
    assert "could not be made" not in Path("runs/a/report.html").read_text()
    assert sorted(path.name for path in Path().iterdir()) == ["runs"]


@pytest.mark.parametrize(("error", "is_written"), [(RunFailed("lost"), True), (Interrupted(15), False)])
def test_a_failed_training_is_reported_and_an_interrupted_one_stops_at_once(
    run: Run, error: BaseException, is_written: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("resnext.report.report_file.build_page", lambda runs: Page("page", {}))
    with pytest.raises(type(error)), reporting(run):
        raise error
    assert (run.path / "report.html").exists() == is_written


def test_a_report_that_cannot_be_written_is_one_warning(run: Run, capsys: pytest.CaptureFixture[str]):
    (run.path / "report.html").mkdir()
    with reporting(run):
        pass
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("warning: runs/test/report.html cannot be written: ")] == lines
    assert len(lines) == 1


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_leaves_the_report_out_and_the_training_ends_as_it_did(
    run: Run, signum: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("resnext.report.report_file.build_page", lambda runs: os.kill(os.getpid(), signum))
    with reporting(run):
        pass
    assert capsys.readouterr().out == "report    left out; `resnext report runs/test` writes it\n"
    assert not (run.path / "report.html").exists()


def test_a_log_that_cannot_be_opened_is_one_line(run: Run, capsys: pytest.CaptureFixture[str]):
    (run.path / "log.txt").mkdir()
    with reporting(run):
        pass
    out = capsys.readouterr().out
    assert out.startswith("warning: no report is written: ")
    assert out.count("\n") == 1


def test_a_run_that_was_finished_before_is_not_reported_again(run: Run):
    run.update_summary(status="finished")
    with reporting(run):
        pass
    assert not (run.path / "report.html").exists()


def test_a_training_without_matplotlib_or_without_a_report_ends_as_before(
    run: Run, image_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("resnext.report.report_file.is_available", lambda: False)
    with reporting(run):
        pass
    assert capsys.readouterr().out.startswith("report    needs matplotlib, which is not installed")
    silent = make_run(small_config(image_folder, run="silent", recipe__batch_size=6, logger__report=False))
    with reporting(silent):
        pass
    assert capsys.readouterr().out == ""
    assert not (silent.path / "report.html").exists()
