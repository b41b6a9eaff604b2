"""What the tests share: a tiny image folder, and a configuration of a network that trains on it in seconds."""

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from resnext.config import Config, parse_config

if TYPE_CHECKING:
    from resnext.training.run import Run

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # tiny networks: threads cost more than they give, above all on a busy machine


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs go to ./runs, W&B's own files and cached indexes to the test's home."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded data set, written once."""
    from resnext.data.digits import prepare_digits

    root = tmp_path_factory.mktemp("data") / "digits"
    prepare_digits(root)
    return root


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Two classes, 12 training and 5 validation images of 20×16 pixels in all."""
    root = tmp_path / "images"
    write_images(root, {"train/cat": 6, "train/dog": 6, "val/cat": 3, "val/dog": 2})
    return root


def write_images(root: Path, counts: dict[str, int]) -> None:
    """Random PNG images, as many as asked for in each folder."""
    random = np.random.default_rng(0)
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = random.integers(0, 256, (16, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{number}.png")


def small_config(root: Path, **changes: object) -> Config:
    """A network of three narrow blocks on 8×8 pixels. `changes` are dotted keys with __ for the dot."""
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
    from resnext.data.index import DataIdentity
    from resnext.training.run import Run

    return Run.create(config, DataIdentity.of(*load_images(config.data)), ["test"])


def read_metrics(run: "Run") -> list[dict[str, str]]:
    with open(run.path / "metrics.csv") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def resnext(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `resnext ARGUMENTS` as a user does, in the test's folder."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "resnext", *arguments],
            cwd=tmp_path,
            env={**os.environ, "RESNEXT_DATA": str(tmp_path / "data"), **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def kill_at_file_operation(number: int) -> None:
    """Counts what changes the file system: files opened for writing, folders made, names changed or removed."""
    seen = 0

    def count(event: str, arguments: tuple) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if writes or event in ("os.mkdir", "os.rename", "os.link", "os.remove", "os.chmod", "tempfile.mkdtemp"):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
