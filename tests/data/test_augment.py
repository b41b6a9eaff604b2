"""Transforms against timm's and torchvision's own."""

import random

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from torchvision.transforms import ColorJitter, functional

from conftest import small_config
from resnext.config import AugmentationConfig, EvaluationConfig
from resnext.data.augment import build_eval_transform, build_train_transform, normalize
from resnext.errors import UserError


@pytest.fixture
def photo() -> Image.Image:
    """Smooth noise, so that interpolation matters: 90×120."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((90, 120), Image.Resampling.BICUBIC)


def seed(value: int) -> None:
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


@pytest.mark.parametrize("auto_augment", [None, "rand-m7-mstd0.5-inc1", "original", "3a"])
def test_training_equals_timm(photo: Image.Image, auto_augment: str | None, tmp_path):
    augmentation = {"scale": [0.2, 1.0], "ratio": [0.8, 1.2], "hflip": 0.5, "auto_augment": auto_augment}
    augmentation["interpolation"] = "bicubic"
    config = small_config(tmp_path, recipe__augmentation=augmentation, recipe__image_size=32)
    ours = build_train_transform(config.recipe, config.data)
    theirs = timm.data.create_transform(
        32,
        is_training=True,
        use_prefetcher=True,
        scale=(0.2, 1.0),
        ratio=(0.8, 1.2),
        hflip=0.5,
        color_jitter=None,
        auto_augment=auto_augment,
        interpolation="bicubic",
        mean=config.data.mean,
        std=config.data.std,
    )
    for draw in range(20):
        seed(draw)
        ours_pixels = ours(photo)
        seed(draw)
        assert np.array_equal(ours_pixels.transpose(2, 0, 1), theirs(photo))


def test_colour_jitter_is_torchvisions_at_the_given_strength(photo: Image.Image, tmp_path):
    config = small_config(tmp_path, recipe__augmentation={"hflip": 0.0, "color_jitter": 0.4})
    plain = small_config(tmp_path, recipe__augmentation={"hflip": 0.0})
    jitter = ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4)
    ours, crop = build_train_transform(config.recipe, config.data), build_train_transform(plain.recipe, plain.data)
    for draw in range(20):
        seed(draw)
        pixels = ours(photo)
        seed(draw)
        assert np.array_equal(pixels, np.asarray(jitter(Image.fromarray(crop(photo)))))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_evaluation_is_resize_and_centre_crop(photo: Image.Image, interpolation: str):
    transform = build_eval_transform(EvaluationConfig(crop_pct=0.875, interpolation=interpolation), 56)
    resized = functional.resize(photo, [64], functional.InterpolationMode(interpolation))
    assert np.array_equal(transform(photo), np.asarray(functional.center_crop(resized, [56])))


def test_normalisation_equals_torchvision(tmp_path):
    config = small_config(tmp_path)
    images = torch.randint(0, 256, (2, 5, 6, 3), dtype=torch.uint8)
    ours = normalize(images, config.data)
    theirs = functional.normalize(images.permute(0, 3, 1, 2) / 255, config.data.mean, config.data.std)
    torch.testing.assert_close(ours, theirs)
    assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("policy", ["ran-m7", "rand-q7"])
def test_a_policy_that_timm_does_not_know(policy: str, tmp_path):
    config = small_config(tmp_path, recipe__augmentation={"auto_augment": policy})
    with pytest.raises(UserError, match=f"recipe.augmentation.auto_augment={policy} is "):
        build_train_transform(config.recipe, config.data)


def test_defaults_are_the_fields():
    """RandomResizedCrop's in torchvision and timm."""
    config = AugmentationConfig()
    assert (config.scale, config.ratio, config.hflip) == ((0.08, 1.0), (3 / 4, 4 / 3), 0.5)
