"""The recipe's transforms of uint8 pixels [height, width, 3], and the normalisation on the device.

Random transforms draw from `random`, numpy and torch. The caller seeds all three for each sample.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import augment_and_mix_transform, auto_augment_transform, rand_augment_transform
from timm.data.transforms import str_to_pil_interp
from torch import Tensor
from torchvision import transforms

from resnext.config.augmentation import AugmentationConfig, EvaluationConfig
from resnext.config.data import DataConfig
from resnext.config.errors import nearest
from resnext.config.recipe import RecipeConfig
from resnext.data.crop import PadAndCrop, RandomResizedCrop
from resnext.errors import UserError

Transform = Callable[[np.ndarray], np.ndarray]

TIMM_POLICIES = {
    "rand": rand_augment_transform,
    "augmix": augment_and_mix_transform,
    **dict.fromkeys(("original", "originalr", "v0", "v0r", "3a"), auto_augment_transform),
}
TORCHVISION_POLICIES = ("ra", "ta_wide", "augmix", "imagenet", "cifar10", "svhn")

# Eigenvectors and eigenvalues of the RGB covariance over ImageNet, for pixels in [0, 1] (Krizhevsky et al. 2012). The
# values are from fb.resnet.torch, the training code of the ResNeXt paper.
LIGHTING_VECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
LIGHTING_VALUES = np.array([0.2175, 0.0188, 0.0045])


def build_train_transforms(recipe: RecipeConfig, data: DataConfig) -> dict[int, Transform]:
    """The transform for each image size of the recipe. Raises the errors of `build_train_transform`."""
    return {size: build_train_transform(recipe, data, size) for size in recipe.train_image_sizes()}


def build_train_transform(recipe: RecipeConfig, data: DataConfig, image_size: int) -> Transform:
    """Crop, flip, `auto_augment` or colour jitter, lighting: uint8 [H, W, 3] → uint8 [image_size, image_size, 3].

    Raises:
        UserError: if neither timm nor torchvision knows `recipe.augmentation.auto_augment`.
    """
    config = recipe.augmentation
    steps: list[Transform] = [_build_crop(config, image_size, data)]
    if config.hflip:
        steps.append(functools.partial(_flip, probability=config.hflip))
    if config.auto_augment is not None:
        steps.append(_on_pillow(_build_auto_augment(config, image_size, data)))
    if config.color_jitter and (config.auto_augment is None or "3a" in config.auto_augment):  # as in timm
        steps.append(_on_pillow(transforms.ColorJitter(*[config.color_jitter] * 3)))
    if config.lighting:
        steps.append(functools.partial(add_lighting, std=config.lighting))
    return transforms.Compose(steps)


def build_eval_transform(config: EvaluationConfig, image_size: int) -> Transform:
    """Resize the short side to image_size / crop_pct, then crop the centre: torchvision's pixels, bit for bit."""
    resize = math.floor(image_size / config.crop_pct)
    steps = [
        transforms.Resize(resize, interpolation=transforms.InterpolationMode(config.interpolation)),
        transforms.CenterCrop(image_size),
    ]
    return _on_pillow(transforms.Compose(steps))


def add_lighting(pixels: np.ndarray, std: float) -> np.ndarray:
    """AlexNet's PCA noise: one shift of the colour for the whole image, rounded to uint8 levels."""
    shift = LIGHTING_VECTORS @ (np.random.normal(0, std, 3) * LIGHTING_VALUES)
    return np.clip(pixels + np.rint(255 * shift).astype(np.int16), 0, 255).astype(np.uint8)


class Normalization(Protocol):
    """The mean and the standard deviation of RGB in [0, 1]: DataConfig, or the metadata of a checkpoint."""

    @property
    def mean(self) -> tuple[float, float, float]: ...
    @property
    def std(self) -> tuple[float, float, float]: ...


def normalize(images: Tensor, levels: Normalization) -> Tensor:
    """uint8 [N, H, W, 3] → float32 [N, 3, H, W] in the channels-last memory format, (x / 255 - mean) / std."""
    images = images.permute(0, 3, 1, 2)
    return images.float().sub_(_levels(levels.mean, images.device)).div_(_levels(levels.std, images.device))


def _build_crop(config: AugmentationConfig, image_size: int, data: DataConfig) -> Transform:
    if config.pad is not None:  # pads with data.mean, rounded to uint8 levels: about 0 after normalisation
        return PadAndCrop(image_size, config.pad, _mean_color(data), _fixed(config.interpolation))
    return RandomResizedCrop(image_size, config.scale, config.ratio, config.interpolation)


def _mean_color(data: DataConfig) -> tuple[int, int, int]:
    red, green, blue = (round(255 * value) for value in data.mean)
    return red, green, blue


def _fixed(interpolation: str) -> str:
    """Replaces `random`, for transforms that take only one fixed interpolation."""
    return "bilinear" if interpolation == "random" else interpolation


def _flip(pixels: np.ndarray, probability: float) -> np.ndarray:
    """Draws the same random number as torchvision's RandomHorizontalFlip, which timm also uses."""
    return np.asarray(torch.from_numpy(pixels).flip(1)) if torch.rand(1) < probability else pixels


def _on_pillow(transform: Callable[[Image.Image], Any]) -> Transform:
    return functools.partial(_through_pillow, transform=transform)


def _through_pillow(pixels: np.ndarray, transform: Callable[[Image.Image], Any]) -> np.ndarray:
    return np.array(transform(Image.fromarray(pixels)))


def _build_auto_augment(config: AugmentationConfig, image_size: int, data: DataConfig) -> Callable[..., Any]:
    policy = config.auto_augment
    assert policy is not None
    if policy in TORCHVISION_POLICIES:
        return _build_torchvision_policy(policy, config)
    first = policy.split("-")[0]
    if first not in TIMM_POLICIES:
        known = [*TIMM_POLICIES, *TORCHVISION_POLICIES]
        raise UserError(
            f"recipe.augmentation.auto_augment={policy} is unknown: a timm policy begins with one of "
            f"{', '.join(TIMM_POLICIES)}; a torchvision policy is one of "
            f"{', '.join(TORCHVISION_POLICIES)}{nearest(first, known)}"
        )
    hints: dict[str, Any] = {
        "translate_const": int(image_size * 0.45),
        "img_mean": _mean_color(data),
    }
    if config.interpolation != "random":
        hints["interpolation"] = str_to_pil_interp(config.interpolation)
    if first == "augmix":
        hints["translate_pct"] = 0.3
    try:
        return TIMM_POLICIES[first](policy, hints)
    except (AssertionError, KeyError, ValueError) as error:
        raise UserError(f"recipe.augmentation.auto_augment={policy} is not valid for timm: {error}") from error


def _build_torchvision_policy(policy: str, config: AugmentationConfig) -> Callable[..., Any]:
    """The policy as in torchvision's classification references."""
    interpolation = transforms.InterpolationMode(_fixed(config.interpolation))
    if policy == "ra":
        return transforms.RandAugment(interpolation=interpolation)
    if policy == "ta_wide":
        return transforms.TrivialAugmentWide(interpolation=interpolation)
    if policy == "augmix":
        return transforms.AugMix(interpolation=interpolation)
    return transforms.AutoAugment(transforms.AutoAugmentPolicy(policy), interpolation=interpolation)


@functools.cache
def _levels(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """255 · `values` as [1, 3, 1, 1], copied to the device once."""
    return torch.tensor(values, device=device).mul_(255).view(1, 3, 1, 1)
