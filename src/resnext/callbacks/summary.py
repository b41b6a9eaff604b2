"""Writes summary.json: status and results so far, computed from metrics.csv."""

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from resnext.callbacks.throughput import Throughput
from resnext.run.directory import Run
from resnext.run.metrics import Row, find_best, read_rows
from resnext.task.classification import ClassificationTask


class SummaryWriter(Callback):
    """Rewrites summary.json after each validation, and when the training ends or fails."""

    def __init__(self, run: Run, throughput: Throughput, best_by: str) -> None:
        self.run, self.throughput, self.best_by = run, throughput, best_by

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, task: LightningModule) -> None:
        assert isinstance(task, ClassificationTask)
        if trainer.is_global_zero:
            self.run.update_summary(
                steps=trainer.global_step,
                **({"images_per_sec": round(speed, 2)} if (speed := self.throughput.images_per_sec) else {}),
                **({"val_images": task.last_scores["val"].images} if task.last_scores else {}),
                **summarize(read_rows(self.run.path / "metrics.csv"), self.best_by),
            )


def summarize(rows: list[Row], best_by: str) -> dict[str, Any]:
    """The best epoch (the first with the highest `best_by`) and the last epoch: their numbers and results."""
    best, validated = find_best(rows, best_by), [row for row in rows if row["val/top1"]]
    if best is None:
        return {}
    return {
        "epochs": int(validated[-1]["epoch"]),
        "best_epoch": int(best["epoch"]),
        **_results(best),
        "last": _results(validated[-1]),
    }


def _results(row: Row) -> dict[str, float | None]:
    """JSON has no NaN: a value that is not finite becomes null."""
    values = {name: float(row[name]) for name in row if name.startswith("val") and row[name]}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
