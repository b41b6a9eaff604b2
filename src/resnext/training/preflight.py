"""Checks arithmetic, devices, names and weights before a run directory is made or a start is added to it."""

import math

import torch
from torch import nn

from resnext.config.recipe import RecipeConfig
from resnext.config.schema import Config, TrainerConfig
from resnext.data.index import ImageIndex, check_enough
from resnext.data.sampler import steps_per_epoch
from resnext.errors import UserError
from resnext.run.directory import Run
from resnext.runtime.checkpoint import find_positions
from resnext.runtime.device import count_devices, resolve_auto
from resnext.runtime.slurm_job import is_slurm_rank
from resnext.task.optimization import lr_at
from resnext.training.parts import Parts, build_parts


def check_before_run(config: Config, train: ImageIndex, val: ImageIndex) -> Parts | None:
    """Raises UserError for anything that would end the training on this machine before its first step.

    Returns the parts that it built, for a training in this process. Returns None if torchrun starts the ranks: each
    rank builds its own parts.
    """
    ranks = count_ranks(config.trainer)
    parts = build_checked_parts(config, train, val, ranks)
    return parts if ranks == 1 and not config.trainer.max_restarts else None


def count_ranks(config: TrainerConfig) -> int:
    """The processes of a training on this machine. Raises UserError if this command cannot start them."""
    if is_slurm_rank():
        raise UserError(
            "this command is for one process, but srun started several: `resnext slurm` submits a run as a job"
        )
    if config.nodes > 1:
        raise UserError(f"trainer.nodes={config.nodes}: this command trains on one machine; use trainer.nodes=1")
    return count_devices(config)


def build_checked_parts(config: Config, train: ImageIndex, val: ImageIndex, ranks: int) -> Parts:
    """Raises UserError for anything that would end the training of all `ranks` before its first step."""
    config.split_batch(ranks)
    lr_at(0, config.recipe, steps_per_epoch(len(train), config.recipe.batch_size))
    check_enough(val, ranks)
    resolve_auto(config.trainer)
    parts = build_parts(config, train, val)
    _check_image_sizes(config.recipe, parts)
    return parts


def check_epochs(run: Run, config: Config, train: ImageIndex) -> None:
    """Raises UserError for fewer epochs than the run has done."""
    asked, positions = config.recipe.epochs, find_positions(run.checkpoints, run.mark)
    done = positions[0].step / steps_per_epoch(len(train), config.recipe.batch_size) if positions else 0
    if asked < done and asked < run.config.recipe.epochs:
        raise UserError(f"recipe.epochs={asked}: {run.path} is at epoch {done:.4g}; give {math.ceil(done)} or more")


def _check_image_sizes(recipe: RecipeConfig, parts: Parts) -> None:
    name, teacher = parts.model.name, parts.teacher
    for size in {recipe.eval_image_size, *recipe.train_image_sizes()}:
        _check_image_size(f"model.name={name}", parts.network, size)
    if teacher is not None:
        for size in recipe.train_image_sizes():
            _check_image_size(f"recipe.teacher.name={recipe.teacher.name}", teacher.network, size)


def _check_image_size(key: str, network: nn.Module, size: int) -> None:
    """Leaves the network unchanged: evaluation mode changes no batch statistics and draws no random numbers."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, size, size))
    except Exception as error:  # timm's networks raise errors of many types for a wrong size
        raise UserError(f"{key} does not take images of {size} pixels: {error}") from error
    finally:
        for module, training in modes:
            module.training = training
