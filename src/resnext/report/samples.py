"""Training batches as the network sees them, and validation crops: the real transforms, erasing and mixing."""

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
from resnext.report.html import Html, join, tag
from resnext.report.record import RunRecord
from resnext.report.thumbnails import thumbnail
from resnext.task.mixing import Mix, draw_mix, micro_step_seeds, mix_images

SHOWN = 16  # images of a batch
MAX_SIZES = 3  # whose first batch is shown


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


def training_sheets(record: RunRecord) -> Html:
    """The first batch of the first and of the last epoch, and of two other epochs at most that begin an image size."""
    config, train = record.config, record.images.train
    recipe = config.recipe
    begins = sorted({0, *(epoch - 1 for epoch, _ in recipe.image_size_schedule)})
    epochs = sorted({*begins[:MAX_SIZES], recipe.epochs - 1})
    world_size = record.starts[-1]["world_size"] if record.starts else 1
    sheets = []
    for epoch in epochs:
        step = round(epoch * record.steps_per_epoch)
        if recipe.max_steps is not None and step >= recipe.max_steps:
            continue
        batch = see_batch(config, train, epoch=epoch, step=step, world_size=world_size, shown=SHOWN)
        title = f"First batch of epoch {epoch + 1}, {recipe.train_image_size(epoch)} pixels"
        sheets += [tag("h3", title), _sheet(batch, config, train)]
    note = tag(
        "p",
        "The tensors that the network gets: after crop, flip, colours, erasing and mixing, with the seeds of the run.",
        class_="note",
    )
    return join([note, *sheets])


def validation_sheet(record: RunRecord) -> Html:
    """Validation images, evenly over the whole list, cropped as in every evaluation."""
    recipe, val = record.config.recipe, record.images.val
    dataset = EvalImages(val, None, build_eval_transform(recipe.evaluation, recipe.eval_image_size))
    chosen = np.unique(np.linspace(0, len(val) - 1, min(SHOWN, len(val))).astype(int)).tolist()
    cells = []
    for image in chosen:
        try:
            pixels, label = dataset[Sample(0, image)]
        except ValueError as error:  # an image that cannot be read
            cells.append(tag("figure", tag("figcaption", error)))
            continue
        name = val.classes[label]
        cells.append(thumbnail(pixels.numpy(), tag("b", name), alt=f"validation image of {name}"))
    return join([tag("h3", f"Validation crops, {recipe.eval_image_size} pixels"), tag("div", *cells, class_="sheet")])


def _sheet(batch: SeenBatch, config: Config, train: ImageIndex) -> Html:
    cells = []
    for pixels, words in zip(to_pixels(batch.images, config.data), _captions(batch, train.classes), strict=True):
        cells.append(thumbnail(pixels, tag("span", words), alt=f"training image of {words}"))
    return tag("div", *cells, class_="sheet")


def _captions(batch: SeenBatch, classes: tuple[str, ...]) -> Iterator[str]:
    """`cat`, or `cat 70 % + dog 30 %`."""
    lam = batch.mix.lam if batch.mix is not None else 1.0
    for label, partner in zip(batch.labels, batch.partners, strict=True):
        if lam >= 1 or label == partner:
            yield classes[label]
        else:
            yield f"{classes[label]} {100 * lam:.0f} % + {classes[partner]} {100 * (1 - lam):.0f} %"
