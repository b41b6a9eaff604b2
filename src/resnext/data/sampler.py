"""The images of each step: pure functions of the seed and the position, independent of workers, ranks and nodes.

Each epoch has one order over the whole dataset. Global batch k is its k-th group of `batch_size` images. An incomplete
batch at the end is dropped; its images differ from epoch to epoch. Rank r takes the r-th equal part of a global batch,
and divides it into consecutive micro-batches.

With repeated augmentation (Hoffer et al. 2020) each image of the order occurs `repeats` times in a row. The epoch keeps
its number of samples, so it uses fewer images (as in DeiT and timm). In a global batch all first copies come
first, then all second copies: the copies of an image are on different ranks if there are more ranks than copies.
"""

import hashlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from resnext.errors import UserError


class Sample(NamedTuple):
    """One image of an epoch; `copy` counts its repetitions, from 0."""

    epoch: int
    image: int
    copy: int = 0


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """A permutation of range(size), int64 [size].

    Sorts raw 64-bit draws, which are the same in every version of numpy. The result of `Generator.permutation` may
    change between versions (NEP 19).
    """
    draws = np.random.PCG64(np.random.SeedSequence((seed, epoch))).random_raw(size)
    return np.argsort(draws, kind="stable")


def steps_per_epoch(size: int, batch_size: int) -> int:
    """The number of complete global batches in an epoch.

    Raises:
        UserError: if there are none.
    """
    if size < batch_size:
        raise UserError(
            f"recipe.batch_size={batch_size} is more than the {size} training images: an epoch has no step; "
            f"use recipe.batch_size={2 ** (size.bit_length() - 1)} or less, and a learning rate for it"
        )
    return size // batch_size


def global_batch(order: np.ndarray, step: int, batch_size: int, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """The images of a step and their copy numbers, both int64 [batch_size]."""
    images, copies = np.divmod(np.arange(step * batch_size, (step + 1) * batch_size), repeats)
    by_copy = np.argsort(copies, kind="stable")
    return order[images[by_copy]], copies[by_copy]


def derive_seed(*position: int) -> int:
    """A seed for the random generators at a position such as (seed, step, micro-step, rank): 32 well mixed bits."""
    return derive_seeds(1, *position)[0]


def derive_seeds(count: int, *position: int) -> tuple[int, ...]:
    """At most 16 independent seeds for the same position.

    A hash takes 1 µs. numpy's SeedSequence takes 19 µs, which is noticeable: a sample takes 700 µs.
    """
    digest = hashlib.blake2b(struct.pack(f"<{len(position)}Q", *position), digest_size=4 * count).digest()
    return struct.unpack(f"<{count}I", digest)


class RankBatches:
    """The batch sampler of one rank: its micro-batches in an epoch, starting at any position.

    Args:
        size: images in the training split.
        batch_size: the global batch, a multiple of world_size · accumulation.
        repeats: how many times an image occurs, 1 without repeated augmentation.
    """

    def __init__(
        self, seed: int, size: int, batch_size: int, rank: int, world_size: int, accumulation: int, repeats: int = 1
    ) -> None:
        assert batch_size % (world_size * accumulation) == 0, "checked by Config.split_batch"
        self.seed, self.size, self.batch_size, self.repeats = seed, size, batch_size, repeats
        self.rank, self.world_size, self.accumulation = rank, world_size, accumulation
        self.epoch = 0
        self.start = 0

    @property
    def sampler(self) -> "RankBatches":
        """Lightning calls `set_epoch` of `batch_sampler.sampler`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return steps_per_epoch(self.size, self.batch_size) * self.accumulation

    def __iter__(self) -> Iterator[list[Sample]]:
        order = epoch_order(self.seed, self.epoch, self.size)
        for position in range(self.start, len(self)):
            yield self._micro_batch(order, *divmod(position, self.accumulation))

    def _micro_batch(self, order: np.ndarray, step: int, micro_step: int) -> list[Sample]:
        images, copies = global_batch(order, step, self.batch_size, self.repeats)
        share = self.batch_size // self.world_size
        micro = share // self.accumulation
        first = self.rank * share + micro_step * micro
        mine = slice(first, first + micro)
        return [Sample(self.epoch, *pair) for pair in zip(images[mine].tolist(), copies[mine].tolist(), strict=True)]


class RankImages:
    """The sampler of one rank in evaluation: every image belongs to exactly one rank, without padding."""

    def __init__(self, size: int, rank: int, world_size: int) -> None:
        self.images = range(rank, size, world_size)

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Sample]:
        return (Sample(0, image) for image in self.images)
