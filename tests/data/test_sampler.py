"""The training order is a pure function of seed and position."""

import subprocess
import sys

import numpy as np
import pytest

from resnext.data.sampler import (
    RankBatches,
    RankImages,
    Sample,
    derive_seed,
    derive_seeds,
    epoch_order,
    global_batch,
    steps_per_epoch,
)
from resnext.errors import UserError


def test_an_epoch_is_a_permutation():
    order = epoch_order(seed=1, epoch=2, size=1000)
    assert sorted(order.tolist()) == list(range(1000))


def test_epochs_and_seeds_differ():
    orders = [epoch_order(seed, epoch, 1000).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_is_uniform():
    """Each image is equally likely at each position: 8 images, 4000 epochs, chi-squared with 49 degrees of freedom."""
    counts = np.zeros((8, 8))
    for epoch in range(4000):
        counts[np.arange(8), epoch_order(0, epoch, 8)] += 1
    assert ((counts - 500) ** 2 / 500).sum() < 85.4  # the 99.9th percentile


def test_the_order_never_changes():
    """Pins the values: a run that is resumed with another numpy must use the same images."""
    assert epoch_order(seed=0, epoch=0, size=10).tolist() == [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]


def test_the_order_is_the_same_in_another_process():
    code = "from resnext.data.sampler import *; print(epoch_order(3, 4, 20).tolist(), derive_seed(1, 2, 3))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == f"{epoch_order(3, 4, 20).tolist()} {derive_seed(1, 2, 3)}"


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("accumulation", [1, 2, 4])
@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_global_batches_do_not_depend_on_ranks_or_accumulation(world_size: int, accumulation: int, repeats: int):
    assert global_batches(world_size, accumulation, repeats) == global_batches(1, 1, repeats)


def test_repeated_augmentation_uses_each_image_three_times():
    """An epoch of 192 samples has the first 64 images of the order, as copies 0, 1 and 2, as in DeiT's sampler."""
    order = epoch_order(seed=0, epoch=0, size=200)
    samples = [pair for step in range(3) for pair in zip(*map(list, global_batch(order, step, 64, 3)), strict=True)]
    assert sorted(samples) == sorted((image, copy) for image in order[:64] for copy in range(3))


@pytest.mark.parametrize("world_size", [4, 8])
def test_the_copies_of_an_image_are_on_different_ranks(world_size: int):
    images, _ = global_batch(epoch_order(0, 0, 200), step=1, batch_size=64, repeats=3)
    for rank in images.reshape(world_size, -1):
        assert len(set(rank.tolist())) == len(rank)


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_rank_can_start_at_any_micro_batch(repeats: int):
    batches = RankBatches(seed=0, size=100, batch_size=32, rank=1, world_size=2, accumulation=2, repeats=repeats)
    batches.set_epoch(3)
    whole = list(batches)
    for start in range(len(batches) + 1):
        batches.start = start
        assert list(batches) == whole[start:]


def test_each_epoch_drops_a_different_remainder():
    left_out = []
    for epoch in range(2):
        batches = RankBatches(seed=0, size=100, batch_size=32, rank=0, world_size=1, accumulation=1)
        batches.set_epoch(epoch)
        seen = {sample.image for batch in batches for sample in batch}
        assert len(seen) == 96
        left_out.append(set(range(100)) - seen)
    assert left_out[0] != left_out[1]


def test_a_data_set_smaller_than_one_batch_is_refused():
    with pytest.raises(UserError, match=r"recipe.batch_size=32 is more than the 20 training images.*batch_size=16"):
        steps_per_epoch(20, 32)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_evaluation_assigns_each_image_to_one_rank(world_size: int):
    ranks = [list(RankImages(10, rank, world_size)) for rank in range(world_size)]
    assert sorted(sample.image for rank in ranks for sample in rank) == list(range(10))


def test_each_part_of_the_position_changes_the_seed():
    positions = [(0, 1, 2, 0), (1, 1, 2, 0), (0, 2, 2, 0), (0, 1, 3, 0), (0, 1, 2, 1), (0, 2, 1, 0)]
    assert len({derive_seed(*position) for position in positions}) == len(positions)


def test_the_seeds_of_a_position_never_change_and_spread_evenly():
    """Pins the values. For 4,096 positions, each of the 32 bits is set half the time, within five sigma."""
    assert derive_seeds(2, 0, 1, 2, 3) == (842985185, 3948400032)
    assert derive_seed(0, 1, 2, 3) == 2706768171
    seeds = np.array([derive_seed(0, 0, image, 0) for image in range(4096)])
    ones = (seeds[:, None] >> np.arange(32) & 1).sum(0)
    assert np.abs(ones - 2048).max() < 5 * 32


def global_batches(world_size: int, accumulation: int, repeats: int) -> list[list[tuple[int, int]]]:
    """The images and copies of each global batch in epoch 5, in order of rank and micro-step."""
    batches: list[list[tuple[int, int]]] = [[] for _ in range(steps_per_epoch(200, 64))]
    for rank in range(world_size):
        sampler = RankBatches(0, 200, 64, rank, world_size, accumulation, repeats)
        sampler.set_epoch(5)
        for position, batch in enumerate(sampler):
            assert all(isinstance(sample, Sample) and sample.epoch == 5 for sample in batch)
            batches[position // accumulation] += [(sample.image, sample.copy) for sample in batch]
    return batches
