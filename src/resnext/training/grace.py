"""The grace before a time limit: whether a step and a save fit into it, known before it counts."""

import logging
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from resnext.training.last_checkpoint import LastCheckpoint

log = logging.getLogger(__name__)


class GraceCheck(Callback):
    """Warns once, after the first save, where the longest step and the longest save do not fit into the grace.

    Args:
        seconds: from SLURM's signal to the time limit.
        saver: knows how long its saves took.
    """

    def __init__(self, seconds: int, saver: LastCheckpoint) -> None:
        self.seconds, self.saver = seconds, saver
        self._began = 0.0
        self._longest_step = 0.0
        self._warned = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._began = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self._longest_step = max(self._longest_step, time.monotonic() - self._began)
        needed = 2 * self._longest_step + self.saver.longest_save  # the ranks agree one step after the signal
        if self.saver.longest_save and needed > self.seconds and not self._warned and trainer.is_global_zero:
            self._warned = True
            log.warning(
                "leaving takes up to %.0f s (two steps of %.1f s and a save of %.1f s), and SLURM gives "
                "slurm.signal_seconds_before_end=%d: give at least %d at the next submission",
                *(needed, self._longest_step, self.saver.longest_save, self.seconds, 2 * needed),
            )
