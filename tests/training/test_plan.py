"""A training is planned once: it uses the parts that the checks before a run built, and reads no file twice."""

import builtins
import io
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.optim import Lamb

from resnext.__main__ import run_verb
from resnext.data import images as images_module
from resnext.data.crop import RandomResizedCrop
from resnext.data.images import load_images
from resnext.models.resnext import ResNeXt
from resnext.report.comparison import compare
from resnext.run.directory import Run
from resnext.runtime.world import World
from resnext.task.teacher import Teacher
from resnext.training.fit import fit
from resnext.training.parts import build_parts
from resnext.training.plan import plan_training
from resnext.training.preflight import check_before_run
from support.small_run import make_run, small_config, write_images
from support.stopping import IMAGES, Stopper, with_callbacks

ONE_OF_EACH = {"network": 1, "optimizer": 1, "teacher": 1, "teacher's network": 1, "transform": 1, "index": 1}
OVERRIDES = ["experiment=image_folder", "model=resnext_small", "recipe=small", "data.root=images", "data.workers=0"]
OVERRIDES += ["model.layers=[1,1]", "model.cardinality=2", "model.base_width=16", "model.width=64"]
OVERRIDES += ["recipe.epochs=2", "recipe.batch_size=16", "recipe.image_size=8", "recipe.ema.decay=0.9"]
OVERRIDES += ["recipe.optimizer={name:lamb,lr:0.01,momentum:null}", "recipe.drop_path_rate=0.2"]
OVERRIDES += ["recipe.teacher.name=timm/test_resnet", "recipe.teacher.weights=teacher.pt"]
OVERRIDES += ["logger.report=false"]  # it lists the images again, and draws samples with transforms of its own
OVERRIDES += ["logger.mode=disabled", "logger.every_steps=1", "trainer.accelerator=cpu", "trainer.devices=1"]


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many objects of each kind this process built."""
    counts: Counter[str] = Counter()

    def count(name: str, owner: Any, attribute: str) -> None:
        function = getattr(owner, attribute)

        def counted(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return function(*arguments, **options)

        monkeypatch.setattr(owner, attribute, counted)

    count("network", ResNeXt, "__init__")
    count("optimizer", Lamb, "__init__")
    count("teacher", Teacher, "__init__")
    count("teacher's network", timm, "create_model")
    count("transform", RandomResizedCrop, "__init__")
    count("index", images_module, "load_splits")
    return counts


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`resnext train run=NAME` in this process, on images/."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    write_images(Path("images"), IMAGES)
    torch.save(timm.create_model("test_resnet", num_classes=2).state_dict(), "teacher.pt")
    return lambda name, *more: run_verb(["train", *OVERRIDES, f"run={name}", *more])


@contextmanager
def stopped_after(steps: int) -> Iterator[None]:
    with with_callbacks(Stopper("on_train_batch_start", steps)):
        yield


class CountedFile(io.FileIO):
    """Counts the bytes that the system returns."""

    bytes_of: Counter[str]

    def readinto(self, buffer: Any) -> int | None:
        count = super().readinto(buffer)
        self.bytes_of[Path(str(self.name)).name] += count or 0
        return count

    def readall(self) -> bytes:
        data = super().readall()
        self.bytes_of[Path(str(self.name)).name] += len(data)
        return data


@pytest.fixture
def bytes_of(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """File name → the bytes that this process read of the checkpoints and of the teacher, through Python's open."""
    counts: Counter[str] = Counter()
    monkeypatch.setattr(CountedFile, "bytes_of", counts, raising=False)
    open_file = io.open

    def open_counted(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode == "rb" and str(file).endswith((".ckpt", "teacher.pt")):
            return io.BufferedReader(CountedFile(file))
        return open_file(file, mode, *arguments, **options)

    for module in (io, builtins):
        monkeypatch.setattr(module, "open", open_counted)
    return counts


def test_each_part_is_built_once_and_each_file_read_once(train: Any, counts: Counter[str], bytes_of: Counter[str]):
    """For a first start, and for a resume by `train` or by `resume`. The result is the same as with `fit` alone."""
    with stopped_after(5):
        assert train("parts") == 130
    assert counts == ONE_OF_EACH
    run = Run(Path("runs/parts"))
    files = [Path("teacher.pt"), *run.checkpoints.iterdir()]
    sizes = {path.name: path.stat().st_size for path in files}
    assert sizes.keys() == {"teacher.pt", "last.ckpt", "previous.ckpt", "best.ckpt"}
    times_read = lambda: {name: round(bytes_of[name] / size) for name, size in sizes.items()}  # noqa: E731

    resume = lambda: run_verb(["resume", "runs/parts", "checkpoint.every_minutes=60"])  # noqa: E731
    for verb, steps, code in ((lambda: train("parts"), 6, 130), (resume, 99, 0)):
        counts.clear()
        bytes_of.clear()
        with stopped_after(steps):
            assert verb() == code
        assert times_read() == {"teacher.pt": 1, "last.ckpt": 1, "best.ckpt": 1, "previous.ckpt": 0}
        assert counts == ONE_OF_EACH

    counts.clear()
    bytes_of.clear()
    whole = Run.create(replace(run.made, run="whole"), run.data_identity, ["test"])
    fit(whole)
    assert counts == ONE_OF_EACH
    assert times_read() == {"teacher.pt": 1, "last.ckpt": 0, "best.ckpt": 0, "previous.ckpt": 0}
    assert [part for part in compare(run, whole) if not part.same] == []


def test_the_checks_leave_the_parts_unchanged(image_folder: Path):
    """The checks change no batch statistics, no modes and no random numbers."""
    config = small_config(image_folder, recipe__batch_size=4, recipe__drop_path_rate=0.2)
    splits = load_images(config.data)
    fresh, state = build_parts(config, *splits), torch.get_rng_state()
    parts = check_before_run(config, *splits)
    assert torch.equal(torch.get_rng_state(), state)
    assert parts is not None
    assert all(module.training for module in parts.network.modules())
    ours, theirs = parts.network.state_dict(), fresh.network.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_each_of_several_ranks_builds_its_own_parts(image_folder: Path):
    config = small_config(image_folder, recipe__batch_size=4, trainer__devices=2)
    assert check_before_run(config, *load_images(config.data)) is None


def test_parts_without_weights_are_built_again_if_there_is_no_checkpoint(image_folder: Path):
    """`resume` leaves out model.weights, but a run that was stopped before its first save still needs them."""
    config = small_config(image_folder, recipe__batch_size=4)
    weights = build_parts(replace(config, seed=7), *load_images(config.data)).network.state_dict()
    torch.save(weights, "weights.pt")
    run = make_run(replace(config, model=replace(config.model, weights="weights.pt")))
    parts = check_before_run(config, *load_images(config.data))
    plan = plan_training(run, World(0, 1), parts)
    assert (plan.steps_done, plan.steps_per_epoch, plan.steps, plan.is_complete) == (0, 3, 6, False)
    assert all(torch.equal(value, weights[name]) for name, value in plan.parts.network.state_dict().items())
