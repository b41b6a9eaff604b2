"""The learning-rate schedule of a recipe. Imports no torch."""

from typing import Literal, Self

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from resnext.config.types import STRICT, NonNegative, Positive


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScheduleConfig:
    """The learning rate over the training: a linear warm-up, then one of timm's schedules.

    `name`: timm's name of the schedule. `warmup_epochs`: the length of the warm-up. `warmup_lr`: the learning rate at
    its first step. `warmup_prefix`: whether the schedule starts when the warm-up ends; if false, it starts at the first
    step and the warm-up replaces its beginning. `hold_epochs`: epochs of constant learning rate after the warm-up.
    `cooldown_epochs`: number of final epochs at min_lr, included in recipe.epochs; recipe.max_steps shortens them
    first. `decay_epochs`: step multiplies by decay_rate each time; wsd and rsqrt decay over the last of these epochs.
    `decay_rate`: the factor of step and multistep, and the power of poly. `milestones`: the epochs at which multistep
    multiplies by decay_rate. `min_lr`: cosine, tanh and poly reach it one step after the last step. `every`: update the
    learning rate at every optimizer step, or once at the start of each epoch.
    """

    name: Literal["constant", "step", "multistep", "cosine", "tanh", "poly", "wsd", "rsqrt"] = "cosine"
    warmup_epochs: NonNegative = 0.0
    warmup_lr: NonNegative = 0.0
    warmup_prefix: bool = True
    hold_epochs: NonNegative = 0.0
    cooldown_epochs: NonNegative = 0.0
    decay_epochs: Positive = 30.0
    decay_rate: Positive = 0.1
    milestones: tuple[Positive, ...] = ()
    min_lr: NonNegative = 0.0
    every: Literal["step", "epoch"] = "step"

    @model_validator(mode="after")
    def _check_decay(self) -> Self:
        if (self.name == "multistep") != bool(self.milestones):
            raise ValueError("recipe.schedule.milestones is for recipe.schedule.name=multistep, which requires it")
        if self.name in ("wsd", "rsqrt") and self.every == "epoch" and self.decay_epochs < 1:
            raise ValueError(
                f"recipe.schedule.decay_epochs={self.decay_epochs:g} must be 1 or more with recipe.schedule.every=epoch"
            )
        if self.decay_rate > 1 and self.name in ("step", "multistep"):
            raise ValueError(f"recipe.schedule.decay_rate={self.decay_rate:g} raises the learning rate: give 1 or less")
        if self.cooldown_epochs and self.name not in ("cosine", "tanh", "poly"):
            raise ValueError(
                f"recipe.schedule.cooldown_epochs={self.cooldown_epochs:g} needs a schedule that ends at min_lr: "
                f"set recipe.schedule.name to cosine, tanh or poly, not {self.name}"
            )
        return self
