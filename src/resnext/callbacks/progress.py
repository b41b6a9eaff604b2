"""Progress: a bar on a terminal, plain lines elsewhere, and one line for each epoch."""

import logging
import math
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.progress import BarColumn, Progress, TextColumn

from resnext.callbacks.throughput import Throughput
from resnext.runtime.logs import console
from resnext.task.classification import ClassificationTask

LINE_SECONDS = 30.0
WIDE = 100  # columns; on a narrower terminal the bar is shorter, so that the text fits in 80

log = logging.getLogger(__name__)


class ProgressReport(Callback):
    """Shows position, loss, speed, the time left in the epoch and in the run, and the share of time waiting for data.

    The loss is `train/loss` of the last logged step. The time left in the run includes validations after the first one.

    Args:
        throughput: must come before this callback, so that its numbers include the current batch.
        total_steps: optimizer steps of the whole training.
    """

    def __init__(self, throughput: Throughput, total_steps: int, epochs: int) -> None:
        self.throughput, self.total_steps, self.epochs = throughput, total_steps, epochs
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20 if console.width >= WIDE else 8),
            TextColumn("{task.fields[text]}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=total_steps, text="")
        self._line_at = time.monotonic() + LINE_SECONDS
        self._validation_began = self._validation_seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and console.is_terminal:
            self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, ClassificationTask)
        if not trainer.is_global_zero:
            return
        epoch = self._epoch(trainer.current_epoch + 1)
        if console.is_terminal:
            text = "  ".join(self._facts(pl_module, "waiting", clock=_short))
            self._bar.update(self._task, completed=trainer.global_step, description=epoch, text=text)
        elif time.monotonic() >= self._line_at:
            self._line_at = time.monotonic() + LINE_SECONDS
            position = f"step {trainer.global_step}/{self.total_steps}"
            log.info("%s", "  ".join([epoch, position, *self._facts(pl_module, "waiting for data", clock=str)]))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation_began = time.monotonic()
        self._bar.update(self._task, text="validating")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, ClassificationTask)
        self._validation_seconds = time.monotonic() - self._validation_began
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        prefix = "val_ema" if "val_ema/top1" in metrics else "val"
        named = (f"  {name} {metrics[f'{prefix}/{name}']:.4f}" for name in pl_module.recipe.evaluation.metrics)
        log.info(
            "%s  val loss %.4f  top-1 %6.2f %%  %s%s%s",
            self._epoch(pl_module.epoch),
            metrics["val/loss"],
            100 * metrics["val/top1"],
            f"EMA {100 * metrics['val_ema/top1']:6.2f} %"
            if "val_ema/top1" in metrics
            else f"top-5 {100 * metrics['val/top5']:6.2f} %",
            "".join(named),
            f"  {speed:,.0f} images/s" if (speed := self.throughput.images_per_sec) else "",
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar.live.is_started:
            self._bar.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._bar.live.is_started:
            self._bar.stop()

    def _epoch(self, number: int) -> str:
        return f"epoch {number:{len(str(self.epochs))}}/{self.epochs}"

    def _facts(self, task: ClassificationTask, waiting: str, clock: Callable[[timedelta], str]) -> list[str]:
        """What is known so far: no loss before the first logged step, and no speed after the first batch."""
        facts = [f"loss {task.last_loss:.4f}"] if task.last_loss is not None else []
        speed = self.throughput.steady_images_per_sec
        if speed:
            epoch, run = (clock(timedelta(seconds=round(left))) for left in self._seconds_left(task, speed))
            facts += [f"{speed:,.0f} images/s", f"{epoch} / {run} left"]
            facts.append(f"{waiting} {self.throughput.steady_wait_percent:.0f} %")
        return facts

    def _seconds_left(self, task: ClassificationTask, speed: float) -> tuple[float, float]:
        """For the steps of the epoch, and for all steps and validations of the run."""
        step, per_epoch, epoch = task.global_step, task.steps_per_epoch, task.epoch
        step_seconds = self.throughput.batch_size / speed
        validations = math.ceil(self.total_steps / per_epoch) - max(epoch - 1, 0)
        to_epoch_end = min(max(epoch, 1) * per_epoch, self.total_steps) - step
        in_all = (self.total_steps - step) * step_seconds + validations * self._validation_seconds
        return to_epoch_end * step_seconds, in_all


def _short(time_left: timedelta) -> str:
    """`12:34` instead of `0:12:34`."""
    return str(time_left).removeprefix("0:")
