"""What is checked before a run directory is made, or a start of it kept: arithmetic, devices, names, weights."""

import math

import torch
from torch import nn

from resnext.config.schema import Config
from resnext.data.augment import build_train_transform
from resnext.data.index import ImageIndex
from resnext.data.sampler import steps_per_epoch
from resnext.errors import UserError
from resnext.models.factory import build_model
from resnext.run.directory import Run
from resnext.runtime.checkpoint import find_latest
from resnext.runtime.device import count_devices, resolve_auto
from resnext.runtime.slurm_job import is_slurm_rank
from resnext.task.optimization import build_optimizer, lr_at
from resnext.task.teacher import build_teacher


def check_before_run(config: Config, train: ImageIndex, val: ImageIndex) -> None:
    """Raises UserError for whatever would end the training on this machine before its first step."""
    if is_slurm_rank():
        raise UserError(
            "this command is for one process, and srun starts several: `resnext slurm` makes a job of a run"
        )
    if config.trainer.nodes > 1:
        raise UserError(
            f"trainer.nodes={config.trainer.nodes}: this command trains on one machine; take trainer.nodes=1"
        )
    devices = count_devices(config.trainer)
    config.split_batch(devices)
    lr_at(0, config.recipe, steps_per_epoch(len(train), config.recipe.batch_size))
    if len(val) < devices:
        raise UserError(f"{val.root} has {len(val)} images for trainer.devices={devices}: each needs one; add images")
    resolve_auto(config.trainer)
    build_train_transform(config.recipe, config.data, config.recipe.image_size)
    _check_network(config, len(train.classes))


def check_epochs(run: Run, config: Config, train: ImageIndex) -> None:
    """Raises UserError for fewer epochs than the run was made with, or than are done."""
    asked, made = config.recipe.epochs, run.made.recipe.epochs
    checkpoint = find_latest(run.checkpoints, run.mark, set_aside=False)
    done = checkpoint.step / steps_per_epoch(len(train), config.recipe.batch_size) if checkpoint is not None else 0
    if asked < made:
        raise UserError(
            f"{run.path} is another run: recipe.epochs was {made} and is now {asked}; it can only be raised"
        )
    if asked < done and asked < run.config.recipe.epochs:
        raise UserError(f"recipe.epochs={asked}: {run.path} has done {done:.4g} epochs; take {math.ceil(done)} or more")


def _check_network(config: Config, num_classes: int) -> None:
    recipe = config.recipe
    network = build_model(config.model, num_classes, drop_path_rate=recipe.drop_path_rate, init=recipe.init)
    build_optimizer(network, recipe.optimizer)
    for size in {recipe.eval_image_size, *recipe.train_image_sizes()}:
        _check_image_size(f"model.name={config.model.name}", network, size)
    teacher = build_teacher(recipe.teacher, num_classes, config.data)
    if teacher is not None:
        for size in recipe.train_image_sizes():
            _check_image_size(f"recipe.teacher.name={recipe.teacher.name}", teacher.network, size)


def _check_image_size(key: str, network: nn.Module, size: int) -> None:
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, size, size))
    except Exception as error:  # timm's networks assert their size, or run out of pixels in many ways
        raise UserError(f"{key} does not take images of {size} pixels: {error}") from error
