"""Random resized crops, compared with timm's boxes and Pillow's pixels."""

import random

import numpy as np
import pytest
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision import transforms

from resnext.data.crop import PadAndCrop, RandomResizedCrop, resize


@pytest.mark.parametrize("size", [(375, 500), (500, 333), (20, 900), (900, 20), (1, 1), (2, 700)])
def test_boxes_equal_timms(size: tuple[int, int]):
    height, width = size
    crop = RandomResizedCrop(224, (0.08, 1.0), (3 / 4, 4 / 3), "bilinear")
    image = Image.new("RGB", (width, height))
    for draw in range(300):
        random.seed(draw)
        box = crop.draw_box(height, width)
        random.seed(draw)
        theirs = RandomResizedCropAndInterpolation.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3))
        if min(theirs[2:]) > 0:  # timm may draw a box without pixels
            assert (box.top, box.left, box.bottom - box.top, box.right - box.left) == theirs
        assert 0 <= box.top < box.bottom <= height
        assert 0 <= box.left < box.right <= width


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pixels_are_within_45_db_of_pillows_for_the_same_boxes(interpolation: str):
    """For noise, where antialiasing matters most; smooth images differ less."""
    noise = np.random.default_rng(0).integers(0, 256, (375, 500, 3), dtype=np.uint8)
    photo = np.array(Image.fromarray(noise[:94, :125]).resize((500, 375), Image.Resampling.BICUBIC))
    random.seed(0)
    crop = RandomResizedCrop(224, (0.08, 1.0), (3 / 4, 4 / 3), "bilinear")
    for pixels in (noise, photo):
        ratios = []
        for _ in range(50):
            top, left, bottom, right = crop.draw_box(375, 500)
            ours = resize(pixels[top:bottom, left:right], 224, 224, interpolation)
            image = Image.fromarray(pixels).crop((left, top, right, bottom))
            theirs = np.asarray(image.resize((224, 224), Image.Resampling[interpolation.upper()]))
            ratios.append(10 * np.log10(255**2 / max(1e-9, np.mean((ours.astype(float) - theirs) ** 2))))
        assert np.mean(ratios) > 45
        assert min(ratios) > 45


def test_random_interpolation_uses_both_modes():
    random.seed(0)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    crop = RandomResizedCrop(20, (1.0, 1.0), (1.0, 1.0), "random")
    expected = {resize(noise, 20, 20, mode).tobytes() for mode in ("bilinear", "bicubic")}
    assert {crop(noise).tobytes() for _ in range(30)} == expected
    assert len(expected) == 2


@pytest.mark.parametrize("shape", [(32, 32), (32, 50), (48, 32)])
def test_pad_and_crop_draws_the_same_windows_as_torchvision(shape: tuple[int, int]):
    """torchvision's RandomCrop(padding, fill) with the same colour draws exactly the same set of windows."""
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    ours = PadAndCrop(32, 1, (10, 200, 30), "bilinear")
    theirs = transforms.RandomCrop(32, padding=1, fill=(10, 200, 30))
    random.seed(0)
    drawn = {ours(pixels).tobytes() for _ in range(800)}
    assert drawn == {np.asarray(theirs(Image.fromarray(pixels))).tobytes() for _ in range(800)}
    assert len(drawn) == 3 * (3 + max(shape) - 32)
