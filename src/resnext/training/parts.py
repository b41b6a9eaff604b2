"""Parts: what a training is built from, without its run. A process builds them once, before the run directory exists.

Only loggers are built later, because they need the run.
"""

from dataclasses import dataclass

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.optim import Optimizer

from resnext.config.schema import Config, ModelConfig
from resnext.data.augment import Transform, build_train_transforms
from resnext.data.index import ImageIndex
from resnext.models.factory import build_model
from resnext.models.freezing import freeze
from resnext.registry import build_named
from resnext.task.loss import Loss, build_loss
from resnext.task.optimization import build_optimizer
from resnext.task.teacher import Teacher, build_teacher


@dataclass(frozen=True)
class Parts:
    """What is trained, and on which images.

    `network` is the network that `model` describes, on the CPU, not compiled, in torch's default memory format.
    `callbacks` are those of callbacks.names.
    """

    model: ModelConfig
    train: ImageIndex
    val: ImageIndex
    transforms: dict[int, Transform]
    network: nn.Module
    loss: Loss
    optimizer: Optimizer
    teacher: Teacher | None
    callbacks: list[Callback]


def build_parts(config: Config, train: ImageIndex, val: ImageIndex) -> Parts:
    """Raises UserError for the first part that cannot be built."""
    recipe, num_classes = config.recipe, len(train.classes)
    transforms = build_train_transforms(recipe, config.data)
    torch.manual_seed(config.seed)
    network = build_model(config.model, num_classes, drop_path_rate=recipe.drop_path_rate, init=recipe.init)
    freeze(network, config.model)
    return Parts(
        model=config.model,
        train=train,
        val=val,
        transforms=transforms,
        network=network,
        loss=build_loss(recipe.loss, np.bincount(train.labels, minlength=num_classes)),
        optimizer=build_optimizer(network, recipe.optimizer),
        teacher=build_teacher(recipe.teacher, num_classes, config.data),
        callbacks=build_named("callback", config.callbacks.options),
    )
