"""What a training minimises."""

from torch import Tensor
from torch.nn import functional as F

from resnext.config.recipe import LossConfig


def classification_loss(logits: Tensor, targets: Tensor, config: LossConfig) -> Tensor:
    """The mean over logits [N, classes] and targets, either labels int64 [N] or shares of the classes [N, classes]."""
    logits = logits.float()
    if config.name == "cross_entropy":
        return F.cross_entropy(logits, targets, label_smoothing=config.label_smoothing)
    num_classes = logits.shape[1]
    if targets.ndim == 1:
        targets = F.one_hot(targets, num_classes).float()
    targets = targets * (1 - config.label_smoothing) + config.label_smoothing / num_classes
    if config.target_threshold is not None:
        targets = targets.gt(config.target_threshold).float()
    return F.binary_cross_entropy_with_logits(logits, targets)


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """temperature² · KL(teacher, student) of the softened logits [N, classes], a mean over images (Hinton et al. 2015).

    The factor keeps the size of the gradients whatever the temperature.
    """
    student = F.log_softmax(logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
