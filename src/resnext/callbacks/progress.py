"""Progress: a bar on a terminal, plain lines elsewhere, and one line for each epoch."""

import logging
import time
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.progress import BarColumn, Progress, TextColumn

from resnext.callbacks.throughput import Throughput
from resnext.runtime.logs import console
from resnext.task.classification import ClassificationTask

LINE_SECONDS = 30.0

log = logging.getLogger(__name__)


class ProgressReport(Callback):
    """Shows the position of the training, its speed, the time left and the share of time spent waiting for data.

    Args:
        throughput: must come before this callback, so that its numbers include the current batch.
        total_steps: optimizer steps of the whole training.
    """

    def __init__(self, throughput: Throughput, total_steps: int, epochs: int) -> None:
        self.throughput, self.total_steps, self.epochs = throughput, total_steps, epochs
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[text]}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=total_steps, text="")
        self._line_at = time.monotonic() + LINE_SECONDS

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and console.is_terminal:
            self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        if console.is_terminal:
            epoch = self._epoch(trainer.current_epoch + 1)
            self._bar.update(self._task, completed=trainer.global_step, description=epoch, text=self._speed(trainer))
        elif time.monotonic() >= self._line_at:
            self._line_at = time.monotonic() + LINE_SECONDS
            position = f"step {trainer.global_step}/{self.total_steps}"
            epoch = self._epoch(trainer.current_epoch + 1)
            log.info("%s", f"{epoch}  {position}  {self._speed(trainer)}".rstrip())

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._bar.update(self._task, text="validating")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, ClassificationTask)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        prefix = "val_ema" if "val_ema/top1" in metrics else "val"
        named = (f"  {name} {metrics[f'{prefix}/{name}']:.4f}" for name in pl_module.recipe.evaluation.metrics)
        log.info(
            "%s  loss %.4f  top-1 %6.2f %%  %s%s%s",
            self._epoch(pl_module.epoch),
            metrics["val/loss"],
            100 * metrics["val/top1"],
            f"of the EMA {100 * metrics['val_ema/top1']:6.2f} %"
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

    def _speed(self, trainer: Trainer) -> str:
        speed = self.throughput.recent_images_per_sec or self.throughput.images_per_sec
        steady = self.throughput.steady_images_per_sec
        if not speed or not steady:  # after the first batch
            return ""
        images = (self.total_steps - trainer.global_step) * self.throughput.batch_size
        left = timedelta(seconds=round(images / steady))
        return f"{speed:,.0f} images/s  {left} left  waiting for data {self.throughput.data_wait_percent:.0f} %"
