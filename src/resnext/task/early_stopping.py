"""find_early_stop: whether a training has ended early. It follows from the validations alone, as in metrics.csv.

So a resumed training needs no state of its own, and ends after the same epoch as an uninterrupted one. Lightning's
EarlyStopping keeps its count in the checkpoint, and compares values that were rounded to float32.
"""

import math
from typing import NamedTuple

from resnext.config.early_stopping import EarlyStoppingConfig

History = list[tuple[int, float]]  # the epoch and the monitored value of each validation


class EarlyStop(NamedTuple):
    """The epoch after which the training ends, and the best validation so far; None if no value was a number."""

    epoch: int
    best: tuple[int, float] | None

    def describe(self, config: EarlyStoppingConfig) -> str:
        """`after epoch 7: val/top1 has not risen for 3 epochs (best 0.91 at epoch 4)`."""
        best = f"best {self.best[1]:.4g} at epoch {self.best[0]}" if self.best is not None else "it was never a number"
        return f"after epoch {self.epoch}: {config.words} ({best})"


def find_early_stop(history: History, config: EarlyStoppingConfig) -> EarlyStop | None:
    """The first stop in `history`; None if the training goes on. A value that is not a number is not better."""
    sign = -1 if config.lower_is_better else 1
    best, waited = None, 0
    for epoch, value in history:
        waited += 1
        if math.isnan(value):
            pass
        elif best is None or sign * value - config.min_delta > sign * best[1]:
            best, waited = (epoch, value), 0
        if waited >= config.patience:
            return EarlyStop(epoch, best)
    return None
