"""The metrics of an evaluation, from the predictions for its images."""

from typing import NamedTuple

import numpy as np
import torch

from resnext.inference.outputs import SCALES, UNKNOWN, Outputs

BINS = 15  # of confidence, as in Guo et al. 2017
Z = 1.959963984540054  # a normal variable is within ± Z with a probability of 95 %


class Interval(NamedTuple):
    """A fraction of images, and its 95 % interval by Wilson (1927): the images are a sample of all possible images."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, hits: int, images: int) -> "Interval":
        fraction, share = hits / images, Z**2 / images
        centre = (fraction + share / 2) / (1 + share)
        half = Z / (1 + share) * np.sqrt(fraction * (1 - fraction) / images + share / images / 4)
        # the exact bound of no hits is 0, of all hits 1
        low = 0.0 if hits == 0 else float(centre - half)
        return cls(fraction, low, 1.0 if hits == images else float(centre + half))


class EvaluationMetrics(NamedTuple):
    """`loss` and `temperature` are None if an image has several correct classes.

    Attributes:
        images: the number of images.
        top1, top5: with fewer than five classes, top-5 is 1.
        loss: mean cross-entropy in nats.
        calibration_error: expected calibration error of the most likely class, with 15 bins (Guo et al. 2017,
            arXiv 1706.04599).
        temperature: divides the logits so that their cross-entropy over these images is lowest; None also if it is
            outside 1/16 to 16.
        named: the metrics of recipe.evaluation.metrics.
    """

    images: int
    top1: Interval
    top5: Interval
    loss: float | None
    calibration_error: float
    temperature: float | None
    named: dict[str, float]


def compute_metrics(outputs: Outputs, accepted: np.ndarray, names: tuple[str, ...] = ()) -> EvaluationMetrics:
    """`accepted` int64 [N, K] holds the correct classes of each image, padded with UNKNOWN.

    An image without a correct class does not count. The metrics `names` need the logits and one class for each image.
    """
    counted = (accepted != UNKNOWN).any(axis=1)
    images = int(counted.sum())
    hits = (outputs.labels[:, :, None] == accepted[:, None, :]).any(axis=2)[counted]
    has_targets = accepted.shape[1] == 1
    return EvaluationMetrics(
        images,
        Interval.of(int(hits[:, 0].sum()), images),
        Interval.of(int(hits.any(axis=1).sum()), images),
        float(outputs.losses.mean()) if has_targets else None,
        calibration_error(outputs.probabilities[counted, 0], hits[:, 0]),
        best_temperature(outputs.curve) if has_targets else None,
        _compute_named(outputs.logits, accepted, names) if names else {},
    )


def _compute_named(logits: np.ndarray, accepted: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    from resnext.task.metrics import NamedMetrics  # imports torchmetrics, 2 s

    metrics = NamedMetrics(names, logits.shape[1])
    metrics.update(torch.from_numpy(logits), torch.from_numpy(accepted[:, 0]))
    return metrics.compute_floats()


def calibration_error(confidences: np.ndarray, hits: np.ndarray) -> float:
    """The mean over the images of |accuracy - confidence| of their bin."""
    bins = np.clip(np.ceil(confidences.astype(np.float64) * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, hits.astype(np.float64) - confidences.astype(np.float64), BINS)
    return float(np.abs(gaps).sum() / len(hits))


def best_temperature(curve: np.ndarray) -> float | None:
    """The minimum of the sum of losses, which is convex in the scale of the logits.

    Between two scales, a cubic in the logarithm of the scale has the losses and the derivatives of `Outputs.curve`.
    """
    at = np.log(SCALES)
    losses, slopes = curve[:, 0], curve[:, 1] * SCALES
    rising = np.flatnonzero(slopes > 0)
    if not len(rising) or rising[0] == 0:
        return None
    right = rising[0]
    left, width = right - 1, at[right] - at[right - 1]
    rise = (losses[right] - losses[left]) / width
    # the derivative of the cubic at left + t · width: slopes[left] + 2 t b + 3 t² a
    b = 3 * rise - 2 * slopes[left] - slopes[right]
    a = slopes[left] + slopes[right] - 2 * rise
    root = -slopes[left] / (b + np.sqrt(max(0.0, b**2 - 3 * a * slopes[left])))
    return float(np.exp(-(at[left] + root * width)))


def count_confusions(outputs: Outputs, targets: np.ndarray) -> list[tuple[int, int, int]]:
    """(target, predicted class, images) for each pair that occurs."""
    pairs, counts = np.unique(np.stack([targets, outputs.labels[:, 0]], axis=1), axis=0, return_counts=True)
    return [(int(target), int(answer), int(count)) for (target, answer), count in zip(pairs, counts, strict=True)]


def class_hits(outputs: Outputs, targets: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """int64 [classes] each: the images of a class, and how many of them were predicted correctly."""
    known = targets != UNKNOWN
    images = np.bincount(targets[known], minlength=classes)
    return images, np.bincount(targets[known & (outputs.labels[:, 0] == targets)], minlength=classes)
