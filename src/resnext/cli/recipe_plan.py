"""The training plan of a recipe: its batches, steps and learning rates, for `resnext recipes NAME`."""

from pathlib import Path
from typing import Any, NamedTuple

from resnext.config.batch import BatchSplit, describe_split, describe_steps
from resnext.config.describe import describe_image_sizes, describe_recipe, lr_warning
from resnext.config.schema import Config, to_dict
from resnext.data.sampler import steps_per_epoch
from resnext.models.factory import check_model_name
from resnext.report.plots import check_available, draw_lr_file
from resnext.task.lr_curve import sample_lr
from resnext.task.optimization import total_steps
from resnext.terminal import pluralize


class Plan(NamedTuple):
    """`rates` are learning rates by step; not every step is in it, but the first, the last and the highest are."""

    name: str
    config: Config
    images: int
    world_size: int
    split: BatchSplit
    steps_per_epoch: int
    steps: int
    warmup_steps: int
    rates: dict[int, float]

    @property
    def highest_step(self) -> int:
        return max(self.rates, key=self.rates.__getitem__)


def make_plan(name: str, config: Config, images: int) -> Plan:
    check_model_name(config.model.name)
    trainer, recipe = config.trainer, config.recipe
    world_size = (1 if trainer.devices == "auto" else trainer.devices) * trainer.nodes
    per_epoch = steps_per_epoch(images, recipe.batch_size)
    total = total_steps(recipe, per_epoch)
    rates, split = sample_lr(recipe, per_epoch), config.split_batch(world_size)
    warmup = min(round(recipe.schedule.warmup_epochs * per_epoch), total)
    return Plan(name, config, images, world_size, split, per_epoch, total, warmup, rates)


def describe_plan(plan: Plan) -> dict[str, str | None]:
    """Label → text; None if there is nothing to say."""
    recipe, rates, highest = plan.config.recipe, plan.rates, plan.highest_step
    peak = f"{rates[highest]:.6g} at step {highest:,} (highest), " if 0 < highest < plan.steps - 1 else ""
    described = describe_recipe(recipe)
    return {
        "recipe": plan.name,
        "source": recipe.source,
        "published": recipe.published,
        "network": plan.config.model.name,
        "images": f"{plan.images:,} of {describe_image_sizes(recipe)} pixels, evaluated at {recipe.eval_image_size}",
        "batch": describe_split(plan.split, plan.world_size, auto=plan.config.trainer.micro_batch_size == "auto"),
        "steps": describe_steps(plan.steps, recipe.epochs, plan.steps_per_epoch),
        "warm-up": pluralize(plan.warmup_steps, "step") if plan.warmup_steps else None,
        "rate": f"{rates[0]:.6g} first, {peak}{rates[plan.steps - 1]:.3g} last",
        "optimizer": described.pop("recipe"),
        **described,
        "warning": lr_warning(recipe),
    }


def to_plain(plan: Plan) -> dict[str, Any]:
    """For --json."""
    is_auto = plan.config.trainer.micro_batch_size == "auto"  # the trial of a training finds it
    rates = {"first": plan.rates[0], "highest": plan.rates[plan.highest_step], "last": plan.rates[plan.steps - 1]}
    return {
        "name": plan.name,
        "network": plan.config.model.name,
        "images": plan.images,
        "world_size": plan.world_size,
        "micro_batch_size": None if is_auto else plan.split.micro,
        "accumulation": None if is_auto else plan.split.accumulation,
        "steps_per_epoch": plan.steps_per_epoch,
        "steps": plan.steps,
        "warmup_steps": plan.warmup_steps,
        "lr": {**rates, "highest_step": plan.highest_step},
        "warning": lr_warning(plan.config.recipe),
        "recipe": to_dict(plan.config.recipe),
    }


def draw_picture(plan: Plan, path: Path) -> None:
    check_available("--picture")
    epochs = [step / plan.steps_per_epoch for step in plan.rates]
    title = f"learning rate: {plan.name}, {plan.config.model.name}, batch {plan.config.recipe.batch_size}"
    axis = f"epoch, of {pluralize(plan.steps_per_epoch, 'step')}"
    path.write_text(draw_lr_file(epochs, list(plan.rates.values()), title, axis))
