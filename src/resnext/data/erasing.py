"""Random erasing (Zhong et al. 2017): workers draw timm's boxes, and the device erases them in a whole batch.

The boxes are a few numbers per image, and depend only on the sample's seed. `erase` calls the same number of operations
for a batch as for one image, and does not wait for the device. It only compares and copies, so its result is
bit-identical on every device. It copies noise from one fixed pool of normal numbers, because the random generators of
CPUs and GPUs draw different numbers.
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

# timm's defaults; AREA is the range of a box's area, as a fraction of the image's area
AREA = (0.02, 1 / 3)
LOG_RATIO = (math.log(0.3), math.log(1 / 0.3))
ATTEMPTS = 10
NO_BOX = Box(0, 0, 0, 0)
POOL = 2**22  # numbers, 16 MiB: 28 images of 224 pixels


class Erasing(NamedTuple):
    """The erased boxes of an image, or of a batch (with one more dimension in front).

    Attributes:
        boxes: int64 [count, 4]: the fields of a Box; all zeros for no box.
        colors: float32 [count, 3], for the mode rand.
        noise: start of the image's noise in the pool, for the mode pixel; int64 in a batch.
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
    """Fills the boxes of normalised images, float32 [N, 3, H, W]. `mode`: const (0), rand (a colour) or pixel (noise).

    The images are processed as rows of 3 · W values, which is their channels-last memory layout. They are overwritten:
    allocating new memory would take longer than all other work.
    """
    _, channels, height, width = images.shape
    rows = images.permute(0, 2, 3, 1).flatten(2)
    boxes = _masks(erasing.boxes, height, width, channels)
    if mode == "rand":
        for box, color in zip(
            boxes.unbind(1), erasing.colors.unbind(1), strict=True
        ):  # in order: a later box is on top
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
    """The noise of each image, in the shape of `rows`."""
    length = rows[0].numel()
    windows = _pool(length, rows.device).unfold(0, length, 1)  # a view: window i begins at number i
    return windows.index_select(0, starts).view(rows.shape)


@functools.cache
def _pool(window: int, device: torch.device) -> Tensor:
    """POOL normal numbers on the device, followed by their first `window` numbers."""
    pool = _normal_numbers()
    repeated = pool.repeat(1 + math.ceil(window / POOL))
    return repeated[: POOL + window].to(device)


@functools.cache
def _normal_numbers() -> Tensor:
    """float32 [POOL]: the normal quantiles of numpy's raw draws, which are the same in every version of numpy."""
    draws = np.random.PCG64(0).random_raw(POOL) >> np.uint64(32)
    return torch.special.ndtri((torch.from_numpy(draws.astype(np.float64)) + 0.5) / 2**32).float()
