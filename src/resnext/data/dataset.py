"""The images of a split as a Dataset: Sample → pixels, label, and the boxes to erase."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate, get_worker_info

from resnext.config.data import DataConfig
from resnext.config.recipe import RecipeConfig
from resnext.data.augment import Transform
from resnext.data.corrupt_images import CorruptImage
from resnext.data.decode import UnreadableImage
from resnext.data.erasing import Erasing, draw_erasing
from resnext.data.index import ImageIndex, printable
from resnext.data.ram_cache import RamCache
from resnext.data.sampler import Sample, derive_seeds
from resnext.data.worker_watchdog import wrap_error
from resnext.errors import UserError

Batch = tuple[Tensor, Tensor]  # images uint8 [N, H, W, 3] or float32 [N, 3, H, W], targets int64 [N]
TrainBatch = Batch | tuple[Tensor, Tensor, Erasing]  # with the boxes to erase, if the recipe erases


class ImageDataset(Dataset[Any]):
    """The images of a split. `pixels` raises UnreadableImage for an image that cannot be read."""

    def __init__(self, index: ImageIndex, cache: RamCache | None) -> None:
        self.index, self.cache = index, cache

    def __len__(self) -> int:
        return len(self.index)

    def __getitems__(self, samples: list[Sample]) -> Any:
        """DataLoader calls this for a whole batch. In a worker, returns an error instead of raising it."""
        try:
            return self.collate([self[sample] for sample in samples])
        except Exception as error:
            if get_worker_info() is None:
                raise
            return wrap_error(error)

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
    """Sample → pixels uint8 [size, size, 3], label, and Erasing if the recipe erases.

    A damaged image gives a CorruptImage if `data.max_skipped` allows it. (seed, epoch, image, copy) determines all
    random draws of a sample; the epoch determines its size.
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
            raise UserError(f"{error}; data.max_skipped=1 would skip it") from error
        drawing, erasing = derive_seeds(2, self.seed, *sample)
        _seed_everything(drawing)
        size = self.size_at(sample.epoch)
        drawn = _transformed(pixels, self.transforms[size]), int(self.index.labels[sample.image])
        return (*drawn, draw_erasing(erasing, size, self.augmentation)) if self.augmentation.erasing else drawn

    def collate(self, samples: list[tuple[Any, ...]]) -> tuple[Any, list[CorruptImage]]:
        """The batch of the images that can be read, and the skipped images."""
        skipped = [sample for sample in samples if isinstance(sample, CorruptImage)]
        kept = [sample for sample in samples if not isinstance(sample, CorruptImage)]
        if not kept:
            raise UserError(f"no image of a batch of {len(samples)} can be read; the first: {skipped[0].reason}")
        return default_collate(kept), skipped


def _transformed(pixels: np.ndarray, transform: Transform) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(transform(pixels)))


def _seed_everything(seed: int) -> None:
    """Seeds only the CPU. torch.manual_seed also seeds all other devices: it takes 125 µs per image instead of 1 µs."""
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
