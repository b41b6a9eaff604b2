"""Parameter groups, the optimizer, and the learning rate as a pure function of the step."""

import math

from timm.optim import create_optimizer_v2, list_optimizers
from torch import nn
from torch.optim import Optimizer

from resnext.config import OptimizerConfig, RecipeConfig
from resnext.config_errors import nearest
from resnext.errors import UserError


def lr_at(step: int, recipe: RecipeConfig, steps_per_epoch: int) -> float:
    """The learning rate of the optimizer step `step`, counted from 0.

    Linear from warmup_lr to lr over the warm-up; then the schedule over the whole length as if there were no warm-up,
    as timm and torchvision have it for `step`, and over the rest for `cosine`, whose last step is one before min_lr.
    """
    lr, schedule = recipe.optimizer.lr, recipe.schedule
    warmup_steps = schedule.warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        return schedule.warmup_lr + (lr - schedule.warmup_lr) * step / warmup_steps
    if schedule.name == "step":
        return lr * schedule.decay_rate ** (step // max(1, round(schedule.decay_epochs * steps_per_epoch)))
    if schedule.name == "cosine":
        progress = (step - warmup_steps) / max(total_steps(recipe, steps_per_epoch) - warmup_steps, 1)
        return schedule.min_lr + (lr - schedule.min_lr) * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))
    return lr


def total_steps(recipe: RecipeConfig, steps_per_epoch: int) -> int:
    """Optimizer steps of the whole training."""
    steps = recipe.epochs * steps_per_epoch
    return min(steps, recipe.max_steps) if recipe.max_steps else steps


def build_optimizer(network: nn.Module, config: OptimizerConfig) -> Optimizer:
    """A timm optimizer by name. Without `decay_norms_and_biases`, parameters of one dimension are not decayed.

    Raises:
        UserError: if timm does not know the name, or cannot build it here.
    """
    known = [str(each) for each in list_optimizers()]
    if config.name not in known:
        raise UserError(f"recipe.optimizer.name={config.name} is not an optimizer of timm{nearest(config.name, known)}")
    try:
        return create_optimizer_v2(
            network,
            opt=config.name,
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            filter_bias_and_bn=not config.decay_norms_and_biases,
        )
    except Exception as error:  # a library or a device that it needs: timm asserts, or fails to import
        raise UserError(f"recipe.optimizer.name={config.name} cannot be built here: {error}") from error
