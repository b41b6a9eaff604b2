"""ImageDataModule: the loaders of one rank. uint8 pixels cross the processes; normalisation is on the device."""

import math
import os
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from resnext.config import DataConfig, RecipeConfig
from resnext.data.augment import Transform, build_eval_transform, build_train_transform, normalize
from resnext.data.decode import decode_image
from resnext.data.index import ImageIndex
from resnext.data.order import RankBatches, RankImages, Sample, derive_seed

MAX_WORKERS = 16
MAX_EVAL_BATCH = 128

Batch = tuple[Tensor, Tensor]  # images uint8 [N, H, W, 3] or float32 [N, 3, H, W], targets int64 [N]


class ImageDataModule(LightningDataModule):
    """Training and validation images of a run.

    Args:
        data, recipe: their slices of the configuration.
        train, val: the images of the splits.
        seed: the run's; the order and everything random in a sample follow from it.
    """

    def __init__(self, data: DataConfig, recipe: RecipeConfig, train: ImageIndex, val: ImageIndex, seed: int) -> None:
        super().__init__()
        self.data, self.recipe, self.seed = data, recipe, seed
        self.train, self.val = train, val
        self.train_transform = build_train_transform(recipe, data)
        self.eval_transform = build_eval_transform(recipe.evaluation, recipe.eval_image_size)

    def train_dataloader(self) -> "TrainLoader":
        assert self.trainer is not None
        batches = RankBatches(
            self.seed,
            len(self.train),
            self.recipe.batch_size,
            self.trainer.global_rank,
            self.trainer.world_size,
            self.trainer.accumulate_grad_batches,
        )
        return TrainLoader(ImageDataset(self.train, self.train_transform, self.seed), batches, **self._loading())

    def val_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        world_size = self.trainer.world_size
        return DataLoader(
            ImageDataset(self.val, self.eval_transform),
            batch_size=min(MAX_EVAL_BATCH, math.ceil(self.recipe.batch_size / world_size)),
            sampler=RankImages(len(self.val), self.trainer.global_rank, world_size),
            **self._loading(),
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        images, targets = batch
        return normalize(images, self.data), targets

    def _loading(self) -> dict[str, Any]:
        assert self.trainer is not None
        workers = count_workers(self.data, self.trainer.num_devices)
        return {
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": self.trainer.strategy.root_device.type == "cuda",
            "worker_init_fn": _one_thread_per_worker,
        }


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Sample → pixels uint8 [H, W, 3] and label.

    With a `seed`, everything random in a sample follows from (seed, epoch, image, copy).
    """

    def __init__(self, index: ImageIndex, transform: Transform, seed: int | None = None) -> None:
        self.index, self.transform, self.seed = index, transform, seed

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, sample: Sample) -> tuple[Tensor, int]:
        image = decode_image(self.index.path(sample.image))
        if self.seed is not None:
            _seed_everything(derive_seed(self.seed, *sample))
        pixels = np.array(self.transform(image))  # a copy: torch wants to own writable memory
        return torch.from_numpy(pixels), int(self.index.labels[sample.image])


class TrainLoader(DataLoader[Any]):
    """A DataLoader over RankBatches that Lightning can save and seek.

    The position is counted when the trainer receives a batch, not when a worker prefetches it, and is reset where an
    iteration begins, because a checkpoint is also written after the last batch of an epoch.
    """

    def __init__(self, dataset: ImageDataset, batches: RankBatches, **loading: Any) -> None:
        super().__init__(dataset, batch_sampler=batches, **loading)
        self.batches = batches
        self.received = 0
        self._resume_at = 0

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A generator: it asks for the first batch only after Lightning has announced the epoch."""
        self.batches.start = self.received = self._resume_at
        self._resume_at = 0
        for batch in super().__iter__():
            self.received += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"step": self.received // self.batches.accumulation}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._resume_at = state["step"] * self.batches.accumulation


def count_workers(data: DataConfig, devices: int) -> int:
    """Loader processes of one rank: `data.workers`, or its share of the cores."""
    if data.workers is not None:
        return data.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_WORKERS, max(1, cores // devices))


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _one_thread_per_worker(_worker: int) -> None:
    torch.set_num_threads(1)
