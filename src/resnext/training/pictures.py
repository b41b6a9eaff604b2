"""The pictures that W&B gets at the first start: the first batch as the network sees it, and validation crops."""

from copy import copy
from typing import Any

from lightning.pytorch.utilities.seed import isolate_rng

from resnext.config.schema import Config
from resnext.data.index import ImageIndex
from resnext.loggers.wandb_pictures import FIRST_BATCH, VALIDATION, Picture, has_picture, make_sheet, send_pictures
from resnext.training.samples import crop_validation_images, describe_labels, see_batch, to_pixels

SHOWN = 16  # images of a sheet


def send_first_pictures(config: Config, train: ImageIndex, val: ImageIndex, world_size: int) -> None:
    """Once for a W&B run, at step 0. Leaves the random state as it is. Only rank 0 has a W&B run."""
    if not config.logger.pictures or has_picture(FIRST_BATCH):
        return
    # Copies: DataLoader forks its workers later, and they must not share a file that a user's dataset opens here.
    images = copy(train), copy(val)
    with isolate_rng(include_cuda=False):
        send_pictures(lambda: _make(config, *images, world_size), step=0)


def _make(config: Config, train: ImageIndex, val: ImageIndex, world_size: int) -> dict[str, Any]:
    batch = see_batch(config, train, epoch=0, step=0, world_size=world_size, shown=SHOWN)
    captions = describe_labels(batch, train.classes)
    crops = crop_validation_images(config, val, SHOWN)
    return {
        FIRST_BATCH: make_sheet(list(map(Picture, to_pixels(batch.images, config.data), captions))),
        VALIDATION: make_sheet([Picture(pixels, name) for name, pixels in crops if not isinstance(pixels, ValueError)]),
    }
