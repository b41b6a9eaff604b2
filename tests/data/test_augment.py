"""Transforms against timm's and torchvision's own, for the same random draws or by statistics over many draws."""

import random

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional

from resnext.config.augmentation import AugmentationConfig, EvaluationConfig
from resnext.data.augment import (
    LIGHTING_VALUES,
    LIGHTING_VECTORS,
    add_lighting,
    build_eval_transform,
    build_train_transform,
    normalize,
)
from resnext.errors import UserError
from support.small_run import small_config

TIMM_POLICIES = ["rand-m7-mstd0.5-inc1", "original", "3a", "augmix-m3-w2"]
TORCHVISION_POLICIES = {
    "ra": transforms.RandAugment(interpolation=transforms.InterpolationMode.BILINEAR),
    "ta_wide": transforms.TrivialAugmentWide(interpolation=transforms.InterpolationMode.BILINEAR),
    "augmix": transforms.AugMix(interpolation=transforms.InterpolationMode.BILINEAR),
    "imagenet": transforms.AutoAugment(interpolation=transforms.InterpolationMode.BILINEAR),
    "cifar10": transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10, transforms.InterpolationMode.BILINEAR),
}


@pytest.fixture
def photo() -> np.ndarray:
    """Smooth noise of 120×90 pixels, for which the interpolation matters."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    return np.array(Image.fromarray(noise).resize((90, 120), Image.Resampling.BICUBIC))


def seed(value: int) -> None:
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


def build(tmp_path, size: int = 32, **augmentation: object):
    config = small_config(tmp_path, recipe__augmentation=augmentation, recipe__image_size=size)
    return build_train_transform(config.recipe, config.data, size)


def psnr(ours: np.ndarray, theirs: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(1e-9, np.mean((ours.astype(float) - theirs) ** 2)))


@pytest.mark.parametrize("auto_augment", [None, *TIMM_POLICIES])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_training_equals_timm(photo: np.ndarray, auto_augment: str | None, interpolation: str, tmp_path):
    """Boxes, flips and operations are equal; our resize is torch's, which differs by one level in some pixels."""
    ours = build(
        tmp_path,
        scale=[0.2, 1.0],
        ratio=[0.8, 1.2],
        hflip=0.5,
        auto_augment=auto_augment,
        interpolation=interpolation,
    )
    theirs = timm.data.create_transform(
        32,
        is_training=True,
        use_prefetcher=True,
        scale=(0.2, 1.0),
        ratio=(0.8, 1.2),
        hflip=0.5,
        color_jitter=None,
        auto_augment=auto_augment,
        interpolation=interpolation,
    )
    ratios = []
    for draw in range(30):
        seed(draw)
        ours_pixels = ours(photo)
        seed(draw)
        ratios.append(psnr(ours_pixels.transpose(2, 0, 1), np.asarray(theirs(Image.fromarray(photo)))))
    # posterise and equalise enlarge a difference of one level; the other operations stay above 50 dB
    assert np.median(ratios) > 50
    assert np.mean(ratios) > 45


@pytest.mark.parametrize("policy", TORCHVISION_POLICIES)
def test_torchvisions_policies_have_its_names_and_pixels(photo: np.ndarray, policy: str, tmp_path):
    ours, plain = build(tmp_path, auto_augment=policy, hflip=0.0), build(tmp_path, hflip=0.0)
    for draw in range(20):
        seed(draw)
        pixels = ours(photo)
        seed(draw)
        theirs = TORCHVISION_POLICIES[policy](Image.fromarray(plain(photo)))
        assert np.array_equal(pixels, np.asarray(theirs))


def test_colour_jitter_equals_torchvisions(photo: np.ndarray, tmp_path):
    jitter = transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4)
    ours, plain = build(tmp_path, hflip=0.0, color_jitter=0.4), build(tmp_path, hflip=0.0)
    for draw in range(20):
        seed(draw)
        pixels = ours(photo)
        seed(draw)
        assert np.array_equal(pixels, np.asarray(jitter(Image.fromarray(plain(photo)))))


def test_flips_have_the_given_probability(photo: np.ndarray, tmp_path):
    seed(0)
    transform = build(tmp_path, scale=[1.0, 1.0], ratio=[0.75, 0.75], hflip=0.25)
    plain = build(tmp_path, scale=[1.0, 1.0], ratio=[0.75, 0.75], hflip=0.0)(photo)
    flipped = [np.array_equal(transform(photo), plain[:, ::-1]) for _ in range(2000)]
    assert abs(np.mean(flipped) - 0.25) < 5 * (0.25 * 0.75 / 2000) ** 0.5


def test_lighting_has_alexnets_covariance():
    """For grey 128: 0.1² · V diag(λ²) Vᵀ in units of 255, plus 1/12 for rounding to whole levels."""
    np.random.seed(0)
    grey = np.full((1, 1, 3), 128, np.uint8)
    shifts = np.array([add_lighting(grey, 0.1)[0, 0] for _ in range(20_000)]) - 128.0
    expected = LIGHTING_VECTORS @ np.diag((25.5 * LIGHTING_VALUES) ** 2) @ LIGHTING_VECTORS.T + np.eye(3) / 12
    assert np.abs(shifts.mean(0)).max() < 5 * np.sqrt(expected.max() / 20_000)
    np.testing.assert_allclose(np.cov(shifts.T), expected, atol=0.05 * expected.max())
    np.testing.assert_allclose(LIGHTING_VECTORS @ LIGHTING_VECTORS.T, np.eye(3), atol=2e-3)  # a rotation


def test_lighting_clips_at_black_and_white():
    np.random.seed(0)
    edges = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    lit = np.array([add_lighting(edges, 1.0) for _ in range(100)])
    assert lit[:, 0, 0].max() < 200
    assert lit[:, 0, 1].min() > 55


def test_pad_and_crop_takes_every_window_with_equal_probability(tmp_path):
    """CIFAR's 81 windows of 32 pixels in a padded image: chi-squared with 80 degrees of freedom."""
    seed(0)
    pixels = np.arange(32 * 32 * 3, dtype=np.uint32).reshape(32, 32, 3).astype(np.uint8)
    padded = np.full((40, 40, 3), (124, 116, 104), np.uint8)  # ImageNet's mean: 0.485, 0.456, 0.406 times 255
    padded[4:36, 4:36] = pixels
    windows = {padded[y : y + 32, x : x + 32].tobytes(): (y, x) for y in range(9) for x in range(9)}
    transform = build(tmp_path, pad=4, hflip=0.0)
    counts = np.zeros((9, 9))
    for _ in range(8100):
        counts[windows[transform(pixels).tobytes()]] += 1
    assert ((counts - 100) ** 2 / 100).sum() < 124.8  # the 99.9th percentile


def test_padding_equals_zeros_after_normalisation(tmp_path):
    """The paper's code normalises first and pads with zeros. We pad with CIFAR-10's mean: equal within half a level."""
    changes = {"recipe__augmentation": {"pad": 4, "hflip": 0.0}, "recipe__image_size": 32}
    config = small_config(tmp_path, **changes, data__mean=[0.4914, 0.4822, 0.4465], data__std=[0.2470, 0.2435, 0.2616])
    transform, std = build_train_transform(config.recipe, config.data, 32), torch.tensor(config.data.std).view(3, 1, 1)
    pixels = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = functional.normalize(pixels.permute(2, 0, 1) / 255, config.data.mean, config.data.std)
    theirs = functional.pad(image, [4])
    windows = {(y, x): theirs[:, y : y + 32, x : x + 32] for y in range(9) for x in range(9)}
    seen = set()
    for draw in range(300):
        seed(draw)
        ours = normalize(torch.from_numpy(transform(pixels.numpy()).copy())[None], config.data)[0]
        errors = {place: float(((ours - window).abs() * std * 255).max()) for place, window in windows.items()}
        place = min(errors, key=errors.__getitem__)
        seen.add(place)
        assert errors[place] <= 0.5 + 1e-3, place
        drawn = (slice(max(4 - place[0], 0), 36 - place[0]), slice(max(4 - place[1], 0), 36 - place[1]))
        torch.testing.assert_close(ours[:, *drawn], windows[place][:, *drawn])  # the image itself is equal
    assert len(seen) > 70


def test_pad_and_crop_resizes_the_short_side_first(photo: np.ndarray, tmp_path):
    seed(0)
    pixels = build(tmp_path, pad=0, hflip=0.0, scale=[1, 1])(photo)
    resized = np.asarray(functional.resize(Image.fromarray(photo), [32]))
    assert max(psnr(pixels, resized[top : top + 32]) for top in range(len(resized) - 31)) > 45


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_evaluation_equals_resize_and_centre_crop(photo: np.ndarray, interpolation: str):
    transform = build_eval_transform(EvaluationConfig(crop_pct=0.875, interpolation=interpolation), 56)
    resized = functional.resize(Image.fromarray(photo), [64], functional.InterpolationMode(interpolation))
    assert np.array_equal(transform(photo), np.asarray(functional.center_crop(resized, [56])))


@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 0.95, 0.965, 1.0])
def test_crop_pct_means_the_same_as_in_timm(crop_pct: float):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    transform = build_eval_transform(EvaluationConfig(crop_pct=crop_pct, interpolation="bicubic"), 224)
    theirs = timm.data.create_transform(224, crop_pct=crop_pct, interpolation="bicubic", use_prefetcher=True)
    assert np.array_equal(transform(noise).transpose(2, 0, 1), np.asarray(theirs(Image.fromarray(noise))))


def test_normalisation_equals_torchvision(tmp_path):
    config = small_config(tmp_path)
    images = torch.randint(0, 256, (2, 5, 6, 3), dtype=torch.uint8)
    ours = normalize(images, config.data)
    theirs = functional.normalize(images.permute(0, 3, 1, 2) / 255, config.data.mean, config.data.std)
    torch.testing.assert_close(ours, theirs)
    assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("policy", ["ran-m7", "rand-q7", "augmix-q3", "ta_wide-m3", "TrivialAugment"])
def test_an_unknown_policy_is_refused(policy: str, tmp_path):
    with pytest.raises(UserError, match=f"recipe.augmentation.auto_augment={policy} is "):
        build(tmp_path, auto_augment=policy)


def test_default_scale_and_ratio_equal_torchvisions():
    """RandomResizedCrop has the same defaults in torchvision and timm."""
    config = AugmentationConfig()
    assert (config.scale, config.ratio, config.hflip) == ((0.08, 1.0), (3 / 4, 4 / 3), 0.5)
