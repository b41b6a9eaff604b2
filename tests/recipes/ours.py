"""The training that our own builders make from a recipe."""

import functools
import math
from collections.abc import Callable

import numpy as np
from PIL import Image
from torch import Tensor, nn

from recipes.observation import BASE_WIDTH, CARDINALITY, CLASSES, LAYERS, Training
from recipes.transform_steps import Erasing
from resnext.config.augmentation import AugmentationConfig, EvaluationConfig, MixingConfig
from resnext.config.data import DataConfig
from resnext.config.recipe import InitConfig, RecipeConfig
from resnext.config.schema import ModelConfig
from resnext.data.augment import build_eval_transform, build_train_transform
from resnext.data.erasing import AREA, LOG_RATIO
from resnext.models.factory import build_model
from resnext.task.loss import build_loss
from resnext.task.mixing import Mix, draw_mix, mix_images, mix_targets
from resnext.task.optimization import build_optimizer, lr_at
from resnext.task.teacher import Teacher


def of_recipe(recipe: RecipeConfig, data: DataConfig, steps_per_epoch: int = 8) -> Training:
    """The training that our own builders make from `recipe`."""
    assert len(recipe.train_image_sizes()) == 1
    ema = recipe.ema
    return Training(
        epochs=math.ceil(recipe.epochs if recipe.max_steps is None else recipe.max_steps / steps_per_epoch),
        batch_size=recipe.batch_size,
        lr=recipe.lr,
        lr_batch_size=recipe.lr_batch_size or recipe.batch_size,
        lr_at=lambda step: lr_at(step, recipe, steps_per_epoch),
        optimizer=functools.partial(build_optimizer, config=recipe.optimizer),
        network=_our_network(recipe.init, recipe.drop_path_rate),
        loss=functools.partial(_our_loss, recipe),
        mix=functools.partial(_our_mix, recipe.mixing),
        train_steps=build_train_transform(recipe, data, recipe.train_image_size(0)).transforms,  # pyright: ignore
        eval_transform=_through_numpy(recipe.evaluation, recipe.eval_image_size),
        erasing=_our_erasing(recipe.augmentation),
        repeats=recipe.augmentation.repeats,
        clip_grad_norm=recipe.optimizer.clip_grad_norm,
        ema=None if recipe.ema_decay is None else (recipe.ema_decay, ema.every_steps, ema.warmup_epochs),
        teacher=recipe.teacher.name,
        steps_per_epoch=steps_per_epoch,
    )


@functools.cache
def _our_network(init: InitConfig, drop_path_rate: float) -> Callable[[], nn.Module]:
    """Returns the same object for the same arguments, so that the cache of `initial_values` recognises it."""
    model = ModelConfig(name="resnext", layers=LAYERS, cardinality=CARDINALITY, base_width=BASE_WIDTH)
    return functools.partial(build_model, model, CLASSES, drop_path_rate=drop_path_rate, init=init)


def _our_loss(recipe: RecipeConfig, logits: Tensor, labels: Tensor, lam: float, teacher_logits: Tensor) -> Tensor:
    targets = mix_targets(labels, Mix(lam), CLASSES) if recipe.mixing.on else labels
    loss = build_loss(recipe.loss)(logits, targets)
    if recipe.teacher.name is None:
        return loss
    data = DataConfig(name="imagenet", root="x")
    return Teacher(_FixedLogits(teacher_logits), recipe.teacher, data, data.mean, data.std).blend(loss, logits, logits)


class _FixedLogits(nn.Module):
    """A teacher that returns these logits for all images."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, _images: Tensor) -> Tensor:
        return self.logits


def _our_mix(config: MixingConfig, images: Tensor, seed: int) -> Tensor:
    return mix_images(images, draw_mix(config, images.shape[2], images.shape[3], seed)) if config.on else images


def _our_erasing(config: AugmentationConfig) -> Erasing | None:
    if not config.erasing:
        return None
    return Erasing(config.erasing, config.erasing_mode, config.erasing_count, (AREA, LOG_RATIO))


def _through_numpy(config: EvaluationConfig, size: int) -> Callable[[Image.Image], np.ndarray]:
    return lambda image: build_eval_transform(config, size)(np.asarray(image))
