"""Images as the network sees them: a training batch, by the real transforms, erasing and mixing, and crops."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from resnext.config.data import DataConfig
from resnext.config.schema import Config
from resnext.data.augment import build_eval_transform, build_train_transform, normalize
from resnext.data.dataset import EvalImages, TrainImages
from resnext.data.erasing import erase
from resnext.data.index import ImageIndex
from resnext.data.sampler import RankBatches, Sample
from resnext.task.mixing import Mix, draw_mix, micro_step_seeds, mix_images

SHOWN = 16  # images of a sheet


class SeenBatch(NamedTuple):
    """The first images of a micro-batch of rank 0.

    Attributes:
        images: float32 [N, 3, H, W], normalised, erased and mixed.
        labels, partners: the class of each image, and of the image that it is mixed with.
        mix: how they are mixed; None if the recipe does not mix.
    """

    images: Tensor
    labels: list[int]
    partners: list[int]
    mix: Mix | None


def see_batch(config: Config, train: ImageIndex, *, epoch: int, step: int, world_size: int, shown: int) -> SeenBatch:
    """The first micro-batch of the step `step`, which is the first of `epoch` (both counted from 0).

    An image is mixed with the image at the other end of its batch, so only both ends are read.
    """
    recipe = config.recipe
    split = config.split_batch(world_size)
    batches = RankBatches(
        config.seed, len(train), recipe.batch_size, 0, world_size, split.accumulation, recipe.augmentation.repeats
    )
    batches.set_epoch(epoch)
    samples: list[Sample] = next(iter(batches))
    shown = min(shown, len(samples))
    if 2 * shown < len(samples):
        samples = samples[:shown] + samples[-shown:]
    size = recipe.train_image_size(epoch)
    transforms = {size: build_train_transform(recipe, config.data, size)}
    dataset = TrainImages(train, None, recipe, config.data, transforms, config.seed)
    (pixels, targets, *erasing), _ = dataset.collate([dataset[sample] for sample in samples])
    images = normalize(pixels, config.data)
    if erasing:
        images = erase(images, erasing[0], recipe.augmentation.erasing_mode)
    mix = None
    if recipe.mixing.on:
        _, seed = micro_step_seeds(config.seed, step, micro_step=0, rank=0)
        mix = draw_mix(recipe.mixing, size, size, seed)
        images = mix_images(images, mix)
    return SeenBatch(images[:shown], targets[:shown].tolist(), targets.flip(0)[:shown].tolist(), mix)


def to_pixels(images: Tensor, data: DataConfig) -> np.ndarray:
    """float32 [N, 3, H, W], normalised → uint8 [N, H, W, 3]. Erased noise may be outside of the range."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (data.mean, data.std))
    return images.mul(std).add(mean).mul(255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def describe_labels(batch: SeenBatch, classes: tuple[str, ...]) -> Iterator[str]:
    """`cat`, or `cat 70 % + dog 30 %`."""
    lam = batch.mix.lam if batch.mix is not None else 1.0
    for label, partner in zip(batch.labels, batch.partners, strict=True):
        if lam >= 1 or label == partner:
            yield classes[label]
        else:
            yield f"{classes[label]} {100 * lam:.0f} % + {classes[partner]} {100 * (1 - lam):.0f} %"


def crop_validation_images(
    config: Config, val: ImageIndex, shown: int
) -> Iterator[tuple[str, np.ndarray | ValueError]]:
    """The class and the crop, uint8 [size, size, 3], of images that lie evenly in the list.

    The error takes the place of the crop of an image that cannot be read.
    """
    recipe = config.recipe
    dataset = EvalImages(val, None, build_eval_transform(recipe.evaluation, recipe.eval_image_size))
    for image in np.unique(np.linspace(0, len(val) - 1, min(shown, len(val))).astype(int)).tolist():
        name = val.classes[int(val.labels[image])]
        try:
            yield name, dataset[Sample(0, image)][0].numpy()
        except ValueError as error:
            yield name, error
