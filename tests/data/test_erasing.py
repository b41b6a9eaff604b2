"""Random erasing compared with timm's: the same boxes and distributions, and no synchronisation with the device."""

import random

import numpy as np
import pytest
import torch
from scipy import stats
from timm.data.random_erasing import RandomErasing
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import default_collate

from resnext.config.augmentation import AugmentationConfig
from resnext.data.augment import normalize
from resnext.data.erasing import POOL, Erasing, draw_erasing, erase

SIZE = 24
MODES = ["const", "rand", "pixel"]


def draw(config: AugmentationConfig, seeds: range, size: int = SIZE) -> Erasing:
    return default_collate([draw_erasing(seed, size, config) for seed in seeds])


def sevens(count: int, size: int = SIZE) -> torch.Tensor:
    """Images in the memory format that `normalize` returns: channels-last."""
    return torch.full((count, size, size, 3), 7.0).permute(0, 3, 1, 2)


def by_timm(config: AugmentationConfig, seeds: range, size: int = SIZE) -> torch.Tensor:
    eraser = RandomErasing(config.erasing, mode=config.erasing_mode, max_count=config.erasing_count, device="cpu")
    images = sevens(len(seeds), size)
    for image, seed in zip(images, seeds, strict=True):
        random.seed(seed)
        torch.manual_seed(seed)
        eraser(image)
    return images


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [8, 24, 33])
def test_boxes_equal_timms(mode: str, count: int, size: int):
    config = AugmentationConfig(erasing=0.6, erasing_mode=mode, erasing_count=count)
    seeds = range(400)
    ours, theirs = erase(sevens(400, size), draw(config, seeds, size), mode), by_timm(config, seeds, size)
    assert torch.equal(ours != 7, theirs != 7)
    if mode == "const":
        assert torch.equal(ours, theirs)
    assert 0.5 < (ours != 7).flatten(1).any(1).float().mean() < 0.7


def test_noise_of_pixels_is_standard_normal():
    """Tests 100,000 values: Kolmogorov-Smirnov distance, moments, and no correlation of neighbours or channels."""
    config = AugmentationConfig(erasing=1.0)
    images = erase(sevens(900), draw(config, range(900)), "pixel")
    values = images[images != 7].numpy()
    assert len(values) > 100_000
    assert stats.kstest(values[:100_000], "norm").pvalue > 0.001
    assert abs(values.mean()) < 5 / len(values) ** 0.5
    assert abs(values.var() - 1) < 5 * (2 / len(values)) ** 0.5
    erased = images.masked_fill(images == 7, torch.nan)
    for one, other in ((erased[..., 1:], erased[..., :-1]), (erased[:, 0], erased[:, 1])):
        both = ~(one.isnan() | other.isnan())
        assert abs(np.corrcoef(one[both], other[both])[0, 1]) < 5 / both.sum() ** 0.5


def test_noise_differs_between_images():
    config = AugmentationConfig(erasing=1.0)
    starts = draw(config, range(1000)).noise
    assert stats.kstest(starts / POOL, "uniform").pvalue > 0.001
    assert len(starts.unique()) > 990


def test_each_box_has_one_random_colour_which_is_standard_normal():
    config = AugmentationConfig(erasing=1.0, erasing_mode="rand")
    images = erase(sevens(3000), draw(config, range(3000)), "rand").permute(0, 2, 3, 1).flatten(1, 2)
    colors = torch.cat([pixels[pixels[:, 0] != 7].unique(dim=0) for pixels in images])
    assert len(colors) == (images != 7).flatten(1).any(1).sum()
    assert stats.kstest(colors.flatten().numpy(), "norm").pvalue > 0.001


def test_a_later_box_covers_an_earlier_one():
    boxes = torch.tensor([[[0, 0, 4, 4], [2, 2, 6, 6]]])
    colors = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])
    image = erase(sevens(1, 8), Erasing(boxes, colors, torch.zeros(1, dtype=torch.int64)), "rand")[0]
    assert image[:, 1, 1].tolist() == [1, 2, 3]
    assert image[:, 3, 3].tolist() == image[:, 5, 5].tolist() == [4, 5, 6]
    assert image[:, 1, 5].tolist() == [7, 7, 7]


@pytest.mark.parametrize("mode", MODES)
def test_erasing_of_an_image_does_not_depend_on_its_batch(mode: str):
    config = AugmentationConfig(erasing=1.0, erasing_mode=mode, erasing_count=2)
    whole = erase(sevens(8), draw(config, range(8)), mode)
    parts = [erase(sevens(len(part)), draw(config, part), mode) for part in (range(5), range(5, 8))]
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize("mode", MODES)
def test_the_memory_format_does_not_change(mode: str):
    config = AugmentationConfig(erasing=1.0, erasing_mode=mode)
    for images in (sevens(4), sevens(4).contiguous()):
        erased = erase(images, draw(config, range(4)), mode)
        assert erased.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(erased != 7, by_timm(config, range(4)) != 7)


class Operations(TorchDispatchMode):
    """Counts the operations on a device, and raises for one that would wait for the device."""

    WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "item", "masked_select", "_to_copy")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, _types, arguments=(), options=None):
        self.count += 1
        assert function.overloadpacket.__name__ not in self.WAITS, f"{function} waits for the device"
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_takes_as_many_operations_as_one_image_and_does_not_wait(mode: str):
    config = AugmentationConfig(erasing=1.0, erasing_mode=mode, erasing_count=2)
    erase(sevens(1), draw(config, range(1)), mode)  # makes the pool, once per process
    counts = []
    for images in (1, 64):
        batch, pixels = draw(config, range(images)), sevens(images)
        with Operations() as operations:
            erase(pixels, batch, mode)
        counts.append(operations.count)
    assert counts[0] == counts[1] < 40


@pytest.mark.parametrize("mode", MODES)
def test_the_operations_do_not_depend_on_values(mode: str):
    """They run on the meta device, which has no values."""
    config = AugmentationConfig(erasing=1.0, erasing_mode=mode)
    batch = Erasing(*(tensor.to("meta") for tensor in draw(config, range(4))))
    erased = erase(torch.empty(4, SIZE, SIZE, 3, device="meta").permute(0, 3, 1, 2), batch, mode)
    assert erased.shape == (4, 3, SIZE, SIZE)


def test_normalised_images_are_overwritten_in_place(tmp_path):
    """A batch has no second copy in memory."""
    from support.small_run import small_config

    images = normalize(torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8), small_config(tmp_path).data)
    erased = erase(images, draw(AugmentationConfig(erasing=1.0), range(2)), "pixel")
    assert erased.data_ptr() == images.data_ptr()
