"""best.ckpt holds the best epoch, or the training ends with an error."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnext.errors import Interrupted, RunFailed, UserError
from resnext.report.comparison import compare
from resnext.run.directory import Run
from resnext.runtime.checkpoint import read_checkpoint
from resnext.task.accuracy import EvaluationScores
from resnext.training.fit import fit
from support.small_run import small_config
from support.stopping import Stopper, make_run, with_callbacks

Scored = Callable[..., None]


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Scored:
    """Sets the top-1 accuracies of the next validations, in this order."""
    compute = EvaluationScores.compute

    def give(*accuracies: float) -> None:
        given = iter(accuracies)
        monkeypatch.setattr(EvaluationScores, "compute", lambda self: compute(self)._replace(top1=next(given)))

    return give


def build_run(digits: Path, name: str = "test", **changes: Any) -> Run:
    """Three epochs of one step each."""
    return make_run(small_config(digits, run=name, recipe__batch_size=720, recipe__epochs=3, **changes))


def undisturbed(digits: Path, scored: Scored, *accuracies: float) -> Run:
    scored(*accuracies)
    run = build_run(digits, "whole")
    fit(run)
    return run


def fail_to_save_best(patch: pytest.MonkeyPatch, *, after: int, times: int) -> None:
    """Saves best.ckpt `after` times, then fails to save it `times` times. All other files are saved."""
    replace, calls = os.replace, []

    def replace_or_fail(source: Any, target: Any) -> None:
        if Path(target).name == "best.ckpt":
            calls.append(target)
            if after < len(calls) <= after + times:
                raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    patch.setattr(os, "replace", replace_or_fail)


def differences(one: Run, other: Run) -> list:
    return [part for part in compare(one, other) if not part.same]


@pytest.mark.parametrize(
    ("accuracies", "times", "best"),
    [((0.3, 0.9, 0.4), 1, 2), ((0.3, 0.9, 0.4), 3, 2), ((0.3, 0.5, 0.9), 3, 3), ((0.3, 0.4, 0.9), 4, 3)],
)
def test_a_failed_save_of_best_ckpt_is_repeated(
    digits: Path, scored: Scored, accuracies: tuple[float, ...], times: int, best: int
):
    """The repeated save has the state of the best epoch, although the training has continued."""
    whole = undisturbed(digits, scored, *accuracies)
    run = build_run(digits)
    scored(*accuracies)
    with pytest.MonkeyPatch.context() as patch:
        fail_to_save_best(patch, after=1, times=times)
        fit(run)
    assert (run.summary["best_epoch"], run.summary["status"]) == (best, "finished")
    assert read_checkpoint(run.checkpoints / "best.ckpt").step == best
    assert differences(whole, run) == []
    assert "best.ckpt could not be saved: No space left on device" in (run.path / "log.txt").read_text()


@pytest.mark.parametrize("failures", [3, 10])
def test_a_best_ckpt_that_is_never_saved_ends_the_training(digits: Path, scored: Scored, failures: int):
    """After checkpoint.max_failures saves, or at the end. No last.ckpt refers to it, so the resumed run saves it."""
    whole = undisturbed(digits, scored, 0.3, 0.9, 0.4)
    run = build_run(digits, checkpoint__max_failures=failures)
    scored(0.3, 0.9, 0.4)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RunFailed, match=r"could not be saved, \d+ times"):
        fail_to_save_best(patch, after=1, times=99)
        fit(run)
    assert run.summary["status"] == "failed"
    assert "best.ckpt must be saved first" in (run.path / "log.txt").read_text()
    last = read_checkpoint(run.checkpoints / "last.ckpt")
    assert (last.step, last.validated) == (2, False)
    scored(0.9, 0.4)
    fit(run)
    assert differences(whole, run) == []


@pytest.mark.parametrize("lost", ["older", "missing"])
def test_a_lost_best_ckpt_ends_with_an_error(digits: Path, scored: Scored, lost: str):
    """All steps are done. When the file is restored, the run becomes finished."""
    run = build_run(digits)
    scored(0.3, 0.9)
    best, older = run.checkpoints / "best.ckpt", Path("older.ckpt")
    with with_callbacks(Stopper("on_validation_end", 1)), pytest.raises(Interrupted):
        fit(run)
    shutil.copy(best, older)
    with with_callbacks(Stopper("on_validation_end", 2)), pytest.raises(Interrupted):
        fit(run)
    best.rename("kept.ckpt")
    if lost == "older":
        older.rename(best)
    scored(0.2)
    of_another = {"older": r"epoch 1 \(30.00 %\)", "missing": r"epoch 3 \(20.00 %\)"}[lost]
    for _ in range(2):
        with pytest.raises(UserError, match=rf"best.ckpt is {of_another}, and the best is epoch 2 \(90.00 %\)"):
            fit(run)
        assert run.summary["status"] == "failed"
    assert "best validation so far is epoch 2 (90.00 %)" in (run.path / "log.txt").read_text()
    assert read_checkpoint(run.checkpoints / "last.ckpt").step == 3
    Path("kept.ckpt").rename(best)
    fit(run)
    assert run.summary["status"] == "finished"


def test_a_lost_best_ckpt_is_not_an_error_after_a_better_epoch(digits: Path, scored: Scored):
    run = build_run(digits)
    scored(0.3, 0.9)
    with with_callbacks(Stopper("on_validation_end", 2)), pytest.raises(Interrupted):
        fit(run)
    (run.checkpoints / "best.ckpt").unlink()
    scored(0.95)
    fit(run)
    assert read_checkpoint(run.checkpoints / "best.ckpt").step == 3
