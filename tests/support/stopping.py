"""Small trainings, and the points at which a test stops them. For several processes, see ranks.py."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from resnext.config.schema import Config
from resnext.data.images import load_images
from resnext.data.index import identify_data
from resnext.run.directory import Run
from resnext.training import fit as fit_module
from support.small_run import small_config

IMAGES = {"train/a": 30, "train/b": 36, "val/a": 11, "val/b": 10}  # 4 steps of 16 an epoch, 2 images left over
EPOCHS, STEPS = 3, 4

# (hook, optimizer steps done when it is called): the hook in which the signal comes
STOPS = {
    "mid-epoch": ("on_train_batch_start", 5),
    "before validation": ("on_train_batch_start", 7),  # this is the last step of the epoch
    "in validation": ("on_validation_start", 8),
    "after validation": ("on_validation_end", 8),
}

OPTIMIZERS = {"sgd": {"name": "sgd", "lr": 0.05}, "lamb": {"name": "lamb", "lr": 0.01, "weight_decay": 0.02}}
FEATURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "all": {
        "drop_path_rate": 0.2,
        "ema": {"decay": 0.9},
        "mixing": {"mixup_alpha": 0.2, "cutmix_alpha": 1.0},
        "augmentation": {"auto_augment": "rand-m5-mstd0.5", "erasing": 0.3},
    },
}


def build_run(
    root: Path,
    name: str,
    *,
    optimizer: str,
    features: str,
    micro: int | None,
    workers: int,
    devices: int = 1,
    batch: int = 16,
    **changes: object,
) -> Run:
    """`changes` are keys of the configuration with `__` instead of the dot."""
    recipe = {f"recipe__{key}": value for key, value in FEATURES[features].items()}
    config = small_config(
        root,
        run=name,
        recipe__epochs=EPOCHS,
        recipe__batch_size=batch,
        recipe__optimizer=OPTIMIZERS[optimizer],
        **recipe,
        trainer__micro_batch_size=micro,
        trainer__devices=devices,
        data__workers=workers,
        **changes,
    )
    return make_run(config)


def make_run(config: Config) -> Run:
    return Run.create(config, identify_data(*load_images(config.data)), ["test"])


class Stopper(Callback):
    """Sends this process one signal, in a hook, after the given number of optimizer steps."""

    def __init__(self, hook: str, steps: int, signum: int = signal.SIGINT) -> None:
        self.steps, self.signum = steps, signum
        self._sent = False
        setattr(self, hook, self._stop)

    def _stop(self, trainer: Any, *_arguments: object) -> None:
        if trainer.global_step == self.steps and not self._sent:
            self._sent = True
            os.kill(os.getpid(), self.signum)


@contextmanager
def with_callbacks(*added: Callback) -> Iterator[None]:
    """Adds these callbacks to the trainer of every fit, before its own callbacks."""
    build = fit_module.build_trainer

    def build_with(*arguments: Any, callbacks: list[Callback], **options: Any) -> Any:
        return build(*arguments, callbacks=[*added, *callbacks], **options)

    fit_module.build_trainer = build_with
    try:
        yield
    finally:
        fit_module.build_trainer = build


@contextmanager
def recorded(images: type, path: Path) -> Iterator[None]:
    """Writes a line to `path` for each sample that this process reads: epoch, image."""
    read = images.__getitem__

    def read_and_note(self: Any, sample: Any) -> Any:
        with open(path, "a") as file:
            print(sample.epoch, sample.image, file=file)
        return read(self, sample)

    images.__getitem__ = read_and_note
    try:
        yield
    finally:
        images.__getitem__ = read
