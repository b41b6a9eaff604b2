"""notify.command runs once at the end of a run, with its facts, and never ends or blocks it."""

import logging
import math
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from lightning.pytorch.callbacks import Callback

from resnext.data.worker_watchdog import LoaderHung
from resnext.errors import Interrupted, RunFailed
from resnext.run.directory import Run
from resnext.task.classification import ClassificationTask
from resnext.training import notification as module
from resnext.training.fit import fit
from resnext.training.notification import run_command
from support.small_run import make_run, read_metrics, small_config
from support.stopping import Stopper, with_callbacks

NOTE = "env | grep ^RESNEXT_ >> facts.txt; echo told"


class Poison(Callback):
    """Makes the images of the second step not finite."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 1:
            batch[0].fill_(math.nan)


def make(digits: Path, **changes: object) -> Run:
    return make_run(
        small_config(digits, recipe__batch_size=359, recipe__max_steps=4, notify={"command": NOTE}, **changes)
    )


def read_facts() -> dict[str, str]:
    """Fails if the command ran twice."""
    lines = Path("facts.txt").read_text().splitlines()
    facts = dict(line.removeprefix("RESNEXT_").split("=", 1) for line in lines)
    assert len(facts) == len(lines)
    return facts


def test_the_end_of_a_run_is_told_with_its_facts_and_an_interruption_is_not(digits: Path):
    run = make(digits, run="my run; touch x")
    with with_callbacks(Stopper("on_train_batch_start", 1)), pytest.raises(Interrupted):
        fit(run)
    assert not Path("facts.txt").exists()
    fit(run)
    facts, best = read_facts(), float(read_metrics(run)[-1]["val/top1"])
    assert {name: facts[name] for name in ("RUN", "NAME", "STATUS", "EVENT", "STEP", "STEPS", "BEST_EPOCH")} == {
        "RUN": str(run.path.absolute()),
        "NAME": "my run; touch x",
        "STATUS": "finished",
        "EVENT": "finished",
        "STEP": "4",
        "STEPS": "4",
        "BEST_EPOCH": "1",
    }
    assert facts["TOP1"] == f"{100 * best:.2f}"
    assert facts["MESSAGE"].startswith(f"top-1 {100 * best:.2f} %")
    assert "told\n" in (run.path / "log.txt").read_text()


def test_a_loss_that_is_not_finite_is_told(digits: Path):
    with with_callbacks(Poison()), pytest.raises(RunFailed):
        fit(make(digits))
    facts = read_facts()
    assert (facts["EVENT"], facts["STATUS"], facts["TOP1"]) == ("nonfinite", "failed", "")
    assert facts["MESSAGE"].startswith("the loss of step 2 is not finite")


@pytest.mark.parametrize(("error", "event"), [(LoaderHung("it hangs"), "stalled"), (ZeroDivisionError("no"), "failed")])
def test_a_failure_is_told_with_its_reason(digits: Path, error: Exception, event: str, monkeypatch: pytest.MonkeyPatch):
    def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(ClassificationTask, "training_step", fail)
    with pytest.raises(RunFailed):
        fit(make(digits))
    facts = read_facts()
    assert facts["EVENT"] == event
    assert facts["MESSAGE"] in ("it hangs", "ZeroDivisionError: no")


def test_nothing_stalls_after_a_failure(digits: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ClassificationTask, "training_step", fail)
    with pytest.raises(RunFailed):
        fit(make(digits, trainer__timeout_minutes=0.5))
    watching = [each for each in threading.enumerate() if "_watch" in each.name]
    for each in watching:
        each.join(5)
    assert [each for each in watching if each.is_alive()] == []
    assert read_facts()["EVENT"] == "failed"


def test_a_training_that_hangs_is_told_and_goes_on(digits: Path, capsys: pytest.CaptureFixture[str]):
    class Sleeper(Callback):
        def on_train_batch_start(self, trainer: Any, *_arguments: object) -> None:
            if trainer.global_step == 2:
                for _ in range(100):
                    time.sleep(0.1)
                    if Path("facts.txt").exists():
                        break
                time.sleep(0.5)  # the command writes the file

    run = make(digits, trainer__timeout_minutes=2 / 60)
    with with_callbacks(Sleeper()):
        fit(run)
    first, second = Path("facts.txt").read_text().split("RESNEXT_EVENT=")[1:]
    assert (first.splitlines()[0], second.splitlines()[0]) == ("stalled", "finished")
    assert "RESNEXT_STATUS=running" in Path("facts.txt").read_text()
    assert capsys.readouterr().out.count("no batch has ended within trainer.timeout_minutes") == 1


def test_a_command_that_fails_or_hangs_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.WARNING, "resnext")
    monkeypatch.setattr(module, "SECONDS", 0.5)
    run_command("echo oops >&2; exit 3", {}, tmp_path)
    assert caplog.messages == [f"notify.command failed with exit code 3; its output is in {tmp_path}/log.txt"]
    assert (tmp_path / "log.txt").read_text() == "oops\n"
    began = time.monotonic()
    run_command("trap '' TERM; sleep 60; true", {"A": "\0"}, tmp_path)
    run_command("sleep 3 & true", {}, tmp_path)  # a child that goes on in the background is not waited for
    assert time.monotonic() - began < 20
    assert caplog.messages[1:] == ["notify.command took longer than 0.5 s and was killed"]


def test_a_broken_notification_changes_nothing(digits: Path, capsys: pytest.CaptureFixture[str]):
    """W&B raises, as a lost connection to its own process does."""

    def fail(*_arguments: object, **_options: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    run = make(digits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wandb, "run", SimpleNamespace(offline=False, alert=fail, summary={}))
        fit(run)
    assert run.summary["status"] == "finished"
    assert (
        "warning: the notification of the event `finished` could not be sent: BrokenPipeError"
        in capsys.readouterr().out
    )


def test_an_alert_of_wandb_has_the_run_and_the_reason(monkeypatch: pytest.MonkeyPatch):
    sent: list[tuple] = []
    online = SimpleNamespace(offline=False, alert=lambda title, text, level: sent.append((title, text, level)))
    monkeypatch.setattr(wandb, "run", online)
    module.send_alert("a: failed", "no space", is_bad=True)
    online.offline = True
    module.send_alert("a: failed", "no space", is_bad=True)
    assert sent == [("a: failed", "no space", "ERROR")]


def test_the_command_is_not_part_of_a_runs_identity(tmp_path: Path):
    assert small_config(tmp_path, notify={"command": "true"}).identity() == small_config(tmp_path).identity()
