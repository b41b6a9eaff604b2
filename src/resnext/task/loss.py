"""The loss of a training, and the distillation loss."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnext.config.loss import GAMMA, LossConfig, register_ours
from resnext.errors import UserError
from resnext.registry import build_part
from resnext.terminal import pluralize

Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(config: LossConfig, class_counts: np.ndarray | None = None) -> Loss:
    """The loss that `config` names. It maps float32 logits [N, classes] and targets to a scalar.

    Targets are labels, int64 [N], or soft targets, float32 [N, classes]. `class_counts` are the training images of each
    class, int64 [classes]; only `recipe.loss.class_weights` needs them.

    Raises:
        UserError: if the loss has parameters, or the class weights do not fit the classes.
    """
    arguments: dict[str, Any] = {}
    if config.class_weights is not None:
        assert class_counts is not None
        arguments["weights"] = torch.tensor(find_class_weights(config, class_counts), dtype=torch.float32)
    loss = build_part("loss", config.name, config.arguments, **arguments)
    if isinstance(loss, nn.Module) and any(True for _ in loss.parameters()):
        raise UserError(f"recipe.loss.name={config.name} has parameters, which no optimizer trains: make them buffers")
    return loss


def find_class_weights(config: LossConfig, class_counts: np.ndarray) -> np.ndarray:
    """float64 [classes]. They depend only on the configuration and the training images, so all ranks have the same."""
    if config.class_weights == "balanced":
        if not class_counts.all():
            empty = pluralize(int((class_counts == 0).sum()), "class", "classes")
            raise UserError(f"recipe.loss.class_weights=balanced: {empty} without training images; give a list")
        return class_counts.sum() / (len(class_counts) * class_counts)
    weights = np.array(config.class_weights)
    if len(weights) != len(class_counts):
        raise UserError(
            f"recipe.loss.class_weights has {len(weights)} weights, and the data has {len(class_counts)} classes: give "
            "one for each class, in the order of their names"
        )
    return weights


class SoftmaxLoss(nn.Module):
    """Cross-entropy with torch's `weight` and `label_smoothing`; with `gamma`, the focal loss (Lin et al. 2017, eq. 5).

    The focal loss of an image is Σ t · w · (1 - p)^gamma · -log p over the classes, for the targets t, the weights w
    and the softmax p. With labels, only the label's class is in the sum: the paper's form, where w is its alpha. For
    two classes it equals the sigmoid form of RetinaNet. The mean is torch's: with labels, the sum over the images is
    divided by the sum of their weights, and with soft targets by their number. With gamma 0 it is cross-entropy.
    """

    weights: Tensor | None

    def __init__(self, label_smoothing: float, weights: Tensor | None, gamma: float | None) -> None:
        super().__init__()
        self.label_smoothing, self.gamma = label_smoothing, gamma
        self.register_buffer("weights", weights, persistent=False)  # it follows from the configuration and the data

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.gamma is None:
            return F.cross_entropy(logits, targets, self.weights, label_smoothing=self.label_smoothing)
        log_p = _focused(F.log_softmax(logits, dim=1), self.gamma)
        if targets.ndim == 1 and not self.label_smoothing:
            return F.nll_loss(log_p, targets, self.weights)
        soft = F.one_hot(targets, logits.shape[1]).to(logits.dtype) if targets.ndim == 1 else targets
        soft = soft * (1 - self.label_smoothing) + self.label_smoothing / logits.shape[1]
        if self.weights is None:
            return -(soft * log_p).sum() / len(targets)
        return -(soft * log_p * self.weights).sum() / (
            self.weights[targets].sum() if targets.ndim == 1 else len(targets)
        )


def _focused(log_p: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma · log p. The clamp keeps the gradient finite at p = 1 if gamma is less than 1."""
    rest = log_p.expm1().neg().clamp_min(torch.finfo(log_p.dtype).tiny)
    return rest**gamma * log_p


@register_ours["cross_entropy"]
def build_cross_entropy(config: LossConfig, weights: Tensor | None = None) -> Loss:
    return SoftmaxLoss(config.label_smoothing, weights, gamma=None)


@register_ours["focal"]
def build_focal(config: LossConfig, weights: Tensor | None = None) -> Loss:
    return SoftmaxLoss(config.label_smoothing, weights, GAMMA if config.gamma is None else config.gamma)


@register_ours["binary_cross_entropy"]
def build_binary_cross_entropy(config: LossConfig) -> Loss:
    """Binary cross-entropy of each class, as a mean over images and classes."""

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        num_classes = logits.shape[1]
        if targets.ndim == 1:
            targets = F.one_hot(targets, num_classes).float()
        targets = targets * (1 - config.label_smoothing) + config.label_smoothing / num_classes
        if config.target_threshold is not None:
            targets = targets.gt(config.target_threshold).float()
        return F.binary_cross_entropy_with_logits(logits, targets)

    return loss


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """temperature² · KL(teacher, student) of the softened logits [N, classes], a mean over images (Hinton et al. 2015).

    The factor temperature² makes the size of the gradients independent of the temperature.
    """
    student = F.log_softmax(logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
