"""What is checked before a run directory is made, or a start of it kept: arithmetic, devices, names, weights."""

import math

import torch

from resnext.config import Config
from resnext.data.augment import build_train_transform
from resnext.data.index import ImageIndex
from resnext.data.order import steps_per_epoch
from resnext.errors import UserError
from resnext.models.factory import build_model
from resnext.task.optimization import build_optimizer
from resnext.training.checkpoint import find_latest
from resnext.training.device import count_devices, resolve_auto
from resnext.training.run import Run


def check_before_run(config: Config, train: ImageIndex, val: ImageIndex) -> None:
    """Raises UserError for whatever would end the training on this machine before its first step."""
    if config.trainer.nodes > 1:
        raise UserError(
            f"trainer.nodes={config.trainer.nodes}: this command trains on one machine; take trainer.nodes=1"
        )
    devices = count_devices(config.trainer)
    config.split_batch(devices)
    steps_per_epoch(len(train), config.recipe.batch_size)
    if len(val) < devices:
        raise UserError(f"{val.root} has {len(val)} images for trainer.devices={devices}: each needs one; add images")
    resolve_auto(config.trainer)
    build_train_transform(config.recipe, config.data)
    _check_network(config, len(train.classes))


def check_epochs(run: Run, config: Config, train: ImageIndex) -> None:
    """Raises UserError for fewer epochs than the run was made with, or than are done."""
    asked, made = config.recipe.epochs, run.made.recipe.epochs
    checkpoint = find_latest(run.checkpoints, set_aside=False)
    done = checkpoint.step / steps_per_epoch(len(train), config.recipe.batch_size) if checkpoint is not None else 0
    if asked < made:
        raise UserError(
            f"{run.path} is another run: recipe.epochs was {made} and is now {asked}; it can only be raised"
        )
    if asked < done and asked < run.config.recipe.epochs:
        raise UserError(f"recipe.epochs={asked}: {run.path} has done {done:.4g} epochs; take {math.ceil(done)} or more")


def _check_network(config: Config, num_classes: int) -> None:
    network = build_model(config.model, num_classes)
    build_optimizer(network, config.recipe.optimizer)
    for size in {config.recipe.image_size, config.recipe.eval_image_size}:
        try:
            with torch.no_grad():
                network.eval()(torch.zeros(1, 3, size, size))
        except Exception as error:  # timm's networks assert their size, or run out of pixels in many ways
            raise UserError(f"model.name={config.model.name} does not take images of {size} pixels: {error}") from error
