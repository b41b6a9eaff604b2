"""The sheets of training images against the tensors that the network gets in a training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resnext.config.schema import Config
from resnext.data.images import load_images
from resnext.task.classification import ClassificationTask
from resnext.training.fit import fit
from resnext.training.samples import see_batch, to_pixels
from support.small_run import make_run, small_config

AUGMENTATION = {
    "scale": [0.3, 1.0],
    "hflip": 0.5,
    "erasing": 0.9,
    "erasing_count": 2,
    "auto_augment": "rand-m9-mstd0.5",
}


def mixed(root: Path, **mixing: float) -> Config:
    """Two epochs of three steps, each of two micro-batches of 12 images; the second epoch has larger images."""
    return small_config(
        root,
        recipe__batch_size=24,
        recipe__max_steps=70,
        recipe__image_size_schedule=[[2, 12]],
        recipe__mixing=mixing,
        recipe__augmentation=AUGMENTATION,
        trainer__micro_batch_size=12,
    )


@pytest.mark.parametrize("mixing", [{"mixup_alpha": 0.8}, {"cutmix_alpha": 1.0}, {}], ids=["mixup", "cutmix", "none"])
def test_the_sheet_shows_bit_for_bit_what_the_network_gets(
    digits: Path, mixing: dict[str, float], monkeypatch: pytest.MonkeyPatch
):
    seen: dict[tuple[int, int], torch.Tensor] = {}
    forward = ClassificationTask.forward

    def record(self: Any, images: torch.Tensor) -> torch.Tensor:
        if self.training and self.global_step in (0, 59):
            seen.setdefault((self.global_step, images.shape[2]), images.clone())
        return forward(self, images)

    config = mixed(digits, **mixing)
    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTask, "forward", record)
        fit(make_run(config))
    train, _ = load_images(config.data)
    assert len(train) // 24 == 59
    for epoch, step, size in ((0, 0, 8), (1, 59, 12)):
        for shown in (4, 12, 100):  # both ends of the batch, and the whole batch
            batch = see_batch(config, train, epoch=epoch, step=step, world_size=1, shown=shown)
            expected = seen[step, size][:shown]
            assert torch.equal(batch.images, expected), (epoch, shown)
            assert (batch.mix is not None) == bool(mixing)


def test_pixels_are_those_before_the_normalisation(digits: Path):
    config = small_config(digits, recipe__augmentation={"scale": [1.0, 1.0], "ratio": [1.0, 1.0], "hflip": 0.0})
    train, _ = load_images(config.data)
    batch = see_batch(config, train, epoch=0, step=0, world_size=1, shown=4)
    shown = to_pixels(batch.images, config.data)
    files = [np.asarray(Image.open(path).convert("RGB")) for path in sorted((digits / "train").rglob("*.png"))]
    assert all(any(np.abs(file.astype(int) - one).max() <= 1 for file in files) for one in shown)
