"""ImageDataModule: the DataLoaders of one rank. Workers send uint8 pixels; the device normalises them."""

import gc
import math
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from resnext.config.data import DataConfig
from resnext.config.recipe import RecipeConfig
from resnext.data.augment import Transform, build_eval_transform, normalize
from resnext.data.cores import count_workers
from resnext.data.corrupt_images import CorruptImageBudget
from resnext.data.dataset import Batch, EvalImages, TrainBatch, TrainImages
from resnext.data.erasing import erase
from resnext.data.image_check import ImageCheck
from resnext.data.index import ImageIndex
from resnext.data.loader import MAX_EVAL_BATCH, ImageLoader, TrainLoader, prepare_worker
from resnext.data.pack import PackedImages
from resnext.data.ram_cache import RamCache
from resnext.data.sampler import RankBatches, RankImages


class ImageDataModule(LightningDataModule):
    """Training and validation images of a run.

    Args:
        data, recipe: the slices of the configuration with these names.
        train, val: the images of the splits.
        transforms: image size → transform of the training images; empty if the run only validates.
        seed: the run's seed. It determines the order, and all random draws of a sample.
        skipped: the file that lists the training images that cannot be read.
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

    def train_dataloader(self) -> TrainLoader:
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
        """None except on rank 0: one rank checks the files of all. None for a pack: its writer decoded every image."""
        assert self.trainer is not None
        if self.trainer.global_rank or isinstance(self.train, PackedImages):
            return None
        listing = self.skips.path.with_name("damaged.txt")
        fraction = self.data.val_fraction
        root = self.train.root.parent if fraction is None else Path(self.data.root)
        return ImageCheck(root, self.train, self.val, self.data.max_skipped, listing, fraction)

    def _cache(self, index: ImageIndex) -> RamCache | None:
        assert self.trainer is not None
        return RamCache(index, self.trainer.num_devices) if self.data.cache == "ram" else None

    def _loading(self) -> dict[str, Any]:
        assert self.trainer is not None
        workers = count_workers(self.data)
        gc.collect()  # else a forked worker may collect the process group of an earlier fit, and hang or crash
        return {
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "worker_timeout": self.data.worker_timeout,
            "pin_memory": self.trainer.strategy.root_device.type == "cuda",
            "worker_init_fn": prepare_worker,
        }
