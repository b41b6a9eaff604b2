"""LastCheckpoint: writes last.ckpt, and runs the validation at the end of an epoch."""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from resnext.callbacks.throughput import Stopwatch
from resnext.config.checkpoint_metadata import METADATA, CheckpointMetadata
from resnext.config.schema import CheckpointConfig
from resnext.errors import Interrupted, Paused, RunFailed
from resnext.loggers.csv import CsvLogger
from resnext.run.identity import RunMark
from resnext.run.kept_checkpoints import kept_name
from resnext.runtime.checkpoint_io import AtomicCheckpointIO
from resnext.runtime.collectives import MaxOverRanks
from resnext.runtime.signals import StopRequest
from resnext.task.classification import ClassificationTask


class SaveFailed(RunFailed):
    """Too many saves in a row have failed. Every rank raises it."""


class LastCheckpoint(Checkpoint):
    """Writes last.ckpt by time, by step, before and after each validation, and when a signal asks the run to stop.

    It saves only between two optimizer steps: a save inside an accumulation window would lose its gradients so far.

    It also runs the validation, after the end of the epoch. Lightning would validate before the end of the epoch, and
    a run cannot continue exactly from a checkpoint of that moment. If a training stops between the last step of an
    epoch and the end of its validation, the resumed training begins with that validation.

    The save after a validation also keeps the file under the name of its epoch, if `config.keep_every_epochs` asks for
    it. That needs no second write: both names belong to one file.

    Args:
        path: the path of last.ckpt.
        timeout: a rank that does not answer within this time ends the training.
        mark, metadata: every checkpoint holds them; they identify its run and describe its network.
    """

    def __init__(
        self,
        path: Path,
        config: CheckpointConfig,
        stop: StopRequest,
        timeout: timedelta,
        mark: RunMark,
        metadata: CheckpointMetadata,
        pause_after_epochs: int | None = None,
    ) -> None:
        self.path, self.config, self.stop, self.timeout = path, config, stop, timeout
        self.mark, self.metadata = mark, metadata
        self.pause_after_epochs = pause_after_epochs
        self._validated = True
        self._saved_at = time.monotonic()
        self.longest_save = 0.0  # seconds
        self.pauses = Stopwatch()  # runs while the training saves, validates, or waits for the other ranks
        self._ranks: MaxOverRanks | None = None
        self._common_batches = 0

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["validated"] = self._validated
        checkpoint["run"] = self.mark._asdict()
        checkpoint[METADATA] = self.metadata.to_plain()
        if (logger := _csv_logger(trainer)) is not None:
            checkpoint["metrics"] = logger.metrics

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._validated = checkpoint["validated"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._ranks = MaxOverRanks(self.timeout)
        if (logger := _csv_logger(trainer)) is not None:
            _io(trainer).before_save = logger.write_all  # no checkpoint is ahead of metrics.csv
        self.stop.defer()
        self._check_same_position(trainer.global_step)
        self._stop_if_asked()
        if not self._validated:
            self._validate(trainer, pl_module)
        self._pause_if_due(pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._ranks = None  # its process group must not outlive the training

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, ClassificationTask)
        epoch_is_over = trainer.should_stop or pl_module.ends_epoch(batch_idx)
        if not pl_module.ends_step(batch_idx) or epoch_is_over:
            return
        with self.pauses.running():
            self._save_or_stop(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = False
        with self.pauses.running():
            self._save(trainer, pl_module)
            self._stop_if_asked()
            self._validate(trainer, pl_module)
        self._pause_if_due(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._common_batches = -self._max_over_ranks(-int(sum(trainer.num_val_batches)))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stops if a signal asks for it, but only after a batch that every rank has: all ranks must take part."""
        if batch_idx < self._common_batches:
            self._stop_if_asked()

    def _save_or_stop(self, trainer: Trainer, task: LightningModule) -> None:
        """Saves or stops between two steps of an epoch, if a rank asks for it."""
        assert self._ranks is not None
        late, signum = divmod(self._ranks.of_last_call(self._is_late() * 256 + self.stop.signum), 256)
        if late or signum or self._is_due(trainer.global_step):
            self._save(trainer, task)
            self._ranks.discard()  # its values are from before the save
        if signum:
            raise Interrupted(signum)

    def _validate(self, trainer: Trainer, task: LightningModule) -> None:
        """Does what Lightning's training loop does around its own validation."""
        assert isinstance(task, ClassificationTask)
        trainer.validating = True
        task.on_validation_model_zero_grad()
        trainer.fit_loop.epoch_loop.val_loop.run()
        trainer.training = True
        self._validated = True
        self._save(trainer, task, kept=self._find_kept_path(task.epoch))
        if not task.is_done:
            self._stop_if_asked()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_saved(trainer, allowed=1)

    def _find_kept_path(self, epoch: int) -> Path | None:
        """None if the checkpoint of this epoch is not kept."""
        every = self.config.keep_every_epochs
        return self.path.with_name(kept_name(epoch)) if every is not None and epoch % every == 0 else None

    def _save(self, trainer: Trainer, task: LightningModule, kept: Path | None = None) -> None:
        """`kept` is a second name for the file. Raises NonFiniteLoss if the weights must not be saved."""
        assert isinstance(task, ClassificationTask)
        task.guard.check(trainer.global_step)
        began = time.monotonic()
        trainer.save_checkpoint(self.path, storage_options=kept)
        self._saved_at = time.monotonic()
        self.longest_save = max(self.longest_save, self._saved_at - began)
        self._check_saved(trainer, allowed=self.config.max_failures)

    def _check_saved(self, trainer: Trainer, allowed: int) -> None:
        """Raises SaveFailed on every rank if `allowed` saves in a row have failed."""
        failures = self._max_over_ranks(_io(trainer).failures)
        if failures >= allowed:
            raise SaveFailed(
                f"{self.path} could not be saved, {failures} times in a row (checkpoint.max_failures="
                f"{self.config.max_failures}): the warnings above have the reason; correct it, and resume the run"
            )

    def _check_same_position(self, step: int) -> None:
        """Raises RunFailed if the ranks read different checkpoints: a network file system may show an older one."""
        position = 2 * step + self._validated
        if self._max_over_ranks(position) != -self._max_over_ranks(-position):
            raise RunFailed(
                f"the ranks read different checkpoints (this rank: step {step}): the file system does not show the "
                "newest one to all ranks yet; resume the run"
            )

    def _stop_if_asked(self) -> None:
        if signum := self._max_over_ranks(self.stop.signum):
            raise Interrupted(signum)

    def _max_over_ranks(self, value: int) -> int:
        assert self._ranks is not None, "made when the training starts"
        return self._ranks.now(value)

    def _pause_if_due(self, task: LightningModule) -> None:
        """Raises Paused, on every rank, between two epochs. Call it when the last validation is saved."""
        assert isinstance(task, ClassificationTask)
        if self.pause_after_epochs is not None and self.pause_after_epochs <= task.epoch and not task.is_done:
            raise Paused

    def _is_late(self) -> bool:
        """Whether a timed save is due on this rank. Clocks differ, so the ranks must agree before they save."""
        minutes = self.config.every_minutes
        return minutes is not None and time.monotonic() - self._saved_at >= minutes * 60

    def _is_due(self, step: int) -> bool:
        return self.config.every_steps is not None and step % self.config.every_steps == 0


def _csv_logger(trainer: Trainer) -> CsvLogger | None:
    """The CSV logger; only rank 0 has one."""
    return next((logger for logger in trainer.loggers if isinstance(logger, CsvLogger)), None)


def _io(trainer: Trainer) -> AtomicCheckpointIO:
    io = trainer.strategy.checkpoint_io
    assert isinstance(io, AtomicCheckpointIO)
    return io
