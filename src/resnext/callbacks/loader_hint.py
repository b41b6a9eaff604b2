"""LoaderHint: says once what to change if the training waits for data."""

import logging
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from resnext.callbacks.throughput import Throughput
from resnext.config.data import DataConfig
from resnext.data.cores import count_cores
from resnext.data.datamodule import count_workers

MIN_PERCENT = 20.0  # with less, a loader that costs nothing would make the training at most 1.25 times as fast
MIN_STEPS = 100  # the smoothed share is an average over about 100 batches
CHECK_EVERY = 20  # steps

log = logging.getLogger(__name__)


class LoaderHint(Callback):
    """Logs one line per start, on rank 0.

    Args:
        throughput: must come before this callback.
        is_packed: whether the images are a pack.
    """

    def __init__(self, throughput: Throughput, data: DataConfig, *, is_packed: bool) -> None:
        self.throughput, self.data, self.is_packed = throughput, data, is_packed
        self._cores = self._workers = 0
        self._steps = 0  # of this start
        self._logged = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._cores, self._workers = count_cores(), count_workers(self.data)  # on every rank: collectives

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches or self._logged or not trainer.is_global_zero:
            return
        self._steps += 1
        percent = self.throughput.steady_wait_percent
        if self._steps < MIN_STEPS or self._steps % CHECK_EVERY or percent < MIN_PERCENT:
            return
        self._logged = True
        remedies = find_remedies(self.data.cache, self._workers, self._cores, is_packed=self.is_packed)
        log.info("hint      the training waits for data %.0f %% of the time: %s", percent, "; or ".join(remedies))


def find_remedies(cache: str, workers: int, cores: int, *, is_packed: bool) -> list[str]:
    """What makes loading faster, the simplest first. `cores` are those of this rank."""
    more = [f"data.workers={cores} (now {workers})"] if workers < cores else []
    if cache == "none":
        more.append("data.cache=ram, if the decoded images fit in half of the free memory")
    if is_packed:
        return [*more, "`resnext prepare pack SRC DST --short-side 256` and a new run on it"]
    return [
        *more,
        "`resnext prepare pack SRC DST`, if the storage is slow with many files",
        "`resnext prepare pack SRC DST --short-side 256`, smaller images for a new run",
    ]
