"""The command in its own process, and two ranks under torchrun."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from resnext.run.metrics import read_rows
from resnext.runtime.checkpoint import read_checkpoint
from support.small_run import write_images

pytestmark = pytest.mark.processes

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


def test_an_odd_number_of_validation_images_on_two_ranks(resnext, tmp_path: Path):
    """With batch norm: the ranks use rank 0's statistics, and an evaluation in one process has the same accuracy."""
    write_images(tmp_path / "images", {"train/a": 40, "train/b": 40, "val/a": 20, "val/b": 11})
    options = (
        "data=image_folder",
        "recipe=small",
        f"data.root={tmp_path}/images",
        "recipe.epochs=2",
        "recipe.batch_size=16",
    )
    train(resnext, *options, "trainer.devices=2", "run=two")
    summary = json.loads((tmp_path / "runs/two/summary.json").read_text())
    assert summary["val_images"] == 31
    result = resnext("evaluate", "runs/two", "--checkpoint", "last", "--devices", "1")
    assert f"top-1   {100 * summary['last']['val/top1']:.2f} %" in result.stdout
    assert "31 images" in result.stdout


@pytest.mark.parametrize(("devices", "signum", "code"), [(1, signal.SIGINT, 130), (2, signal.SIGTERM, 143)])
def test_a_signal_saves_and_resume_ends_bit_identical(
    resnext, digits: Path, tmp_path: Path, devices: int, signum: int, code: int
):
    options = [f"data.root={digits}", f"trainer.devices={devices}", "trainer.micro_batch_size=16", "recipe.epochs=4"]
    train(resnext, *options, "run=whole")
    process = subprocess.Popen(
        [sys.executable, "-m", "resnext", "train", *TINY, *options, "run=parts"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    )
    wait_for_steps(tmp_path / "runs/parts/metrics.csv", 5)
    process.send_signal(signum)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == code, output
    assert output.count("interrupted after") == 1
    said = "SIGTERM: stopping; the training is saved" if devices > 1 else "saving after this step; Ctrl-C again stops"
    assert output.count(said) == output.count("after this step") == 1
    assert "`make resume RUN=runs/parts` continues the run" in output
    assert "Traceback" not in output
    assert "distributed/elastic" not in output
    step = read_checkpoint(tmp_path / "runs/parts/checkpoints/last.ckpt").step
    assert 5 <= step < 4 * 22
    assert f"interrupted after {step} steps" in output
    assert json.loads((tmp_path / "runs/parts/summary.json").read_text())["status"] == "interrupted"

    resumed = resnext("resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "finished  88 steps" in resumed.stdout
    whole, parts = (tmp_path / f"runs/{name}" for name in ("whole", "parts"))
    assert (whole / "metrics.csv").read_text() == (parts / "metrics.csv").read_text()
    weights, others = (
        torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in (whole, parts)
    )
    assert all(torch.equal(value, others[name]) for name, value in weights.items())


@pytest.mark.parametrize("devices", [1, 2])
def test_the_second_of_two_starts_names_the_training_process(resnext, digits: Path, tmp_path: Path, devices: int):
    options = [f"data.root={digits}", f"trainer.devices={devices}", "recipe.epochs=400", "run=x"]
    arguments = [sys.executable, "-m", "resnext", "train", *TINY, *options]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, cwd=tmp_path)
    try:
        wait_for_steps(tmp_path / "runs/x/metrics.csv", 1)
        for second in (resnext("train", *TINY, *options), resnext("resume", "runs/x")):
            assert second.returncode == 2
            assert second.stderr.count("\n") == 1
            assert "runs/x is being trained by process" in second.stderr
    finally:
        process.terminate()
        assert process.wait(timeout=120) == 143


def test_resume_without_a_name_finishes_the_latest(resnext, digits: Path, tmp_path: Path):
    train(resnext, f"data.root={digits}", "recipe.max_steps=3", "run=done")
    train(resnext, f"data.root={digits}", "recipe.max_steps=3", "run=open")
    summary = tmp_path / "runs/open/summary.json"
    summary.write_text(summary.read_text().replace("finished", "interrupted"))
    result = resnext("resume", "data.workers=1")
    assert result.returncode == 0, result.stderr
    assert "finished  3 steps" in result.stdout
    assert json.loads(summary.read_text())["status"] == "finished"
    assert (tmp_path / "runs/open/starts/2.yaml").exists()
    assert not (tmp_path / "runs/done/starts/2.yaml").exists()
    refused = resnext("resume", "runs/open", "recipe.optimizer.lr=0.2")
    assert refused.returncode == 2
    assert "runs/open is another run: recipe.optimizer.lr was 0.1 and is now 0.2" in refused.stderr


def test_only_the_rank_with_the_mistake_prints_it(resnext, tmp_path: Path):
    """One rank reads the damaged image, and the other rank loses its peer."""
    write_images(tmp_path / "images", {"train/a": 8, "train/b": 8, "val/a": 2})
    (tmp_path / "images/train/a/0.png").write_bytes(b"broken")
    options = (
        "data=image_folder",
        "recipe=small",
        f"data.root={tmp_path}/images",
        "recipe.batch_size=16",
        "trainer.devices=2",
    )
    result = train(resnext, *options, "run=broken", code=2)
    assert result.stderr.count("\n") == 1
    assert "train/a/0.png cannot be read as an image" in result.stderr
    assert json.loads((tmp_path / "runs/broken/summary.json").read_text())["status"] == "failed"


def test_fewer_validation_images_than_ranks_are_refused(resnext, tmp_path: Path):
    write_images(tmp_path / "images", {"train/a": 8, "train/b": 8, "val/a": 1})
    options = (
        "data=image_folder",
        "recipe=small",
        f"data.root={tmp_path}/images",
        "recipe.batch_size=16",
        "trainer.devices=2",
    )
    result = train(resnext, *options, "run=few", code=2)
    assert "has 1 image, and each of the 2 ranks needs one: add images, or use fewer devices" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_a_refused_resume_leaves_the_run_as_it_was(resnext, digits: Path, tmp_path: Path):
    train(resnext, f"data.root={digits}", "recipe.max_steps=3", "run=x")
    for override in ("trainer.devices=1000", "trainer.micro_batch_size=7", "trainer.accelerator=gpu"):
        refused = resnext("resume", "runs/x", override)
        assert refused.returncode == 2, refused.stdout
        assert refused.stderr.count("\n") == 1
    assert [path.name for path in (tmp_path / "runs/x/starts").iterdir()] == ["1.yaml"]
    assert resnext("resume", "runs/x").returncode == 0


def test_evaluation_names_a_damaged_image(resnext, tmp_path: Path):
    write_images(tmp_path / "images", {"train/a": 8, "train/b": 8, "val/a": 2})
    options = (
        "data=image_folder",
        "recipe=small",
        f"data.root={tmp_path}/images",
        "recipe.batch_size=16",
        "recipe.epochs=1",
    )
    train(resnext, *options, "run=x")
    (tmp_path / "images/val/a/0.png").write_bytes(b"broken")
    result = resnext("evaluate", "runs/x", "data.workers=1")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "val/a/0.png cannot be read as an image" in result.stderr


def wait_for_steps(metrics: Path, count: int) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if len(read_rows(metrics)) >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"{metrics} has not got {count} rows; files: {os.listdir(metrics.parent.parent)}")
