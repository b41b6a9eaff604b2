"""Checks early whether two steps, a save and the end of W&B fit into the time to save before SLURM's time limit."""

import logging
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from resnext.callbacks.last_checkpoint import LastCheckpoint
from resnext.loggers.wandb import seconds_to_finish
from resnext.task.classification import ClassificationTask

log = logging.getLogger(__name__)


class SaveTimeCheck(Callback):
    """Warns once, after the first save, if a rank needs more time to save and exit than SLURM gives it.

    The first step of each image size does not count, because it compiles the network.

    Args:
        seconds: time from SLURM's signal to the time limit.
        saver: measures how long its saves take.
    """

    def __init__(self, seconds: int, saver: LastCheckpoint) -> None:
        self.seconds, self.saver = seconds, saver
        self._began = 0.0
        self._shapes: set[tuple[int, ...]] = set()
        self._compiles = False
        self._longest_step = 0.0
        self._warned = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        assert isinstance(pl_module, ClassificationTask)
        if pl_module.micro_step(batch_idx) == 0:
            self._began, self._compiles = time.monotonic(), False
        shape = tuple(batch[0].shape)
        self._compiles = self._compiles or shape not in self._shapes
        self._shapes.add(shape)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, ClassificationTask)
        if not pl_module.ends_step(batch_idx) or self._compiles:
            return
        self._longest_step = max(self._longest_step, time.monotonic() - self._began)
        if self.saver.longest_save and not self._warned and trainer.is_global_zero:
            self._warn_if_short(seconds_to_finish())

    def _warn_if_short(self, finish: float) -> None:
        to_save = 2 * self._longest_step + self.saver.longest_save  # the ranks agree one step after the signal
        if to_save + finish <= self.seconds:
            return
        self._warned = True
        log.warning(
            "saving and exiting take up to %.0f s (two steps of %.1f s, a save of %.1f s%s), but "
            "slurm.signal_seconds_before_end=%d: give at least %d at the next submission",
            to_save + finish,
            self._longest_step,
            self.saver.longest_save,
            f", {finish:.0f} s for W&B" if finish else "",
            self.seconds,
            2 * to_save + finish,
        )
