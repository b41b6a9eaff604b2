"""The predictions of a network for images: the most likely classes, and sums to which a temperature is fitted."""

from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from resnext.errors import UserError

TOP = 5
UNKNOWN = -1  # the target of an image with several correct classes
SCALES = 2.0 ** (np.arange(-16, 17) / 4)  # 1 / temperature: from 1/16 to 16


class Outputs(NamedTuple):
    """The predictions for N images, in the order of the images.

    Attributes:
        labels: int64 [N, 5], the most likely classes, in this order; fewer columns if there are fewer classes.
        probabilities: float32 [N, 5], of these classes.
        losses: float64 [N], cross-entropy in nats; NaN without a target.
        curve: float64 [33, 2]: for logits times each of SCALES, the sum of the losses, and that of their derivatives.
        logits: float32 [N, classes], or [N, 0] if they are not kept.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    losses: np.ndarray
    curve: np.ndarray
    logits: np.ndarray

    @classmethod
    def of(cls, logits: Tensor, targets: Tensor, allowed: Tensor | None = None, *, keeps: bool = False) -> Self:
        """From logits [N, classes] and targets int64 [N].

        With `allowed` int64 [M], only these classes can be predicted. A target is a position in all classes, or
        UNKNOWN. `keeps`: whether to keep the logits.
        """
        logits = logits.float()
        if allowed is not None:
            logits, targets = logits[:, allowed], _position(targets, allowed)
        labels = logits.topk(min(TOP, logits.shape[1]), dim=1).indices  # of small logits, the probability may be 0
        probabilities = logits.softmax(dim=1).gather(1, labels)
        known = targets != UNKNOWN
        losses = functional.cross_entropy(logits, targets, reduction="none", ignore_index=UNKNOWN).double()
        losses[~known] = torch.nan
        curve = _curve(logits[known], targets[known])
        labels = labels if allowed is None else allowed[labels]
        kept = logits if keeps else logits[:, :0]
        return cls(*(part.cpu().numpy() for part in (labels, probabilities, losses, curve, kept)))

    @classmethod
    def join(cls, parts: list[Self]) -> Self:
        """The predictions for consecutive batches. The sums are added in this order, on any number of processes."""
        labels, probabilities, losses = (np.concatenate([part[field] for part in parts]) for field in range(3))
        curve = np.sum([part.curve for part in parts], axis=0)
        return cls(labels, probabilities, losses, curve, np.concatenate([part.logits for part in parts]))


def check_finite(logits: Tensor, owner: object) -> None:
    """Raises UserError for NaN or infinity, which have no most likely class."""
    if not logits.isfinite().all():
        raise UserError(
            f"{owner} gives logits that are not finite (NaN or infinity): its training has diverged; take another "
            "checkpoint"
        )


def _position(targets: Tensor, allowed: Tensor) -> Tensor:
    """Position of each target in `allowed`."""
    matches = targets[:, None] == allowed
    return torch.where(matches.any(dim=1), matches.int().argmax(dim=1), UNKNOWN)


def _curve(logits: Tensor, targets: Tensor) -> Tensor:
    """float64 [33, 2]: the sum of the losses of the scaled logits, and of their derivatives by the scale."""
    shifted = logits - logits.amax(dim=1, keepdim=True)
    right = shifted.gather(1, targets[:, None]).squeeze(1)
    rows = []
    for scale in SCALES:
        exponentials = (scale * shifted).exp()
        total = exponentials.sum(dim=1)
        mean = (exponentials * shifted).sum(dim=1) / total
        rows.append(torch.stack([(total.log() - scale * right).double().sum(), (mean - right).double().sum()]))
    return torch.stack(rows)
