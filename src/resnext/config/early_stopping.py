"""When a training ends before its last epoch because a metric no longer improves."""

from pydantic.dataclasses import dataclass

from resnext.config.errors import KeyMistake, nearest
from resnext.config.types import STRICT, Count, Name, NonNegative
from resnext.terminal import pluralize

KEY = "recipe.early_stopping"
LOWER_IS_BETTER = ("loss", "calibration_error")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EarlyStoppingConfig:
    """The training may end before its last epoch.

    `monitor`: a metric of the validations, such as val/top1; null: no early stopping. `patience`: the number of
    validations in a row without a better value after which the training ends. `min_delta`: a value is better if it is
    more than this above the best value so far; for a loss or an error, below it.
    """

    monitor: Name | None = None
    patience: Count = 10
    min_delta: NonNegative = 0.0

    @property
    def lower_is_better(self) -> bool:
        return self.monitor is not None and self.monitor.rpartition("/")[2] in LOWER_IS_BETTER

    @property
    def words(self) -> str:
        """`val/top1 has not risen for 3 epochs`."""
        verb = "fallen" if self.lower_is_better else "risen"
        least = f" by more than {self.min_delta:g}" if self.min_delta else ""
        return f"{self.monitor} has not {verb}{least} for {pluralize(self.patience, 'epoch')}"

    def check(self, known: list[str]) -> None:
        """Raises KeyMistake if `monitor` is not in `known`, or null although another key is given."""
        if self.monitor is None and self != EarlyStoppingConfig():
            raise KeyMistake(
                f"{KEY} needs {KEY}.monitor, such as val/top1; without early stopping, leave {KEY}.patience=10 and "
                "min_delta=0 as they are",
                KEY,
            )
        if self.monitor is not None and self.monitor not in known:
            hint = nearest(self.monitor, known)
            raise KeyMistake(
                f"{KEY}.monitor={self.monitor} is not a metric of this run's validations{hint or ';'} they have "
                f"{', '.join(known)}, and recipe.evaluation.metrics adds others",
                f"{KEY}.monitor",
            )
