"""Parameter groups, the optimizer, and the learning rate as a pure function of the step."""

import functools
from typing import Any

import torch
from timm.layers import RmsNorm, RmsNorm2d, SimpleNorm, SimpleNorm2d
from timm.optim import (
    create_optimizer_v2,
    get_optimizer_info,
    list_optimizers,
    param_groups_layer_decay,
    param_groups_weight_decay,
)
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from resnext.config.errors import nearest
from resnext.config.recipe import OptimizerConfig, RecipeConfig
from resnext.config.schedule import ScheduleConfig
from resnext.errors import UserError
from resnext.terminal import pluralize

NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, RmsNorm, RmsNorm2d, SimpleNorm, SimpleNorm2d),
)


def lr_at(step: int, recipe: RecipeConfig, steps_per_epoch: int) -> float:
    """The learning rate of the optimizer step `step`, counted from 0, before any layer-wise decay.

    Raises:
        UserError: if timm cannot build the schedule for this number of steps.
    """
    schedule = _build_schedule(recipe, steps_per_epoch)
    schedule.step_update(_schedule_time(step, recipe.schedule, steps_per_epoch))  # pyright: ignore[reportArgumentType]
    return float(schedule.optimizer.param_groups[0]["lr"])


def total_steps(recipe: RecipeConfig, steps_per_epoch: int) -> int:
    """Optimizer steps of the whole training."""
    steps = recipe.epochs * steps_per_epoch
    return min(steps, recipe.max_steps) if recipe.max_steps else steps


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Sets the learning rate of every group: `lr`, multiplied by the layer-wise `lr_scale` if the group has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def build_optimizer(network: nn.Module, config: OptimizerConfig) -> Optimizer:
    """A timm optimizer by name, with groups of parameters with and without weight decay.

    Raises:
        UserError: if timm does not know the name, if the optimizer does not use a given option, or if timm cannot build
            the optimizer on this machine.
    """
    known = [str(each) for each in list_optimizers()]
    if config.name not in known:
        raise UserError(f"recipe.optimizer.name={config.name} is not an optimizer of timm{nearest(config.name, known)}")
    try:
        return create_optimizer_v2(
            network,
            opt=config.name,
            lr=config.lr,
            param_group_fn=functools.partial(group_parameters, config=config),
            **_options(config),
        )
    except UserError:
        raise
    except Exception as error:  # a missing library or device: timm asserts, or fails to import
        raise UserError(f"recipe.optimizer.name={config.name} cannot be built here: {error}") from error


def group_parameters(network: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """timm's parameter groups: by weight decay, and by layer if `layer_decay` is set.

    Parameters that a timm network itself exempts, such as position embeddings, have no weight decay either.
    """
    exempt = set(getattr(network, "no_weight_decay", set)())
    options: dict[str, Any] = {
        "weight_decay": config.weight_decay,
        "no_weight_decay_list": exempt | _norm_parameters(network, config.weight_decay_on),
        "weight_decay_exclude_1d": config.weight_decay_on == "all_but_norms_and_biases",
    }
    if config.layer_decay is None:
        return param_groups_weight_decay(network, **options)
    return param_groups_layer_decay(network, layer_decay=config.layer_decay, **options)


def _norm_parameters(network: nn.Module, weight_decay_on: str) -> set[str]:
    """The names of the norm parameters that `weight_decay_on` excludes from weight decay, of any shape."""
    if weight_decay_on not in ("all_but_norms", "all_but_norms_outside_shortcuts"):
        return set()
    return {
        f"{name}.{parameter}" if name else parameter
        for name, module in network.named_modules()
        if isinstance(module, NORMS) and (weight_decay_on == "all_but_norms" or "downsample" not in name.split("."))
        for parameter, _ in module.named_parameters(recurse=False)
    }


def _options(config: OptimizerConfig) -> dict[str, Any]:
    """Momentum, betas and eps. Raises UserError for one that the optimizer does not use; timm ignores it."""
    info = get_optimizer_info(config.name)
    if info.second_order:
        raise UserError(f"recipe.optimizer.name={config.name} needs second derivatives, which are not computed here")
    names = ("momentum", "betas", "eps")
    options = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    for name in options:
        if not getattr(info, f"has_{name}"):
            raise UserError(f"recipe.optimizer.name={config.name} does not use recipe.optimizer.{name}: leave it out")
    return options


def _schedule_time(step: int, config: ScheduleConfig, steps_per_epoch: int) -> float:
    """The position in the schedule at `step`, in epochs or steps; it does not advance during `hold_epochs`."""
    unit = 1 if config.every == "epoch" else steps_per_epoch
    time = step // steps_per_epoch if config.every == "epoch" else step
    warmed_up = config.warmup_epochs * unit
    return time if time <= warmed_up else max(time - config.hold_epochs * unit, warmed_up)


@functools.lru_cache(maxsize=16)
def _build_schedule(recipe: RecipeConfig, steps_per_epoch: int) -> Scheduler:
    """timm's schedule for a dummy optimizer. Its learning rate depends only on the time, in steps or in epochs."""
    config = recipe.schedule
    per_epoch = 1 if config.every == "epoch" else steps_per_epoch
    warmup = config.warmup_epochs * per_epoch
    total = total_steps(recipe, steps_per_epoch) / (steps_per_epoch / per_epoch) - config.hold_epochs * per_epoch
    total = min(total, (recipe.epochs - config.hold_epochs - config.cooldown_epochs) * per_epoch)
    total = max(total, 1)  # the training may end during hold_epochs
    build = functools.partial(
        create_scheduler_v2,
        torch.optim.SGD([nn.Parameter(torch.zeros(1))], recipe.lr),
        sched=config.name,
        num_epochs=max(total - warmup, 1) if config.warmup_prefix else total,  # pyright: ignore[reportArgumentType]
        decay_epochs=config.decay_epochs * per_epoch,
        # + 1: timm bisects at t + 1 and would lower the learning rate one unit early
        decay_milestones=[epoch * per_epoch + 1 for epoch in config.milestones],  # pyright: ignore[reportArgumentType]
        decay_rate=config.decay_rate,
        min_lr=config.min_lr * recipe.lr_factor,
        warmup_lr=config.warmup_lr * recipe.lr_factor,
        warmup_epochs=warmup,  # pyright: ignore[reportArgumentType]
        warmup_prefix=config.warmup_prefix,
        step_on_epochs=False,
        updates_per_epoch=1,  # _schedule_time is in the schedule's own unit
    )
    try:
        schedule, _ = build()
    except ValueError as error:  # for example a decay longer than the training
        raise UserError(
            f"recipe.schedule.name={config.name} over {pluralize(recipe.epochs, 'epoch')}: {error}"
        ) from error
    assert schedule is not None
    return schedule
