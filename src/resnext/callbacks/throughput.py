"""Throughput: images per second, and the share of time that the training waits for data."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from resnext.task.classification import ClassificationTask

WARMUP_STEPS = 10  # they are slower (compilation, choice of kernels) or faster (prefetched batches)
FADING = 0.99  # each batch reduces the weight of the earlier ones by 1 %: an average over about 100 batches


class Stopwatch:
    """Adds up the seconds spent in `running`, including the current one."""

    def __init__(self) -> None:
        self._total, self._began = 0.0, 0.0
        self._runs = False

    @property
    def seconds(self) -> float:
        return self._total + (time.perf_counter() - self._began if self._runs else 0.0)

    @contextmanager
    def running(self) -> Iterator[None]:
        self._began, self._runs = time.perf_counter(), True
        try:
            yield
        finally:
            self._total, self._runs = self.seconds, False


class Throughput(Callback):
    """Measures the time from the end of one batch to the end of the next. Validations and the first batch of a start
    do not count.

    The speed counts the pauses between steps: saves, and waiting for other ranks. The share of time spent waiting for
    data does not: it is the share of the time of the steps themselves. A wait counts only if the device is idle when
    the batch arrives: this process runs ahead of a GPU, and may wait for a batch that the GPU does not need yet.

    Args:
        batch_size: the global batch, in images.
        log_every_steps: optimizer steps between two lines of perf.csv.
        pauses: runs during the pauses.
    """

    def __init__(self, batch_size: int, log_every_steps: int, pauses: Stopwatch | None = None) -> None:
        self.batch_size, self.log_every_steps = batch_size, log_every_steps
        self._pauses = pauses or Stopwatch()
        self.images_per_sec = 0.0  # since this start
        self.recent_images_per_sec = 0.0  # since the last line of perf.csv
        self.data_wait_percent = 0.0
        self._batches = 0
        self._step_done: torch.cuda.Event | None = None  # of the last batch; None on a CPU
        self._device_is_idle = True
        self._total = self._recent = self._steady = _Window()

    @property
    def steady_images_per_sec(self) -> float:
        """The speed, smoothed for the estimate of the time left.

        It ignores the first WARMUP_STEPS steps; during these steps, it is the speed of the last batch.
        """
        return self._steady.images_per_sec

    @property
    def steady_wait_percent(self) -> float:
        """The share of time spent waiting for data, smoothed in the same way."""
        return self._steady.wait_percent

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._images = self.batch_size / trainer.accumulate_grad_batches
        self._mark, self._waited, self._paused = time.perf_counter(), 0.0, self._pauses.seconds

        if pl_module.device.type == "cuda":
            self._step_done = torch.cuda.Event()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._device_is_idle = self._step_done is None or self._step_done.query()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mark, self._paused = time.perf_counter(), self._pauses.seconds

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, ClassificationTask)
        loader: Any = trainer.train_dataloader  # a TrainLoader
        now, waited, paused = time.perf_counter(), loader.seconds_waited, self._pauses.seconds
        if self._batches:
            waiting = waited - self._waited if self._device_is_idle else 0.0
            batch_window = _Window(self._images, now - self._mark, waiting, paused - self._paused)
            self._total, self._recent = self._total.plus(batch_window), self._recent.plus(batch_window)
            is_steady = self._batches > WARMUP_STEPS * trainer.accumulate_grad_batches
            self._steady = (self._steady.faded(FADING) if is_steady else _Window()).plus(batch_window)
            self.images_per_sec = self._total.images_per_sec
            self.recent_images_per_sec = self._recent.images_per_sec
            self.data_wait_percent = self._recent.wait_percent
        self._batches += 1
        if self._step_done is not None:
            self._step_done.record()
        self._mark, self._waited, self._paused = now, waited, paused
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


class _Window(NamedTuple):
    images: float = 0.0
    seconds: float = 0.0
    waiting: float = 0.0  # seconds of `seconds`
    paused: float = 0.0

    def plus(self, other: "_Window") -> "_Window":
        return _Window(*map(sum, zip(self, other, strict=True)))

    def faded(self, factor: float) -> "_Window":
        return _Window(*(factor * value for value in self))

    @property
    def images_per_sec(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def wait_percent(self) -> float:
        steps = self.seconds - self.paused
        return 100 * self.waiting / steps if steps > 0 else 0.0
