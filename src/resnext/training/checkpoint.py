"""Checkpoint files, written whole or not at all, and when last.ckpt is written."""

import os
import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from resnext.config import CheckpointConfig
from resnext.errors import Interrupted, UserError
from resnext.training.agreement import Agreement
from resnext.training.preemption import StopRequest


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames: a kill, or a full disk, leaves the earlier file as it was."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any = None) -> None:
        target = Path(path)
        aside = target.with_name(f".{target.name}.partial")  # one writer: the run's lock
        try:
            with open(aside, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, target)
        finally:
            aside.unlink(missing_ok=True)
        _sync_folder(target.parent)


class BestCheckpoint(ModelCheckpoint):
    """Writes best.ckpt: the first epoch of the highest val/top1."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "best", monitor="val/top1", mode="max", save_top_k=1, enable_version_counter=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Where the run directory was moved, Lightning would forget the best score and overwrite best.ckpt."""
        super().load_state_dict(state_dict | {"dirpath": self.dirpath})
        if self.best_model_score is not None:
            self.best_model_path = self.kth_best_model_path = str(Path(self.dirpath or "") / "best.ckpt")
            self.best_k_models = {self.best_model_path: self.best_model_score}


class LastCheckpoint(Checkpoint):
    """Writes last.ckpt by time, by step, at the end of every epoch, and when a signal asks the run to stop.

    Always between two optimizer steps: inside an accumulation window the gradients gathered so far would be lost.
    After an epoch's last step it waits for the validation, which Lightning would skip when resuming from there.
    """

    def __init__(self, path: Path, config: CheckpointConfig, stop: StopRequest) -> None:
        self.path, self.config, self.stop = path, config, stop
        self._saved_at = time.monotonic()
        self._agreement: Agreement | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agreement = Agreement()
        self.stop.defer()
        if signum := self._agree(self.stop.signum):
            raise Interrupted(signum)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._agreement = None  # its process group must not outlive the training

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        between_steps = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        validation_is_next = trainer.should_stop or batch_idx + 1 == trainer.num_training_batches
        if not between_steps or validation_is_next:
            return
        due, signum = divmod(self._agree(self._is_due(trainer.global_step) * 256 + self.stop.signum), 256)
        if due or signum:
            self._save(trainer)
        if signum:
            raise Interrupted(signum)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)
        signum = self._agree(self.stop.signum)
        if signum and not trainer.should_stop:
            raise Interrupted(signum)

    def _agree(self, value: int) -> int:
        assert self._agreement is not None, "made when the training starts"
        return self._agreement.largest(value)

    def _is_due(self, step: int) -> bool:
        minutes, steps = self.config.every_minutes, self.config.every_steps
        by_time = minutes is not None and time.monotonic() - self._saved_at >= minutes * 60
        return by_time or (steps is not None and step % steps == 0)

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._saved_at = time.monotonic()


def read_step(path: Path) -> int:
    """The optimizer steps done in a checkpoint; raises UserError if it cannot be read."""
    try:
        return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    except Exception as error:  # truncated, empty, or no checkpoint: torch raises many types
        raise UserError(f"{path} cannot be read as a checkpoint ({type(error).__name__}): remove it") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
