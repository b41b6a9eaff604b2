"""`resnext report RUN --wandb`: the pictures of an evaluation in the W&B run of the training."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from resnext.__main__ import run_verb
from resnext.errors import RunFailed, UserError
from resnext.loggers.wandb_folders import _read_steps
from resnext.report import sent_pictures
from resnext.report.sent_pictures import send_evaluation
from resnext.run.directory import Run
from support.small_run import read_metrics
from support.wandb_files import STEP, read_history, read_pictures

pytestmark = pytest.mark.usefixtures("wandb_stopped")


@pytest.fixture
def run(reported: Run) -> Run:
    """A copy of the evaluated run that logs to W&B, offline."""
    shutil.copytree(reported.path, "runs/a")
    run = Run(Path("runs/a"))
    return run.add_start(replace(run.config, logger=replace(run.config.logger, mode="offline")))


def test_the_newest_folder_has_the_whole_run_with_the_confusions_and_the_worst_mistakes(
    run: Run, capsys: pytest.CaptureFixture[str]
):
    assert run_verb(["report", "runs/a", "--wandb", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == "runs/a/report.html"
    folder = (run.path / "wandb/latest-run").resolve()
    pictures = read_pictures(folder)
    sent = ["report/confusion_table", "report/first_batch", "report/validation", "report/worst_mistakes"]
    best = json.loads((run.path / "summary.json").read_text())["best_epoch"] * 3  # steps of an epoch
    assert [(name, step) for name, step, _ in pictures] == list(zip(sent, (best, 0, 0, best), strict=True))
    found = {name: value for name, _, value in pictures}

    rows = json.loads((folder / "files" / found["report/confusion_table"]["path"]).read_text())["data"]
    names = list(dict.fromkeys(row[0] for row in rows))
    counts = np.array([row[2] for row in rows]).reshape(len(names), len(names))
    arrays = np.load(run.path / "evaluations/best-val.npz")
    predicted, confidences = arrays["ema_classes"][:, 0], arrays["ema_probabilities"][:, 0]
    assert np.array_equal(counts, confusion_matrix(arrays["targets"], predicted, labels=range(len(names))))

    mistakes = found["report/worst_mistakes"]
    wrong = np.flatnonzero(predicted != arrays["targets"])
    worst = wrong[confidences[wrong].argmax()]
    true, taken_for = (names[each[worst]] for each in (arrays["targets"], predicted))
    assert mistakes["captions"][0] == f"{true} taken for {taken_for}, {100 * confidences[worst]:.0f} %"
    assert mistakes["count"] == min(24, len(wrong))

    assert _read_steps(folder) is None  # so no later start removes the folder
    assert {int(row["step"]) for row in read_metrics(run)} <= {row[STEP] for row in read_history(folder)}


def test_large_sets_show_the_most_confused_classes_and_pictures_can_be_left_out(
    run: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sent_pictures, "CLASSES", 3)
    monkeypatch.setattr("resnext.report.mistakes.MATRIX", 2)
    send_evaluation(run.add_start(replace(run.config, logger=replace(run.config.logger, pictures=False))))
    folder = (run.path / "wandb/latest-run").resolve()
    found = {name: value for name, _, value in read_pictures(folder)}
    assert set(found) == {"report/confusion_table"}
    assert len(json.loads((folder / "files" / found["report/confusion_table"]["path"]).read_text())["data"]) == 4


def fail(*_arguments: object) -> None:
    raise RuntimeError("no chart")


def test_what_cannot_be_sent_is_one_line(run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    assert run_verb(["report", "runs/a", "runs/a", "--output", "x.html", "--wandb"]) == 2
    assert capsys.readouterr().err == "resnext report: --wandb is for one run: repeat the command with each run\n"
    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"^runs/a does not log to W&B"):
        patch.setenv("WANDB_MODE", "disabled")
        send_evaluation(run)
    with monkeypatch.context() as patch, pytest.raises(RunFailed, match=r"^W&B: RuntimeError: no chart$"):
        patch.setattr(sent_pictures, "build_wandb_logger", fail)
        send_evaluation(run)
    shutil.rmtree(run.path / "evaluations")
    with pytest.raises(UserError, match=r"^the run has no evaluation: `resnext evaluate runs/a` makes one"):
        send_evaluation(run)
    assert not (run.path / "wandb").exists()
