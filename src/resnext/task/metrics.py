"""The metrics of `recipe.evaluation.metrics`: torchmetrics' own, for several classes, macro-averaged."""

from typing import Any

from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAUROC,
    MulticlassAveragePrecision,
    MulticlassCalibrationError,
    MulticlassCohenKappa,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
    MulticlassPrecision,
    MulticlassRecall,
    MulticlassSpecificity,
)
from torchmetrics.utilities.data import dim_zero_cat


class _AUROC(MulticlassAUROC):
    """Leaves out a class without images. torchmetrics' own mean counts it as 0."""

    def __init__(self, **options: Any) -> None:
        super().__init__(average="none", **options)

    def compute(self) -> Tensor:
        return super().compute()[dim_zero_cat(self.target).unique()].mean()


CLASSES: dict[str, type[Metric]] = {
    "f1": MulticlassF1Score,
    "precision": MulticlassPrecision,
    "recall": MulticlassRecall,
    "specificity": MulticlassSpecificity,
    "auroc": _AUROC,
    "average_precision": MulticlassAveragePrecision,
    "cohen_kappa": MulticlassCohenKappa,
    "matthews_corrcoef": MulticlassMatthewsCorrCoef,
    "calibration_error": MulticlassCalibrationError,
}


class NamedMetrics(MetricCollection):
    """Name → value, over all images of all ranks. Metrics with the same state share it.

    auroc and average_precision are exact: they keep the probabilities of every image (float32, 200 MB for 50,000 images
    of 1,000 classes). With torchmetrics' thresholds they would need 6 MB, but of 1,000 classes most probabilities are
    below the lowest of 200 thresholds, and the value would not be the area.
    """

    def __init__(self, names: tuple[str, ...], num_classes: int) -> None:
        # validate_args checks the values of each batch, and waits for the device to do so
        self.ordered = names  # torchmetrics sorts them
        super().__init__({name: CLASSES[name](num_classes=num_classes, validate_args=False) for name in names})

    def update(self, logits: Tensor, targets: Tensor) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Adds a batch: logits [N, classes], targets int64 [N].

        torchmetrics takes a batch of logits that are all between 0 and 1 for probabilities: it gets probabilities.
        """
        if self.ordered:  # without names, a validation computes nothing for them
            super().update(logits.float().softmax(dim=1), targets)

    def compute_floats(self) -> dict[str, float]:
        """The values in the order of the names."""
        values: dict[str, Any] = self.compute()
        return {name: float(values[name]) for name in self.ordered}
