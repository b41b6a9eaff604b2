"""Mixup and CutMix of a batch with itself in reverse order. The same seed gives the same result as timm."""

from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from resnext.config.augmentation import MixingConfig
from resnext.data.box import Box
from resnext.data.sampler import derive_seeds


class Mix(NamedTuple):
    """How a batch is mixed: each image and target has the weight `lam`, and its partner has 1 - `lam`.

    With a `box`, the partner's pixels replace the box (CutMix). Without a box, all pixels are blended (mixup).
    """

    lam: float
    box: Box | None = None


def micro_step_seeds(seed: int, step: int, micro_step: int, rank: int) -> tuple[int, int]:
    """Two seeds of a micro-step: for draws within the network, such as dropout, and for the mix of its batch."""
    network, mixing = derive_seeds(2, seed, step, micro_step, rank)
    return network, mixing


def draw_mix(config: MixingConfig, height: int, width: int, seed: int) -> Mix:
    """Draws the mix of one batch of images of `height` × `width` pixels. `Mix(1.0)` leaves the images unchanged.

    RandomState draws the same numbers in every version of numpy. The draws are on the CPU, so that they do not wait for
    the device.
    """
    random = np.random.RandomState(seed)
    if not random.rand() < config.prob:
        return Mix(1.0)
    both = config.mixup_alpha > 0 and config.cutmix_alpha > 0
    cut = bool(random.rand() < config.switch_prob) if both else config.cutmix_alpha > 0
    alpha = config.cutmix_alpha if cut else config.mixup_alpha
    lam = float(random.beta(alpha, alpha))
    return _draw_cut(random, lam, height, width) if cut and lam < 1 else Mix(lam)


def mix_images(images: Tensor, mix: Mix) -> Tensor:
    """Mixes images, float [N, 3, H, W], in place."""
    if mix.box is not None:
        window = images[:, :, mix.box.top : mix.box.bottom, mix.box.left : mix.box.right]
        window.copy_(window.flip(0))
    elif mix.lam < 1:
        partners = images.flip(0).mul_(1 - mix.lam)
        images.mul_(mix.lam).add_(partners)
    return images


def mix_targets(targets: Tensor, mix: Mix, num_classes: int) -> Tensor:
    """Labels int64 [N] → mixed one-hot targets, float32 [N, num_classes]."""
    shares = F.one_hot(targets, num_classes).float()
    return shares * mix.lam + shares.flip(0) * (1 - mix.lam)


def _draw_cut(random: np.random.RandomState, lam: float, height: int, width: int) -> Mix:
    """A box of 1 - `lam` of the area around a random point. Its part inside the image determines the lam of the Mix."""
    side = np.sqrt(1 - lam)
    box_height, box_width = int(height * side), int(width * side)
    y, x = random.randint(0, height), random.randint(0, width)
    top, bottom = max(y - box_height // 2, 0), min(y + (box_height + 1) // 2, height)
    left, right = max(x - box_width // 2, 0), min(x + (box_width + 1) // 2, width)
    return Mix(1 - (bottom - top) * (right - left) / (height * width), Box(top, left, bottom, right))
