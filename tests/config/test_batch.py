"""The global batch divides evenly, or an error names the nearest sizes that do."""

from pathlib import Path

import pytest

from resnext.config.batch import BatchSplit, describe_split, describe_steps, split_batch
from resnext.errors import UserError
from support.small_run import small_config


@pytest.mark.parametrize(
    ("micro", "world_size", "accumulation"),
    [(None, 1, 1), (None, 8, 1), (32, 8, 1), (8, 8, 4), (256, 1, 1), (64, 1, 4), (1, 4, 64)],
)
def test_micro_times_world_times_accumulation_is_the_global_batch(
    micro: int | None, world_size: int, accumulation: int
):
    split = split_batch(256, micro, world_size)
    assert split.accumulation == accumulation
    assert split.micro * world_size * split.accumulation == 256


@pytest.mark.parametrize(
    ("micro", "world_size", "remedy"),
    [
        (None, 3, "recipe.batch_size=256 cannot be divided among 3 devices; the nearest sizes that can: 255 or 258"),
        (48, 2, "trainer.micro_batch_size=32 or 64, or recipe.batch_size=192 or 288"),
        (512, 1, "trainer.micro_batch_size=128 or 256, or recipe.batch_size=512"),
        (8, 3, "the nearest that work: recipe.batch_size=240 or 264"),
    ],
)
def test_an_uneven_split_is_refused_with_the_nearest_sizes(micro: int | None, world_size: int, remedy: str):
    with pytest.raises(UserError) as error:
        split_batch(256, micro, world_size)
    assert remedy in str(error.value)


def test_mixing_needs_two_images_per_micro_batch(tmp_path: Path):
    config = small_config(tmp_path, recipe__mixing={"cutmix_alpha": 1.0})
    assert config.split_batch(16).micro == 2
    with pytest.raises(UserError, match=r"recipe.mixing mixes .* 32 devices: set trainer.micro_batch_size=2 or more"):
        config.split_batch(32)
    assert small_config(tmp_path).split_batch(32).micro == 1


def test_one_is_singular():
    assert describe_steps(1, 1, 1) == "1 = 1 epoch × 1"
    assert describe_steps(2400, 1200, 2) == "2,400 = 1,200 epochs × 2"
    assert describe_split(BatchSplit(1, 1), 1) == "1 = 1 image × 1 device × 1 micro-step"
