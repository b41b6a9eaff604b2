"""Transforms from an image to uint8 pixels, on timm's and torchvision's, and normalisation on the device."""

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import auto_augment_transform, rand_augment_transform
from timm.data.transforms import RandomResizedCropAndInterpolation, str_to_pil_interp
from torch import Tensor
from torchvision import transforms

from resnext.config import AugmentationConfig, DataConfig, EvaluationConfig, RecipeConfig
from resnext.config_errors import nearest
from resnext.errors import UserError

Transform = Callable[[Image.Image], np.ndarray]


def build_train_transform(recipe: RecipeConfig, data: DataConfig) -> Transform:
    """Random resized crop, flip and `auto_augment` or colour jitter: RGB image → uint8 [size, size, 3].

    Raises:
        UserError: if timm does not know `recipe.augmentation.auto_augment`.
    """
    config = recipe.augmentation
    steps: list[Callable[..., object]] = [
        RandomResizedCropAndInterpolation(recipe.image_size, config.scale, config.ratio, config.interpolation)
    ]
    if config.hflip:
        steps.append(transforms.RandomHorizontalFlip(config.hflip))
    if config.auto_augment is not None:
        steps.append(_auto_augment(config, recipe.image_size, data))
    elif config.color_jitter:
        steps.append(transforms.ColorJitter(config.color_jitter, config.color_jitter, config.color_jitter))
    return transforms.Compose([*steps, np.asarray])


def build_eval_transform(config: EvaluationConfig, image_size: int) -> Transform:
    """Resize the short side to image_size / crop_pct, then crop the centre: RGB image → uint8 [size, size, 3]."""
    resize = math.floor(image_size / config.crop_pct)
    return transforms.Compose(
        [
            transforms.Resize(resize, interpolation=transforms.InterpolationMode(config.interpolation)),
            transforms.CenterCrop(image_size),
            np.asarray,
        ]
    )


def normalize(images: Tensor, data: DataConfig) -> Tensor:
    """uint8 [N, H, W, 3] → float32 [N, 3, H, W] in the channels-last memory format, (x / 255 - mean) / std."""
    images = images.permute(0, 3, 1, 2)
    return images.float().sub_(_channels(data.mean, images.device)).div_(_channels(data.std, images.device))


@functools.cache
def _channels(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """[1, 3, 1, 1] in units of a level, copied to the device once."""
    return torch.tensor(values, device=device).mul_(255).view(1, 3, 1, 1)


def _auto_augment(config: AugmentationConfig, image_size: int, data: DataConfig) -> Callable[..., object]:
    """timm's parser of strings such as rand-m7-mstd0.5-inc1 or original-mstd0.5."""
    assert config.auto_augment is not None
    fill = tuple(round(255 * value) for value in data.mean)
    hints: dict[str, object] = {"translate_const": int(image_size * 0.45), "img_mean": fill}
    if config.interpolation != "random":
        hints["interpolation"] = str_to_pil_interp(config.interpolation)
    policies = ["rand", "original", "originalr", "v0", "v0r", "3a"]
    policy = config.auto_augment.split("-")[0]
    if policy not in policies:
        raise UserError(
            f"recipe.augmentation.auto_augment={config.auto_augment} is unknown: it begins with one of "
            f"{', '.join(policies)}{nearest(policy, policies)}"
        )
    build = rand_augment_transform if policy == "rand" else auto_augment_transform
    try:
        return build(config.auto_augment, hints)
    except (AssertionError, KeyError, ValueError) as error:
        raise UserError(
            f"recipe.augmentation.auto_augment={config.auto_augment} is not understood by timm: {error}"
        ) from error
