"""The mean training loss of an epoch: the mean over its images, for any position of reads, saves and ranks."""

import math
from pathlib import Path

import pytest
import torch

from resnext.run.metrics import read_rows
from resnext.task.epoch_loss import EpochLoss
from resnext.training.fit import fit
from support.small_run import make_run, small_config

CPU = torch.device("cpu")


def add_all(sums: EpochLoss, losses: list[float], images: int = 8) -> None:
    for loss in losses:
        sums.add(torch.tensor(loss), images)


def test_it_is_the_mean_over_the_images_whose_loss_is_finite():
    sums = EpochLoss()
    assert sums.mean(CPU) is None
    for loss, images in ((2.0, 3), (math.nan, 4), (4.0, 1)):
        sums.add(torch.tensor(loss), images)
    assert sums.mean(CPU) == (2.0 * 3 + 4.0 * 1) / 4
    sums.begin()
    assert sums.mean(CPU) is None


@pytest.mark.parametrize("cut", range(8))
def test_a_resume_at_any_step_gives_the_same_bits(cut: int):
    """The losses are no multiples of a power of two, so another order or another precision would change the sum."""
    losses = [math.exp(math.sin(step)) for step in range(7)]
    whole, first, second = EpochLoss(), EpochLoss(), EpochLoss()
    add_all(whole, losses)
    add_all(first, losses[:cut])
    second.load_state(first.state(CPU), rank=0, ranks=1)
    add_all(second, losses[cut:])
    assert second.mean(CPU) == whole.mean(CPU)


def test_the_sums_of_two_ranks_continue_on_one_rank():
    after = EpochLoss()
    after.load_state([[3.0, 2.0], [5.0, 2.0]], rank=0, ranks=1)
    add_all(after, [1.0], images=4)
    assert after.mean(CPU) == (3.0 + 5.0 + 4.0) / 8
    other = EpochLoss()
    other.load_state([[3.0, 2.0], [5.0, 2.0]], rank=1, ranks=3)
    assert other.state(CPU) == [[0.0, 0.0]]


def test_an_epoch_that_an_older_checkpoint_cuts_has_no_mean():
    sums = EpochLoss()
    sums.load_state(None, rank=0, ranks=1)
    add_all(sums, [1.0])
    assert sums.mean(CPU) is None
    sums.begin()
    add_all(sums, [1.0])
    assert sums.mean(CPU) == 1.0


def test_metrics_csv_has_the_mean_of_the_steps_at_the_end_of_each_epoch(digits: Path):
    """The last epoch is cut by max_steps: its mean is that of its steps. All steps have the same number of images."""
    run = make_run(small_config(digits, recipe__batch_size=359, recipe__max_steps=6, trainer__micro_batch_size=359))
    fit(run)
    rows = [row for row in read_rows(run.path / "metrics.csv") if row["train/loss"]]
    losses = [float(row["train/loss"]) for row in rows]
    means = {int(row["step"]): float(row["train/epoch_loss"]) for row in rows if row["train/epoch_loss"]}
    assert means == {4: pytest.approx(sum(losses[:4]) / 4), 6: pytest.approx(sum(losses[4:]) / 2)}
