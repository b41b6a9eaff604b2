"""A tiny image folder, and a configuration that trains on it in seconds."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from resnext.config.schema import Config, parse_config

if TYPE_CHECKING:
    from resnext.run.directory import Run
    from resnext.task.classification import ClassificationTask

RESNET = {"name": "resnext", "options": {"layers": [1, 1, 1, 1], "cardinality": 2, "base_width": 8}}


def write_images(root: Path, counts: dict[str, int]) -> None:
    """Writes random PNG images: the given number in each folder."""
    random = np.random.default_rng(0)
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = random.integers(0, 256, (16, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{number}.png")


def small_config(root: Path, **changes: object) -> Config:
    """A network of three narrow blocks on 8×8 pixels. `changes` are keys with `__` instead of the dot."""
    tree: dict = {
        "experiment": "test",
        "run": "test",
        "model": {"name": "resnext", "layers": [1, 1], "cardinality": 2, "base_width": 16, "width": 8, "stem": "cifar"},
        "data": {"name": "image_folder", "root": str(root), "workers": 0},
        "recipe": {
            "epochs": 2,
            "batch_size": 32,
            "image_size": 8,
            "optimizer": {"name": "sgd", "lr": 0.05},
            "augmentation": {"scale": [0.5, 1.0], "hflip": 0.5},
        },
        "trainer": {"accelerator": "cpu", "precision": "32-true"},
        "logger": {"mode": "disabled", "every_steps": 1},
    }
    for key, value in changes.items():
        *groups, leaf = key.split("__")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[leaf] = value
    return parse_config(tree)


def make_run(config: Config) -> "Run":
    from resnext.data.images import load_images
    from resnext.data.index import identify_data
    from resnext.run.directory import Run

    return Run.create(config, identify_data(*load_images(config.data)), ["test"])


def micro_steps_of(trainer: object) -> "ClassificationTask":
    """A task without a network that counts the micro-steps of `trainer`."""
    from torch import nn

    from resnext.task.classification import ClassificationTask

    task = ClassificationTask(nn.Identity(), small_config(Path()).recipe, seed=0, log_every_steps=1)
    task.trainer = trainer  # type: ignore[assignment]
    return task


def read_metrics(run: "Run") -> list[dict[str, str]]:
    with open(run.path / "metrics.csv") as file:
        return list(csv.DictReader(file))
