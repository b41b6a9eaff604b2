"""`resnext check` on a set-up that works, and on many that do not: the verdict, and the line that says what to do."""

import json
import os
import re
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from resnext.__main__ import run_verb
from resnext.check.trial import OutOfMemory
from resnext.models.factory import build_model

KEYS = (
    *("experiment=image_folder", "data.root=images", "logger=csv", "trainer=cpu", "trainer.precision=32-true"),
    *("model=resnext_small", "recipe.batch_size=8", "recipe.lr_batch_size=8", "recipe.image_size=32"),
    *("recipe.epochs=2", "recipe.schedule.warmup_epochs=0", "data.workers=0"),
)


class Machine:
    """Instead of the process that trains: 1 MB for the network and 1 MB for each image, and three speeds."""

    def __init__(self, megabytes: float = 1000) -> None:
        self.usable_bytes = 1e6 * megabytes

    def ask(self, function: str, micro: int, *_: Any) -> Any:
        if function == "peak_bytes":
            if (taken := 1_000_000 * (1 + micro)) > self.usable_bytes:
                raise OutOfMemory
            return taken, 0.01
        return {"loader_speed": 400.0, "step_speed": 100.0, "training_speed": 90.0}[function]


def picture(number: int) -> Image.Image:
    colors = np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(colors).resize((40, 40), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes with 12 training and 3 validation images each."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(30):
        folder = root / ("train" if number < 24 else "val") / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / f"{number:02}.png")
    return root


@pytest.fixture
def images(photos: Path) -> Path:
    return Path(shutil.copytree(photos, "images"))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr("resnext.check.check.trial", lambda *_: nullcontext(made))
    return made


def checked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and what --json prints."""
    code = run_verb(["check", *KEYS, *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def findings(report: dict[str, Any], level: str) -> list[str]:
    return [
        f"{each['subject']}: {each['text']}: {each['remedy']}" for each in report["findings"] if each["level"] == level
    ]


def test_a_set_up_that_works(images: Path, machine: Machine, capsys: pytest.CaptureFixture[str]):
    """2 epochs of 24 images at 90 a second, and 2 × 6 forward passes at three times 100."""
    code, report = checked(capsys, "--price-per-hour", "36")
    assert (code, report["verdict"], findings(report, "fail"), findings(report, "warn")) == (0, "ok", [], [])
    assert report["images_per_sec"] == {"loader": 400.0, "step": 100.0, "together": 90.0}
    assert report["hours"] == pytest.approx((48 / 90 + 12 / 300) / 3600)
    assert report["price"] == pytest.approx(36 * report["hours"])
    assert (report["memory_bytes"], report["micro_batch_size"], report["largest_micro_batch_size"]) == (9_000_000, 8, 8)
    assert sorted(path.name for path in Path().iterdir()) == ["images"]  # nothing is written


def test_what_is_printed_fits_a_terminal(images: Path, machine: Machine, capsys: pytest.CaptureFixture[str]):
    assert run_verb(["check", *KEYS, "recipe.lr_batch_size=256"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "ok   W&B       disabled; metrics.csv has all metrics"
    assert any(
        line.startswith("warn recipe    recipe.optimizer.lr=") and "batches of 256, not of 8" in line for line in lines
    )
    assert lines[-1] == "verdict        the training can start; read the warnings first (1 warning)"


def wrong_folder(images: Path) -> list[str]:
    return ["data.root=elsewhere"]


def unreadable_file(images: Path) -> list[str]:
    (images / "train/cat/01.png").write_text("no image")
    return []


def missing_class(images: Path) -> list[str]:
    return ["data.num_classes=3"]


def batch_that_does_not_divide(images: Path) -> list[str]:
    return ["trainer.micro_batch_size=3"]


def weights_of_another_network(images: Path) -> list[str]:
    torch.save({"state_dict": {"conv1.weight": torch.zeros(3)}}, "other.pt")
    return ["model.weights=other.pt"]


def batch_larger_than_the_data(images: Path) -> list[str]:
    return ["recipe.batch_size=64"]


def one_class(images: Path) -> list[str]:
    for split in ("train", "val"):
        shutil.rmtree(images / split / "dog")
    return []


def unknown_key(images: Path) -> list[str]:
    return ["recipe.optimizer.lrr=1"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (wrong_folder, "images: data.root=.*/elsewhere does not exist: give the folder that holds train/CLASS/"),
        (unreadable_file, r"files: 1 of 30 images cannot be read, the first is .*cat/01.png \(.*\): replace or remove"),
        (missing_class, "images: data.num_classes=3, but .* has 2 classes; give data.num_classes=2"),
        (batch_that_does_not_divide, "training: recipe.batch_size=8 is not a multiple of 3 .*micro_batch_size=2 or 4"),
        (weights_of_another_network, "training: model.weights=.*other.pt does not fit model.name=resnext"),
        (batch_larger_than_the_data, "training: recipe.batch_size=64 is more than the 24 training images.*=16 or less"),
        (one_class, "classes: .*train has one class, cat: give at least two folders of classes"),
        (unknown_key, "configuration: .*lrr.*lr"),
    ],
)
def test_a_set_up_that_cannot_work(change: Any, said: str, images: Path, machine: Machine, capsys):
    code, report = checked(capsys, *change(images))
    assert (code, report["verdict"]) == (1, "fail")
    (found,) = findings(report, "fail")
    assert re.match(said, found), found


def test_leaks_and_a_class_with_one_image_are_warnings(images: Path, machine: Machine, capsys):
    shutil.copy(images / "train/cat/01.png", images / "val/cat/leaked.png")
    for path in sorted((images / "train/dog").iterdir())[1:]:
        path.unlink()
    code, report = checked(capsys)
    assert (code, report["verdict"]) == (0, "warn")
    few, skewed, leaked = findings(report, "warn")
    assert few.startswith("classes: 1 class has fewer than 10 training images, the fewest 1 (dog): add images")
    assert skewed.startswith(
        "classes: the largest class has 12 training images and the smallest 1: recipe.loss.class_w"
    )
    assert leaked.startswith(
        "leaks: 1 image is in training and validation (val/cat/leaked.png is train/cat/01.png): remove"
    )


def test_too_large_a_batch_names_the_largest_that_fits(images: Path, machine: Machine, capsys):
    """A micro-batch of 8 images would take 9 MB, of 4 images 5 MB."""
    machine.usable_bytes = 6e6
    code, report = checked(capsys)
    (found,) = findings(report, "fail")
    assert found == (
        "memory: a micro-batch of 8 images needs 9 MB, and 6 MB of this machine are free: "
        "trainer.micro_batch_size=4 fits, and the global batch stays the same"
    )
    assert (code, report["memory_bytes"], report["largest_micro_batch_size"]) == (1, 9_000_000, 4)
    assert "images_per_sec" not in report


def test_no_space_and_no_permission(images: Path, machine: Machine, capsys, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(".")._replace(free=1000)
    monkeypatch.setattr("resnext.check.machine.shutil.disk_usage", lambda _path: usage)
    code, report = checked(capsys)
    (found,) = findings(report, "fail")
    assert (code, found.endswith("and runs/ has 1 kB free: free space, or link runs/ to another disk")) == (1, True)

    def refuse(folder: Path) -> None:
        raise PermissionError(13, os.strerror(13), str(folder))

    monkeypatch.setattr("resnext.check.machine.check_writable", refuse)
    (found,) = findings(checked(capsys)[1], "fail")
    assert "cannot be written" in found
    assert found.endswith("make it writable, or start in another folder")


def test_the_batch_of_a_slurm_job_is_divided_among_its_ranks(images: Path, machine: Machine, capsys):
    (found,) = findings(checked(capsys, "slurm.nodes=3", "slurm.tasks_per_node=1")[1], "fail")
    assert found.startswith("training: recipe.batch_size=8 cannot be divided among 3 devices")
    code, report = checked(capsys, "slurm.nodes=2", "trainer.nodes=2", "slurm.tasks_per_node=1")
    assert (code, report["micro_batch_size"]) == (0, 4)


def test_the_network_is_built_once_for_several_devices(images: Path, machine: Machine, capsys, monkeypatch):
    built = Mock(wraps=build_model)
    monkeypatch.setattr("resnext.training.parts.build_model", built)
    code, report = checked(capsys, "trainer.devices=2")
    assert (code, report["micro_batch_size"], built.call_count) == (0, 4, 1)


def test_wrong_flags_are_refused(capsys: pytest.CaptureFixture[str]):
    for arguments, said in (
        (["-m", "seed=1,2"], "this command checks one training: leave out -m"),
        (["--price-per-hour", "cheap"], "cheap is not a price: give a number"),
    ):
        assert run_verb(["check", *arguments]) == 2
        assert said in capsys.readouterr().err


def test_the_page_has_the_flags(capsys: pytest.CaptureFixture[str]):
    assert run_verb(["check", "--help"]) == 0
    printed = capsys.readouterr().out
    assert all(flag in printed for flag in ("--full", "--price-per-hour", "--json", "--config-dir"))


@pytest.mark.processes
def test_real_steps_are_measured(images: Path, capsys: pytest.CaptureFixture[str]):
    code, report = checked(capsys, "recipe.ema.decay=0.9")
    assert (code, report["verdict"]) == (0, "ok")
    assert report["images_per_sec"]["loader"] > report["images_per_sec"]["together"] > 0
    assert report["memory_bytes"] > 100e6  # torch alone takes more
    assert report["largest_micro_batch_size"] == 8
