"""Real steps of a training, for their memory and their speed: its own network, optimizer, images and Trainer."""

import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from resnext.callbacks.ema import WeightEma
from resnext.config.schema import Config
from resnext.data.datamodule import ImageDataModule
from resnext.runtime.world import World
from resnext.training.fit import build_datamodule, build_task
from resnext.training.parts import Parts
from resnext.training.plan import TrainingPlan
from resnext.training.trainer import build_trainer

WARMUP = 2  # batches that are not timed: compilation, choice of kernels, prefetched batches
BATCHES = 200  # enough for any time that is asked for
ALONE = World(0, 1)


class Steps:
    """Steps of `config` in this process, with micro-batches of any size. Its `auto` values must be resolved."""

    def __init__(self, config: Config, parts: Parts) -> None:
        recipe, size = config.recipe, max(config.recipe.train_image_sizes())
        evaluation = replace(recipe.evaluation, image_size=recipe.eval_image_size, metrics=())
        recipe = replace(recipe, image_size=size, image_size_schedule=(), max_steps=None, evaluation=evaluation)
        self.config, self.parts = replace(config, recipe=recipe), parts
        self.gpu = config.trainer.accelerator == "gpu"

    def peak_bytes(self, micro: int) -> tuple[int, float]:
        """The most memory that two steps take, and the seconds of the second one. Linux; elsewhere 0 bytes."""
        reset_peak(gpu=self.gpu)
        times = self._fit(micro, _Repeated, batches=2, seconds=0.0)
        return read_peak(gpu=self.gpu), times[-1]

    def loader_speed(self, micro: int, seconds: float) -> float:
        """Images per second of the DataLoader alone."""
        plan = self._plan(micro)
        with _datamodule(plan, ImageDataModule) as datamodule:
            datamodule.trainer = _trainer(plan, [])
            loader, clock = datamodule.train_dataloader(), _Clock(seconds, gpu=False)
            loader.check = None
            while not any(clock.tick() for _ in loader):  # an epoch may have few batches
                pass
        return micro / _mean(clock.times)

    def step_speed(self, micro: int, seconds: float) -> float:
        """Images per second of forward, backward and optimizer step on a batch that is there already."""
        return micro / _mean(self._fit(micro, _Repeated, BATCHES, seconds))

    def training_speed(self, micro: int, seconds: float) -> float:
        """Images per second of loader and steps together."""
        return micro / _mean(self._fit(micro, ImageDataModule, BATCHES, seconds))

    def _fit(self, micro: int, kind: type[ImageDataModule], batches: int, seconds: float) -> list[float]:
        """Trains until `batches` batches or `seconds` are over. Returns the seconds of each batch after the first."""
        clock = _Clock(seconds, gpu=self.gpu, batches=batches)
        average = [WeightEma(self.config.recipe)] if self.config.recipe.ema.decay else []
        plan = self._plan(micro)
        with _datamodule(plan, kind) as datamodule:
            _trainer(plan, [*average, clock]).fit(build_task(plan), datamodule)
        return clock.times

    def _plan(self, micro: int) -> TrainingPlan:
        """One device, whose share of the global batch is one micro-batch."""
        recipe = replace(self.config.recipe, batch_size=micro)
        config = replace(self.config, recipe=recipe, trainer=replace(self.config.trainer, micro_batch_size=None))
        return TrainingPlan(config, self.parts, config.split_batch(1))


def _trainer(plan: TrainingPlan, callbacks: list[Callback]) -> Trainer:
    return build_trainer(plan.config, ALONE, Path(), callbacks=callbacks, loggers=[])


@contextmanager
def _datamodule(plan: TrainingPlan, kind: type[ImageDataModule]) -> Iterator[ImageDataModule]:
    with tempfile.TemporaryDirectory(prefix="resnext-") as folder:
        yield build_datamodule(plan, Path(folder, "skipped.txt"), kind)


class _Repeated(ImageDataModule):
    """The first batch of the training, again and again."""

    def train_dataloader(self) -> Any:
        self.data = replace(self.data, workers=0)
        loader = super().train_dataloader()
        loader.check = None  # it would read the files of all images, in the background
        return _Batches(next(iter(loader)))


class _Batches:
    """Lightning would take a list for several loaders."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self) -> Iterator[Any]:
        return itertools.repeat(self.batch, BATCHES)


class _Clock(Callback):
    """Takes the time from batch to batch, and ends the training after `seconds` or `batches`."""

    def __init__(self, seconds: float, *, gpu: bool, batches: int = BATCHES) -> None:
        self.seconds, self.gpu, self.batches = seconds, gpu, batches
        self.times: list[float] = []
        self._began = self._mark = 0.0

    def tick(self) -> bool:
        """Call it after each batch. Returns whether it was the last one."""
        if self.gpu:
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._mark:
            self.times.append(now - self._mark)
        self._mark, self._began = now, self._began or now
        done = len(self.times) + 1
        return done >= self.batches or (done > WARMUP + 1 and now - self._began > self.seconds)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.tick():
            trainer.should_stop = True


def _mean(times: list[float]) -> float:
    steady = times[WARMUP:] or times
    return sum(steady) / len(steady)


def reset_peak(*, gpu: bool) -> None:
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def read_peak(*, gpu: bool) -> int:
    """The most bytes since `reset_peak`: of the GPU, or of this process."""
    if gpu:
        return torch.cuda.max_memory_reserved()
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
    return 0
