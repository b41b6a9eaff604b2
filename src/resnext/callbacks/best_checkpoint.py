"""Writes best.ckpt, and checks that it holds the best epoch in metrics.csv."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import Strategy

from resnext.errors import UserError
from resnext.run.directory import Run
from resnext.run.metrics import Row, find_best, read_rows
from resnext.runtime.checkpoint import BEST, Best, DamagedCheckpoint, read_position
from resnext.task.classification import ClassificationTask

log = logging.getLogger(__name__)


class BestCheckpoint(Checkpoint):
    """Writes best.ckpt: the first epoch with the highest `best_by`. Raises UserError at the end if that file was lost.

    Every checkpoint names the best epoch so far. A start compares this epoch with best.ckpt. If they differ, it uses
    best.ckpt. This callback must come after LastCheckpoint, so that a failed save at the end is reported first.
    """

    def __init__(self, run: Run, best_by: str) -> None:
        self.run, self.best_by = run, best_by
        self._best: Best | None = None
        self._step = 0  # of the loaded checkpoint

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["best"] = self._best._asdict() if self._best is not None else None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._best = Best(**checkpoint["best"]) if checkpoint["best"] is not None else None
        self._step = checkpoint["global_step"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All ranks use rank 0's result: a network file system may show an older file to other ranks."""
        self._best = trainer.strategy.broadcast(self._find_best() if trainer.is_global_zero else None)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, ClassificationTask)
        prefix, _, name = self.best_by.rpartition("/")
        score = getattr(pl_module.last_scores[prefix], name)
        if self._best is None or score > self._best.score:
            self._best = Best(pl_module.epoch, pl_module.global_step, score)
            trainer.save_checkpoint(self.run.checkpoints / BEST)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rows = read_rows(self.run.path / "metrics.csv") if trainer.is_global_zero else []
        check_best(self.run, rows, self.best_by, trainer.strategy)

    def _find_best(self) -> Best | None:
        """The best epoch so far, according to best.ckpt.

        If best.ckpt is newer than the loaded checkpoint, the training will write it again. In this case, returns the
        best epoch that the checkpoint names.
        """
        held = _read_best(self.run.checkpoints / BEST)
        if held is not None and held.step >= self._step:
            return self._best
        if held != self._best and self._best is not None:
            log.warning(
                "%s is %s, but this run's best validation so far is %s: best.ckpt was removed or replaced; later "
                "epochs are now compared with best.ckpt as it is",
                self.run.checkpoints / BEST,
                _describe(held),
                _describe(self._best),
            )
        return held


def check_best(run: Run, rows: list[Row], best_by: str, strategy: Strategy) -> None:
    """Raises UserError on every rank if rank 0 does not find the best epoch of `rows` in best.ckpt.

    Only rank 0's error has a message, so that it is printed once.
    """
    lost = strategy.broadcast(_describe_lost_best(run, rows, best_by) if strategy.is_global_zero else None)
    if lost is not None:
        raise UserError(lost if strategy.is_global_zero else "")


def _describe_lost_best(run: Run, rows: list[Row], best_by: str) -> str | None:
    """How best.ckpt differs from the best validation in `rows` of metrics.csv; None if it does not."""
    row, held = find_best(rows, best_by), _read_best(run.checkpoints / BEST)
    best = Best(int(row["epoch"]), int(row["step"]), float(row[best_by])) if row is not None else None
    if held == best:
        return None
    return (
        f"the training of {run.path} is complete, but {run.checkpoints / BEST} is {_describe(held)}, and the best is "
        f"{_describe(best)}: restore best.ckpt and resume the run, or use last.ckpt"
    )


def _read_best(path: Path) -> Best | None:
    """Does not check every byte: plan_training has checked the file, or this training wrote it."""
    try:
        return read_position(path).best
    except (FileNotFoundError, DamagedCheckpoint):
        return None


def _describe(best: Best | None) -> str:
    return f"epoch {best.epoch} ({100 * best.score:.2f} %)" if best is not None else "missing"
