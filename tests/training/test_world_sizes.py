"""A run on one and two ranks, with and without accumulation, has the same batches, learning rates and weights."""

import json
from pathlib import Path

import pytest
import torch

from resnext.run.metrics import read_rows

pytestmark = pytest.mark.processes

RUN = (
    "model=resnext50_32x4d",
    "model.name=timm/test_convnext",  # without batch norm, the split of a batch changes only the float summation
    "recipe.image_size=32",
    "recipe.max_steps=12",
    "recipe.schedule.warmup_epochs=0.25",
    "recipe.optimizer.lr=0.01",
    "recipe.optimizer.clip_grad_norm=0.5",
    "data.workers=0",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "logger=csv",
    "logger.every_steps=1",
)


def test_every_split_has_the_batches_rates_and_weights_of_one_rank(resnext, digits: Path, tmp_path: Path):
    runs = {}
    for size, accumulation in ((1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (2, 4)):
        name = f"{size}x{accumulation}"
        split = (f"trainer.devices={size}", f"trainer.micro_batch_size={64 // size // accumulation}")
        result = resnext("train", *RUN, f"data.root={digits}", f"run={name}", *split)
        assert result.returncode == 0, result.stdout + result.stderr
        assert f"× {size} device" in result.stdout
        assert f"× {accumulation} micro-step" in result.stdout
        runs[name] = tmp_path / "runs" / name
    whole = runs.pop("1x1")
    for name, run in runs.items():
        assert_same_up_to_summation(whole, run)
        assert json.loads((run / "summary.json").read_text())["val_images"] == 360, name
        assert json.loads((run / "run.json").read_text())["starts"][0]["world_size"] == int(name[0])


def assert_same_up_to_summation(whole: Path, run: Path) -> None:
    ours, theirs = (read_rows(each / "metrics.csv") for each in (whole, run))
    assert len(ours) == len(theirs) == 13
    assert [row["lr"] for row in ours] == [row["lr"] for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert float(one["train/loss"] or 0) == pytest.approx(float(other["train/loss"] or 0), rel=1e-4)
    weights = [torch.load(each / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for each in (whole, run)]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-3, atol=1e-5, msg=name)
