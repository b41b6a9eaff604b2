"""Mixup and CutMix of a batch with itself in reverse order: timm's arithmetic, and timm's draws for the same seed."""

from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from resnext.config.augmentation import MixingConfig


class Box(NamedTuple):
    """Rows top to bottom and columns left to right, the ends excluded."""

    top: int
    bottom: int
    left: int
    right: int


class Mix(NamedTuple):
    """How a batch is mixed: `share` of each image (and target) is its own, the rest its partner's.

    With a `box`, the partner gives those pixels whole (CutMix); without, it is blended in everywhere (mixup).
    """

    share: float
    box: Box | None = None


def draw_mix(config: MixingConfig, height: int, width: int, seed: int) -> Mix:
    """The mix of one batch of images of that many pixels; `Mix(1.0)` leaves them alone.

    numpy's RandomState keeps its stream for ever; it is drawn from on the CPU, so that no device is waited for.
    """
    random = np.random.RandomState(seed)
    if not random.rand() < config.prob:
        return Mix(1.0)
    both = config.mixup_alpha > 0 and config.cutmix_alpha > 0
    cut = bool(random.rand() < config.switch_prob) if both else config.cutmix_alpha > 0
    alpha = config.cutmix_alpha if cut else config.mixup_alpha
    share = float(random.beta(alpha, alpha))
    return _draw_cut(random, share, height, width) if cut and share < 1 else Mix(share)


def mix_images(images: Tensor, mix: Mix) -> Tensor:
    """Images float [N, 3, H, W], mixed in place."""
    if mix.box is not None:
        window = images[:, :, mix.box.top : mix.box.bottom, mix.box.left : mix.box.right]
        window.copy_(window.flip(0))
    elif mix.share < 1:
        partners = images.flip(0).mul_(1 - mix.share)
        images.mul_(mix.share).add_(partners)
    return images


def mix_targets(targets: Tensor, mix: Mix, num_classes: int) -> Tensor:
    """Labels int64 [N] → shares of the classes, float32 [N, num_classes]."""
    shares = F.one_hot(targets, num_classes).float()
    return shares * mix.share + shares.flip(0) * (1 - mix.share)


def _draw_cut(random: np.random.RandomState, share: float, height: int, width: int) -> Mix:
    """A box of 1 - `share` of the area around a point anywhere; what of it is in the image gives the true share."""
    side = np.sqrt(1 - share)
    box_height, box_width = int(height * side), int(width * side)
    y, x = random.randint(0, height), random.randint(0, width)
    top, bottom = max(y - box_height // 2, 0), min(y + (box_height + 1) // 2, height)
    left, right = max(x - box_width // 2, 0), min(x + (box_width + 1) // 2, width)
    return Mix(1 - (bottom - top) * (right - left) / (height * width), Box(top, bottom, left, right))
