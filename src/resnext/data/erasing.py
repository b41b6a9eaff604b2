"""Random erasing (Zhong et al. 2017), drawn as timm draws it, in the loader process; applied to a batch on the device.

What is drawn depends on the sample's seed alone and fits in a few numbers per image. Applying it takes as many
operations for a batch as for one image, never waits for the device, and gives the same bits on every device: it only
compares and copies. Noise is a window of one pool of normal numbers, since a device's own generator would differ.
"""

import functools
import math
import random
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from resnext.config.augmentation import AugmentationConfig
from resnext.data.box import Box

AREA = (0.02, 1 / 3)  # of a box, as a share of the image; timm's defaults, as the log ratio and the attempts are
LOG_RATIO = (math.log(0.3), math.log(1 / 0.3))
ATTEMPTS = 10
NO_BOX = Box(0, 0, 0, 0)
POOL = 2**22  # numbers, 16 MiB: 28 images of 224 pixels


class Erasing(NamedTuple):
    """What is erased of an image; collated: of a batch, with one more dimension in front.

    Attributes:
        boxes: int64 [count, 4]: the fields of a Box; zeros for no box.
        colors: float32 [count, 3], for the mode rand.
        noise: where the image's noise begins in the pool, for the mode pixel; collated int64.
    """

    boxes: Tensor
    colors: Tensor
    noise: Any


def draw_erasing(seed: int, size: int, config: AugmentationConfig) -> Erasing:
    """The same boxes as timm's RandomErasing on an image [3, size, size] after `random.seed(seed)`."""
    draws, count = random.Random(seed), config.erasing_count
    boxes = _draw_boxes(draws, size, config)
    boxes += [NO_BOX] * (count - len(boxes))
    values = draws.gauss if config.erasing_mode == "rand" else _zero
    colors = [[values() for _ in range(3)] for _ in range(count)]
    return Erasing(torch.tensor(boxes), torch.tensor(colors), draws.randrange(POOL))


def erase(images: Tensor, erasing: Erasing, mode: str) -> Tensor:
    """Normalised images float32 [N, 3, H, W] with their boxes filled: const with 0, rand a colour, pixel noise.

    Images are rows of 3 · W values here, as channels-last images lie in memory, and those are overwritten: fresh memory
    would take longer than all else.
    """
    _, channels, height, width = images.shape
    rows = images.permute(0, 2, 3, 1).flatten(2)
    boxes = _masks(erasing.boxes, height, width, channels)
    if mode == "rand":
        for box, color in zip(boxes.unbind(1), erasing.colors.unbind(1), strict=True):  # a later one covers others
            torch.where(box, color.repeat(1, width)[:, None], rows, out=rows)
    elif mode == "pixel":
        torch.where(boxes.any(1), _noise(erasing.noise, rows), rows, out=rows)
    else:
        rows.masked_fill_(boxes.any(1), 0.0)
    return rows.unflatten(2, (width, channels)).permute(0, 3, 1, 2)


def _zero() -> float:
    return 0.0


def _draw_boxes(draws: random.Random, size: int, config: AugmentationConfig) -> list[Box]:
    if draws.random() > config.erasing:
        return []
    count = 1 if config.erasing_count == 1 else draws.randint(1, config.erasing_count)
    boxes = (_draw_box(draws, size, count) for _ in range(count))
    return [box for box in boxes if box is not None]


def _draw_box(draws: random.Random, size: int, count: int) -> Box | None:
    """None if no box fits in the image after ATTEMPTS tries."""
    for _ in range(ATTEMPTS):
        area = draws.uniform(*AREA) * (size * size) / count
        ratio = math.exp(draws.uniform(*LOG_RATIO))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if width < size and height < size:
            top, left = draws.randint(0, size - height), draws.randint(0, size - width)
            return Box(top, left, top + height, left + width)
    return None


def _masks(boxes: Tensor, height: int, width: int, channels: int) -> Tensor:
    """bool [N, count, height, width · channels], True inside a box."""
    top, left, bottom, right = boxes[..., None].unbind(2)
    rows = torch.arange(height, device=boxes.device)
    columns = torch.arange(width, device=boxes.device).repeat_interleave(channels, output_size=width * channels)
    in_rows, in_columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    return in_rows[..., :, None] & in_columns[..., None, :]


def _noise(starts: Tensor, rows: Tensor) -> Tensor:
    """Of the shape of the images' rows."""
    length = rows[0].numel()
    windows = _pool(length, rows.device).unfold(0, length, 1)  # a view: window i begins at number i
    return windows.index_select(0, starts).view(rows.shape)


@functools.cache
def _pool(window: int, device: torch.device) -> Tensor:
    """POOL normal numbers on the device, and their beginning again as far as a window needs it."""
    pool = _normal_numbers()
    repeated = pool.repeat(1 + math.ceil(window / POOL))
    return repeated[: POOL + window].to(device)


@functools.cache
def _normal_numbers() -> Tensor:
    """float32 [POOL]: quantiles of the normal distribution at numpy's raw draws, whose stream it keeps for ever."""
    draws = np.random.PCG64(0).random_raw(POOL) >> np.uint64(32)
    return torch.special.ndtri((torch.from_numpy(draws.astype(np.float64)) + 0.5) / 2**32).float()
