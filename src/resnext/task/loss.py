"""The loss of a training, and the distillation loss."""

import functools
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from resnext.config.loss import LossConfig, register_ours
from resnext.errors import UserError
from resnext.registry import build_part

Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(config: LossConfig) -> Loss:
    """The loss that `config` names. It maps float32 logits [N, classes] and targets to a scalar.

    Targets are labels, int64 [N], or soft targets, float32 [N, classes].

    Raises:
        UserError: if the loss has parameters.
    """
    loss = build_part("loss", config.name, config.arguments)
    if isinstance(loss, nn.Module) and any(True for _ in loss.parameters()):
        raise UserError(f"recipe.loss.name={config.name} has parameters, which no optimizer trains: make them buffers")
    return loss


@register_ours["cross_entropy"]
def build_cross_entropy(config: LossConfig) -> Loss:
    return functools.partial(F.cross_entropy, label_smoothing=config.label_smoothing)


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
