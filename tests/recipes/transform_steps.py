"""Describes random transforms of pixels (ours, timm's and torchvision's) as values that can be compared."""

import functools
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment, random_erasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision import transforms

from resnext.data.augment import add_lighting
from resnext.data.crop import PadAndCrop, RandomResizedCrop

PHOTOS = [np.random.default_rng(seed).integers(0, 256, size, np.uint8) for seed, size in enumerate([(300, 400, 3)] * 2)]


@dataclass(frozen=True)
class Pad:
    """A random crop after `pad` pixels of `color` are added on each side."""

    size: int
    pad: int
    color: tuple[int, int, int]


@dataclass(frozen=True)
class Erasing:
    """Random erasing after normalisation: at most `count` boxes; `mode` is timm's."""

    prob: float
    mode: str
    count: int
    boxes: tuple[tuple[float, float], tuple[float, float]]  # ranges of the relative area and of log(aspect ratio)


def describe_step(step: Any) -> tuple[str, Any] | None:
    """Name and description of a step; None if it only changes the type of the pixels."""
    while isinstance(step, functools.partial) and "transform" in step.keywords:
        step = step.keywords["transform"]
    if isinstance(step, RandomResizedCrop | RandomResizedCropAndInterpolation | transforms.RandomResizedCrop):
        return "crop", _describe_crop(step)
    if isinstance(step, PadAndCrop):
        return "pad and crop", (step.size, step.padding, step.color)
    if isinstance(step, Pad):
        return "pad and crop", (step.size, step.pad, step.color)
    if isinstance(step, transforms.RandomHorizontalFlip):
        return "flip", step.p
    if isinstance(step, functools.partial) and "probability" in step.keywords:
        return "flip", step.keywords["probability"]
    if isinstance(step, auto_augment.RandAugment):
        return "RandAugment", _describe_rand_augment(step)
    if isinstance(step, transforms.TrivialAugmentWide):
        return "TrivialAugmentWide", {"bins": step.num_magnitude_bins, "pixels": _pixels(step)}
    if isinstance(step, transforms.ColorJitter):
        return "jitter", [step.brightness, step.contrast, step.saturation, step.hue]
    if isinstance(step, functools.partial) and step.func is add_lighting:
        return "lighting", _pixels(step, on_pillow=False)
    if isinstance(step, Lighting):
        return "lighting", _pixels(step, on_pillow=False)
    known = ("PILToTensor", "ConvertImageDtype", "Normalize", "MaybeToTensor", "MaybePILToTensor", "RandomErasing")
    assert type(step).__name__ in known, step
    return None


@dataclass(frozen=True)
class Lighting:
    """Shifts the colour of an image by the sum of vector · value · draw (in units of [0, 1]), rounded to levels."""

    std: float
    values: tuple[float, float, float]
    vectors: tuple[tuple[float, float, float], ...]

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        draws = np.random.normal(0, self.std, 3)
        shift = [sum(row[i] * draws[i] * self.values[i] for i in range(3)) for row in self.vectors]
        moved = pixels.astype(np.int16) + np.rint(255 * np.array(shift)).astype(np.int16)
        return np.clip(moved, 0, 255).astype(np.uint8)


def _describe_crop(step: Any) -> dict[str, Any]:
    size = step.size if isinstance(step.size, int) else step.size[0]
    modes = step.interpolation if isinstance(step.interpolation, tuple) else (step.interpolation,)
    names = {getattr(mode, "value", mode) for mode in modes}
    return {
        "size": size,
        "scale": tuple(step.scale),
        "ratio": tuple(step.ratio),
        "resized by": sorted({"bilinear", "bicubic"} if names == {"random"} else names),
    }


def _describe_rand_augment(step: auto_augment.RandAugment) -> dict[str, Any]:
    """Describes each operation; timm's "increasing" operations have their own names."""
    operations = {
        each.name: (each.prob, each.magnitude, each.magnitude_std, each.magnitude_max, sorted(each.hparams.items()))
        for each in step.ops
    }
    return {"layers": step.num_layers, **operations, "pixels": _pixels(step)}


def _pixels(step: Callable[[Any], Any], *, on_pillow: bool = True) -> str:
    """A digest of the transformed photos, for fixed seeds."""
    digest = hashlib.sha256()
    for seed in range(12):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        photo = PHOTOS[seed % 2][:40, :50]
        digest.update(np.asarray(step(Image.fromarray(photo) if on_pillow else photo)).tobytes())
    return digest.hexdigest()[:12]


def describe_erasing(erasing: Erasing | None) -> dict[str, Any] | None:
    if erasing is None:
        return None
    return {"probability": erasing.prob, "mode": erasing.mode, "count": erasing.count, "boxes": erasing.boxes}


def timms_erasing(step: random_erasing.RandomErasing) -> Erasing:
    mode = "rand" if step.rand_color else "pixel" if step.per_pixel else "const"
    assert step.min_count == 1
    return Erasing(step.probability, mode, step.max_count, ((step.min_area, step.max_area), step.log_aspect_ratio))
