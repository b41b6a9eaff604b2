"""The text of the progress bar and of the plain lines."""

import io
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import Callback
from rich.console import Console

from resnext.callbacks import progress as module
from resnext.callbacks.progress import ProgressReport
from resnext.callbacks.throughput import Throughput, _Window
from resnext.training.fit import fit
from support.small_run import make_run, micro_steps_of, small_config
from support.stopping import with_callbacks


def lines_of(report: ProgressReport, step: int, loss: float | None, caplog: pytest.LogCaptureFixture) -> str:
    """The plain line after optimizer step `step`, of epochs of 5 steps."""
    trainer = SimpleNamespace(global_step=step, current_epoch=(step - 1) // 5, is_global_zero=True)
    trainer.num_training_batches, trainer.accumulate_grad_batches = 5, 1
    task = micro_steps_of(trainer)
    task.last_loss, report._line_at = loss, 0.0
    caplog.clear()
    with caplog.at_level(logging.INFO, "resnext"):
        report.on_train_batch_end(trainer, task, None, None, (step - 1) % 5)
    return caplog.messages[0]


def test_facts_that_are_not_known_are_left_out(caplog: pytest.LogCaptureFixture):
    report = ProgressReport(Throughput(batch_size=8, log_every_steps=1), total_steps=12, epochs=3)
    assert lines_of(report, 1, None, caplog) == "epoch 1/3  step 1/12"


def test_the_times_left_are_those_of_the_steps_and_validations(caplog: pytest.LogCaptureFixture):
    """A step of 8 images takes 4 s at 2 images/s. Epochs have 5, 5 and 2 steps; a validation takes 100 s."""
    throughput = Throughput(batch_size=8, log_every_steps=1)
    report = ProgressReport(throughput, total_steps=12, epochs=3)
    throughput._steady = _Window(images=4, seconds=2, waiting=0.25, paused=1)
    known = "loss 1.2346  2 images/s"
    assert lines_of(report, 2, 1.23456, caplog).endswith(f"{known}  0:00:12 / 0:00:40 left  waiting for data 25 %")
    report._validation_seconds = 100.0
    expected = {2: "0:00:12 / 0:05:40", 5: "0:00:00 / 0:05:28", 6: "0:00:16 / 0:03:44", 11: "0:00:04 / 0:01:44"}
    for step, left in expected.items():
        assert f"{known}  {left} left" in lines_of(report, step, 1.23456, caplog)


def test_the_bar_fits_in_80_columns(digits: Path, monkeypatch: pytest.MonkeyPatch):
    """Also the bar of a fast training, on a terminal of this width."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system=None, legacy_windows=False)
    monkeypatch.setattr(module, "console", console)
    drawn: list[str] = []

    monkeypatch.setattr(Throughput, "steady_images_per_sec", 12_345)
    monkeypatch.setattr(Throughput, "steady_wait_percent", 67)

    class Reader(Callback):
        def on_validation_start(self, trainer, pl_module) -> None:
            report = next(each for each in trainer.callbacks if isinstance(each, ProgressReport))
            with console.capture() as capture:
                console.print(report._bar.get_renderable())
            drawn.append(capture.get().splitlines()[-1])

    with with_callbacks(Reader()):
        fit(make_run(small_config(digits, recipe__batch_size=359, recipe__max_steps=3)))
    assert drawn[0].startswith("epoch 1/2 ━")
    assert " loss 2." in drawn[0]
    assert drawn[0].endswith("  12,345 images/s  00:00 / 00:00 left  waiting 67 %")
    assert len(drawn[0]) <= 80
