"""ImageDataModule: the loaders of one rank. uint8 pixels cross the processes; normalisation is on the device."""

import gc
import math
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from resnext.config.recipe import RecipeConfig
from resnext.config.schema import DataConfig
from resnext.data.augment import Transform, build_eval_transform, normalize
from resnext.data.cores import count_cores
from resnext.data.corrupt_images import CorruptImage, CorruptImageBudget
from resnext.data.decode import UnreadableImage
from resnext.data.erasing import Erasing, draw_erasing, erase
from resnext.data.image_check import ImageCheck
from resnext.data.index import ImageIndex, printable
from resnext.data.pack import PackedImages
from resnext.data.ram_cache import RamCache
from resnext.data.sampler import RankBatches, RankImages, Sample, derive_seeds
from resnext.data.worker_watchdog import WorkerWatchdog, carried, die_with_rank
from resnext.errors import UserError

MAX_WORKERS = 16
MAX_EVAL_BATCH = 128

Batch = tuple[Tensor, Tensor]  # images uint8 [N, H, W, 3] or float32 [N, 3, H, W], targets int64 [N]
TrainBatch = Batch | tuple[Tensor, Tensor, Erasing]  # with what is erased on the device, where the recipe erases


class ImageDataModule(LightningDataModule):
    """Training and validation images of a run.

    Args:
        data, recipe: their slices of the configuration.
        train, val: the images of the splits.
        transforms: of the training images, by their size; none are needed to validate.
        seed: the run's; the order and everything random in a sample follow from it.
        skipped: the file that lists training images which could not be read.
    """

    def __init__(
        self,
        data: DataConfig,
        recipe: RecipeConfig,
        train: ImageIndex,
        val: ImageIndex,
        transforms: dict[int, Transform],
        *,
        seed: int,
        skipped: Path,
    ) -> None:
        super().__init__()
        self.data, self.recipe, self.transforms, self.seed = data, recipe, transforms, seed
        self.train, self.val = train, val
        self.skips = CorruptImageBudget(skipped, data.max_skipped)
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
            self.recipe.augmentation.repeats,
        )
        cache = self._cache(self.train)
        images = TrainImages(self.train, cache, self.recipe, self.data, self.transforms, self.seed)
        return TrainLoader(images, batches, self.skips, self._image_check(), **self._loading())

    def val_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        world_size = self.trainer.world_size
        return ImageLoader(
            EvalImages(self.val, self._cache(self.val), self.eval_transform),
            batch_size=min(MAX_EVAL_BATCH, math.ceil(self.recipe.batch_size / world_size)),
            sampler=RankImages(len(self.val), self.trainer.global_rank, world_size),
            **self._loading(),
        )

    def on_after_batch_transfer(self, batch: TrainBatch, dataloader_idx: int) -> Batch:
        images, targets, *erasing = batch
        images = normalize(images, self.data)
        if erasing:
            images = erase(images, erasing[0], self.recipe.augmentation.erasing_mode)
        return images, targets

    def _image_check(self) -> ImageCheck | None:
        """On one rank only: the others would read the same files. A pack's were decoded when it was written."""
        assert self.trainer is not None
        if self.trainer.global_rank or isinstance(self.train, PackedImages):
            return None
        listing = self.skips.path.with_name("damaged.txt")
        return ImageCheck(self.train.root.parent, self.train, self.val, self.data.max_skipped, listing)

    def _cache(self, index: ImageIndex) -> RamCache | None:
        assert self.trainer is not None
        return RamCache(index, self.trainer.num_devices) if self.data.cache == "ram" else None

    def _loading(self) -> dict[str, Any]:
        assert self.trainer is not None
        workers = count_workers(self.data)
        gc.collect()  # a process group that an earlier fit left would hang or crash the forked process that collects it
        return {
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "worker_timeout": self.data.worker_timeout,
            "pin_memory": self.trainer.strategy.root_device.type == "cuda",
            "worker_init_fn": _prepare_worker,
        }


class ImageDataset(Dataset[Any]):
    """The images of a split; their pixels raise UnreadableImage where they cannot be read."""

    def __init__(self, index: ImageIndex, cache: RamCache | None) -> None:
        self.index, self.cache = index, cache

    def __len__(self) -> int:
        return len(self.index)

    def __getitems__(self, samples: list[Sample]) -> Any:
        """A whole batch, as DataLoader asks for it; in a loader process an error is returned in its place."""
        try:
            return self.collate([self[sample] for sample in samples])
        except Exception as error:
            if get_worker_info() is None:
                raise
            return carried(error)

    def collate(self, samples: list[tuple[Any, ...]]) -> Any:
        return default_collate(samples)

    def pixels(self, image: int) -> np.ndarray:
        return self.index.pixels(image) if self.cache is None else self.cache[image]


class EvalImages(ImageDataset):
    """Sample → pixels uint8 [size, size, 3] and label."""

    def __init__(self, index: ImageIndex, cache: RamCache | None, transform: Transform) -> None:
        super().__init__(index, cache)
        self.transform = transform

    def __getitem__(self, sample: Sample) -> tuple[Tensor, int]:
        return _transformed(self.pixels(sample.image), self.transform), int(self.index.labels[sample.image])


class TrainImages(ImageDataset):
    """Sample → pixels uint8 [size, size, 3], label, and Erasing where the recipe erases; or CorruptImage, where it may.

    Everything random in a sample follows from (seed, epoch, image, copy); its size is that of the epoch.
    """

    def __init__(
        self,
        index: ImageIndex,
        cache: RamCache | None,
        recipe: RecipeConfig,
        data: DataConfig,
        transforms: dict[int, Transform],
        seed: int,
    ) -> None:
        super().__init__(index, cache)
        self.size_at, self.seed, self.may_skip = recipe.train_image_size, seed, data.max_skipped > 0
        self.augmentation, self.transforms = recipe.augmentation, transforms

    def __getitem__(self, sample: Sample) -> tuple[Any, ...]:
        try:
            pixels = self.pixels(sample.image)
        except UnreadableImage as error:
            if not error.is_damaged:
                raise
            if self.may_skip:
                return CorruptImage(printable(self.index.relative_path(sample.image)), str(error))
            raise UserError(f"{error}; data.max_skipped=1 would leave it out") from error
        drawing, erasing = derive_seeds(2, self.seed, *sample)
        _seed_everything(drawing)
        size = self.size_at(sample.epoch)
        drawn = _transformed(pixels, self.transforms[size]), int(self.index.labels[sample.image])
        return (*drawn, draw_erasing(erasing, size, self.augmentation)) if self.augmentation.erasing else drawn

    def collate(self, samples: list[tuple[Any, ...]]) -> tuple[Any, list[CorruptImage]]:
        """The batch without what was skipped, and that."""
        skipped = [sample for sample in samples if isinstance(sample, CorruptImage)]
        kept = [sample for sample in samples if not isinstance(sample, CorruptImage)]
        if not kept:
            raise UserError(f"not one image of a batch of {len(samples)} can be read; the first: {skipped[0].reason}")
        return default_collate(kept), skipped


class ImageLoader(DataLoader[Any]):
    """A DataLoader that raises LoaderFailed where a process dies or a batch takes more than `worker_timeout` s."""

    def __init__(self, images: ImageDataset, *, worker_timeout: float, **loading: Any) -> None:
        super().__init__(images, collate_fn=_unchanged, **loading)
        self._guard = WorkerWatchdog(worker_timeout) if self.num_workers else None

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self._guard is None:
            yield from super().__iter__()
            return
        with self._guard.watching():
            with self._guard.waiting():
                batches = super().__iter__()
            self._guard.watch_children()
            while True:
                with self._guard.waiting():
                    batch = next(batches, None)
                if batch is None:
                    return
                if isinstance(batch, Exception):
                    raise batch
                yield batch


class TrainLoader(ImageLoader):
    """A DataLoader over RankBatches that Lightning can save and seek.

    The position is counted when the trainer receives a batch, not when a worker prefetches it, and is reset where an
    iteration begins, because a checkpoint is also written after the last batch of an epoch.
    """

    def __init__(
        self,
        images: TrainImages,
        batches: RankBatches,
        skips: CorruptImageBudget,
        check: ImageCheck | None,
        **loading: Any,
    ) -> None:
        super().__init__(images, batch_sampler=batches, **loading)
        self.batches, self.skips, self.check = batches, skips, check
        self.received = 0
        self.seconds_waited = 0.0  # since the start
        self._resume_at = 0

    def __iter__(self) -> Iterator[TrainBatch]:
        """A generator: it asks for the first batch only after Lightning has announced the epoch."""
        self.batches.start = self.received = self._resume_at
        self._resume_at = 0
        batches = super().__iter__()
        while True:
            began = time.perf_counter()
            found = next(batches, None)
            self.seconds_waited += time.perf_counter() - began
            if found is None:
                return
            batch, skipped = found
            self.skips.count(skipped)
            if self.check is not None:
                self.check.start()
                self.check.report()
            self.received += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"step": self.received // self.batches.accumulation}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._resume_at = state["step"] * self.batches.accumulation


def count_workers(data: DataConfig) -> int:
    """Loader processes of one rank: `data.workers`, or as many as it has cores."""
    return min(MAX_WORKERS, count_cores()) if data.workers is None else data.workers


def _transformed(pixels: np.ndarray, transform: Transform) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(transform(pixels)))


def _unchanged(batch: Any) -> Any:
    """In place of DataLoader's collate_fn: the dataset gives whole batches."""
    return batch


def _seed_everything(seed: int) -> None:
    """torch.manual_seed would also seed every other device: 125 µs for each image instead of 1."""
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)


def _prepare_worker(_worker: int) -> None:
    torch.set_num_threads(1)
    # The rank's descriptor is inherited by a fork: the rank would take a TERM of this process for its own and end.
    signal.set_wakeup_fd(-1)
    die_with_rank()
