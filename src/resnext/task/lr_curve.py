"""The learning rate of a whole training, at selected steps for a plot."""

import math

from resnext.config.recipe import RecipeConfig
from resnext.task.optimization import lr_at, total_steps

POINTS = 1500  # approximate maximum number of drawn steps


def sample_lr(recipe: RecipeConfig, steps_per_epoch: int) -> dict[int, float]:
    """Step → learning rate, for at most POINTS + 2 steps, with the first, the last and the first after the warm-up."""
    total = total_steps(recipe, steps_per_epoch)
    count = min(POINTS, total)
    steps = {round(index * (total - 1) / count) for index in range(count + 1)}
    warmed_up = math.ceil(recipe.schedule.warmup_epochs * steps_per_epoch)
    steps |= {warmed_up} if warmed_up < total else set()
    return {step: lr_at(step, recipe, steps_per_epoch) for step in sorted(steps)}
