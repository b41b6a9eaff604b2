"""The command in a process of its own, and two ranks under torchrun."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from conftest import write_images
from resnext.training.csv_logger import read_rows

TINY = (
    "model=resnext_small",
    "model.width=8",
    "data.workers=0",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "logger=csv",
    "logger.every_steps=1",
)


def train(resnext, *arguments: str, code: int = 0):
    result = resnext("train", *TINY, *arguments)
    assert result.returncode == code, result.stdout + result.stderr
    return result


def test_two_ranks_take_the_same_global_batches_and_count_each_image_once(resnext, digits: Path, tmp_path: Path):
    """A network without batch norm, so that the split of a batch changes nothing but float summation."""
    same = ("model=resnext50_32x4d", "model.name=timm/test_convnext", "recipe.image_size=32", "recipe.max_steps=12")
    same = (*same, f"data.root={digits}", "recipe.optimizer.lr=0.01")
    for name, options in {"one": ["trainer.micro_batch_size=8"], "two": ["trainer.devices=2"]}.items():
        result = resnext("train", *TINY[2:], *same, f"run={name}", *options)
        assert result.returncode == 0, result.stdout + result.stderr
    one, two = (read_rows(tmp_path / f"runs/{name}/metrics.csv") for name in ("one", "two"))
    assert len(one) == len(two) == 13
    for single, double in zip(one, two, strict=True):
        assert float(single["train/loss"] or 0) == pytest.approx(float(double["train/loss"] or 0), rel=1e-4)
    weights = [
        torch.load(tmp_path / f"runs/{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("one", "two")
    ]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-3, atol=1e-5, msg=name)
    for name, world_size in (("one", 1), ("two", 2)):
        assert json.loads((tmp_path / f"runs/{name}/summary.json").read_text())["val_images"] == 360
        assert json.loads((tmp_path / f"runs/{name}/run.json").read_text())["starts"][0]["world_size"] == world_size


def test_an_odd_number_of_validation_images_on_two_ranks(resnext, tmp_path: Path):
    """With batch norm: the ranks take rank 0's statistics, and evaluation in one process finds the same accuracy."""
    write_images(tmp_path / "images", {"train/a": 40, "train/b": 40, "val/a": 20, "val/b": 11})
    options = ("data=image_folder", f"data.root={tmp_path}/images", "recipe.epochs=2", "recipe.batch_size=16")
    train(resnext, *options, "trainer.devices=2", "run=two")
    summary = json.loads((tmp_path / "runs/two/summary.json").read_text())
    assert summary["val_images"] == 31
    result = resnext("evaluate", "runs/two", "--checkpoint", "last")
    assert f"top-1 {100 * summary['last']['val/top1']:.2f} %" in result.stdout
    assert "31 images" in result.stdout


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_resume_goes_on(resnext, digits: Path, tmp_path: Path, devices: int, signum: int, code: int):
    arguments = [*TINY, f"data.root={digits}", "recipe.epochs=400", "run=x", f"trainer.devices={devices}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "resnext", "train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    )
    wait_for_steps(tmp_path / "runs/x/metrics.csv", 5)
    process.send_signal(signum)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == code, output
    assert output.count("interrupted after") == 1
    assert "`make resume RUN=runs/x` goes on" in output
    assert "Traceback" not in output
    step = torch.load(tmp_path / "runs/x/checkpoints/last.ckpt", weights_only=True)["global_step"]
    rows = read_rows(tmp_path / "runs/x/metrics.csv")
    assert step >= 5
    assert max(int(row["step"]) for row in rows if row["train/loss"]) == step
    assert f"interrupted after {step} steps" in output
    assert json.loads((tmp_path / "runs/x/summary.json").read_text())["status"] == "interrupted"


def test_resume_without_a_name_finishes_the_latest(resnext, digits: Path, tmp_path: Path):
    train(resnext, f"data.root={digits}", "recipe.max_steps=3", "run=done")
    train(resnext, f"data.root={digits}", "recipe.max_steps=3", "run=open")
    summary = tmp_path / "runs/open/summary.json"
    summary.write_text(summary.read_text().replace("finished", "interrupted"))
    result = resnext("resume", "data.workers=1")
    assert result.returncode == 0, result.stderr
    assert "all 3 steps were done already" in result.stdout
    assert json.loads(summary.read_text())["status"] == "finished"
    assert (tmp_path / "runs/open/starts/2.yaml").exists()
    refused = resnext("resume", "runs/open", "recipe.optimizer.lr=0.2")
    assert refused.returncode == 2
    assert "runs/open is another run: recipe.optimizer.lr was 0.1 and is now 0.2" in refused.stderr


def test_a_ranks_mistake_reaches_the_user_with_its_exit_code(resnext, tmp_path: Path):
    write_images(tmp_path / "images", {"train/a": 8, "train/b": 8, "val/a": 2})
    for image in (tmp_path / "images/train").glob("*/*.png"):
        image.write_bytes(b"broken")
    options = ("data=image_folder", f"data.root={tmp_path}/images", "recipe.batch_size=16", "trainer.devices=2")
    result = train(resnext, *options, "run=broken", code=2)
    assert "cannot be read as an image" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def wait_for_steps(metrics: Path, count: int) -> None:
    for _ in range(1200):
        if len(read_rows(metrics)) >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"{metrics} has not got {count} rows; files: {os.listdir(metrics.parent.parent)}")
