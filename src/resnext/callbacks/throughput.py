"""Throughput: images per second, and the share of time that the training waits for data."""

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from resnext.task.classification import ClassificationTask

WARMUP_STEPS = 10  # they are slower (compilation, choice of kernels) or faster (prefetched batches)
FADING = 0.99  # each batch reduces the weight of the earlier ones by 1 %: an average over about 100 batches


class Throughput(Callback):
    """Measures the time from the end of one batch to the end of the next. Validations and the first batch of a start
    do not count. The time of a save is part of a step, but is not time spent waiting for data.

    Args:
        batch_size: the global batch, in images.
        log_every_steps: optimizer steps between two lines of perf.csv.
    """

    def __init__(self, batch_size: int, log_every_steps: int) -> None:
        self.batch_size, self.log_every_steps = batch_size, log_every_steps
        self.images_per_sec = 0.0  # since this start
        self.recent_images_per_sec = 0.0  # since the last line of perf.csv
        self.data_wait_percent = 0.0
        self._batches = 0
        self._total = self._recent = self._steady = _Window()

    @property
    def steady_images_per_sec(self) -> float:
        """The speed, smoothed for the estimate of the time left.

        It ignores the first WARMUP_STEPS steps; during these steps, it is the speed of the last batch.
        """
        return self._steady.images_per_sec

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._images = self.batch_size / trainer.accumulate_grad_batches
        self._mark, self._waited = time.perf_counter(), 0.0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mark = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, ClassificationTask)
        loader: Any = trainer.train_dataloader  # a TrainLoader
        now, waited = time.perf_counter(), loader.seconds_waited
        if self._batches:
            batch_window = _Window(self._images, now - self._mark, waited - self._waited)
            self._total, self._recent = self._total + batch_window, self._recent + batch_window
            is_steady = self._batches > WARMUP_STEPS * trainer.accumulate_grad_batches
            self._steady = (self._steady.faded(FADING) if is_steady else _Window()) + batch_window
            self.images_per_sec = self._total.images_per_sec
            self.recent_images_per_sec = self._recent.images_per_sec
            self.data_wait_percent = self._recent.wait_percent
        self._batches += 1
        self._mark, self._waited = now, waited
        is_due = pl_module.ends_step(batch_idx) and trainer.global_step % self.log_every_steps == 0
        if is_due or pl_module.ends_epoch(batch_idx):
            self._log(trainer)

    def _log(self, trainer: Trainer) -> None:
        metrics = {
            "epoch": trainer.current_epoch + 1,
            "perf/images_per_sec": self.recent_images_per_sec,
            "perf/data_wait_percent": self.data_wait_percent,
        }
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
        self._recent = _Window()


class _Window:
    def __init__(self, images: float = 0.0, seconds: float = 0.0, wait: float = 0.0) -> None:
        self.images, self.seconds, self.wait = images, seconds, wait

    def __add__(self, other: "_Window") -> "_Window":
        return _Window(self.images + other.images, self.seconds + other.seconds, self.wait + other.wait)

    def faded(self, factor: float) -> "_Window":
        return _Window(self.images * factor, self.seconds * factor, self.wait * factor)

    @property
    def images_per_sec(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def wait_percent(self) -> float:
        return 100 * self.wait / self.seconds if self.seconds else 0.0
