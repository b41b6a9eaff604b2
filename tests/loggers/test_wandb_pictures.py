"""The pictures in a W&B run: once after any number of starts, and with no effect on the training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wandb
from PIL import Image

from resnext.errors import Interrupted
from resnext.report.comparison import compare
from resnext.run.directory import Run
from resnext.task.classification import ClassificationTask
from resnext.training.fit import fit
from support.fake_wandb import serving
from support.small_run import write_images
from support.stopping import IMAGES, Stopper, build_run, with_callbacks
from support.wandb_files import read_pictures

NAMES = {"report/first_batch", "report/validation"}


pytestmark = pytest.mark.usefixtures("wandb_stopped")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", IMAGES)
    return tmp_path / "images"


def make(images: Path, name: str, mode: str = "offline", **changes: object) -> Run:
    options = {"optimizer": "sgd", "features": "all", "micro": 8, "workers": 0}
    return build_run(images, name, **options, logger__mode=mode, **changes)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What the network gets in training, one tensor for each micro-batch."""
    batches: list[torch.Tensor] = []
    forward = ClassificationTask.forward

    def record(self: Any, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            batches.append(images.clone())
        return forward(self, images)

    monkeypatch.setattr(ClassificationTask, "forward", record)
    return batches


def test_after_stops_the_newest_folder_has_the_pictures_once_and_the_weights_are_those_without_pictures(
    images: Path, seen: list[torch.Tensor]
):
    run, silent = make(images, "a"), make(images, "b", mode="disabled")
    for steps in (3, 7):
        with pytest.raises(Interrupted), with_callbacks(Stopper("on_train_batch_start", steps)):
            fit(run)
    fit(run)
    first = seen[0]
    fit(silent)
    assert [part.name for part in compare(run, silent) if not part.same] == []

    folder = (run.path / "wandb/latest-run").resolve()
    pictures = read_pictures(folder)
    assert [(name, step) for name, step, _ in pictures] == [(name, 0) for name in sorted(NAMES)]
    sheet = {name: value for name, _, value in pictures}
    assert (sheet["report/first_batch"]["count"], sheet["report/validation"]["count"]) == (8, 16)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (run.config.data.mean, run.config.data.std))
    for path, tensor in zip(sheet["report/first_batch"]["filenames"], first, strict=True):
        expected = (tensor * std + mean).mul(255).clamp(0, 255).permute(1, 2, 0).numpy()
        assert np.abs(np.asarray(Image.open(folder / "files" / path)) - expected).max() <= 0.5 + 1e-3
    assert len(list((run.path / "wandb").glob("offline-run-*"))) == 2  # of three starts


def test_an_online_run_gets_the_pictures_once(images: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef" * 2 + "01234567")
    run = make(images, "a", mode="auto")
    with serving() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        with pytest.raises(Interrupted), with_callbacks(Stopper("on_train_batch_start", 5)):
            fit(run)
        wandb.teardown()
        fit(run)
        wandb.teardown()
        assert set(server.steps("train/loss")) == set(range(1, 13))
        assert [server.steps(name) for name in sorted(NAMES)] == [[0], [0]]


def test_a_picture_that_cannot_be_made_is_one_warning(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("no picture")

    monkeypatch.setattr("resnext.training.pictures.see_batch", fail)
    run = make(images, "a", recipe__max_steps=1)
    fit(run)
    lines = capsys.readouterr().out.splitlines()
    assert [each for each in lines if "W&B gets" in each] == ["warning: W&B gets no pictures: RuntimeError: no picture"]
    assert run.summary["status"] == "finished"
    assert read_pictures((run.path / "wandb/latest-run").resolve()) == []


def test_pictures_can_be_turned_off(images: Path):
    run = make(images, "a", recipe__max_steps=1, logger__pictures=False)
    fit(run)
    folder = (run.path / "wandb/latest-run").resolve()
    assert read_pictures(folder) == []
    assert not (folder / "files/media").exists()
