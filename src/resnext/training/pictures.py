"""The pictures that W&B gets at the first start: the first batch as the network sees it, and validation crops."""

import logging
from copy import copy
from typing import Any

from lightning.pytorch.utilities.seed import isolate_rng

from resnext.config.redaction import redact_urls
from resnext.config.schema import Config
from resnext.data.index import ImageIndex
from resnext.errors import describe_error
from resnext.loggers.wandb_pictures import FIRST_BATCH, VALIDATION, Picture, has_picture, make_sheet, send_pictures
from resnext.training.samples import SHOWN, crop_validation_images, describe_labels, see_batch, to_pixels

log = logging.getLogger(__name__)


def send_first_pictures(config: Config, train: ImageIndex, val: ImageIndex, world_size: int) -> None:
    """Once for a W&B run, at step 0. An error is a warning. Leaves the random state as it is.

    Does nothing without a W&B run in this process: only rank 0 has one.
    """
    if not config.logger.pictures or has_picture(FIRST_BATCH):
        return
    # Copies: DataLoader forks its workers later, and they must not share a file that a user's dataset opens here.
    images = copy(train), copy(val)
    try:
        with isolate_rng(include_cuda=False):
            send_pictures(_make(config, *images, world_size), step=0)
    except Exception as error:  # a damaged image, an error of W&B: a picture must not end a training
        log.warning("W&B gets no pictures: %s", redact_urls(describe_error(error)))


def _make(config: Config, train: ImageIndex, val: ImageIndex, world_size: int) -> dict[str, Any]:
    batch = see_batch(config, train, epoch=0, step=0, world_size=world_size, shown=SHOWN)
    captions = describe_labels(batch, train.classes)
    crops = crop_validation_images(config, val, SHOWN)
    return {
        FIRST_BATCH: make_sheet(list(map(Picture, to_pixels(batch.images, config.data), captions))),
        VALIDATION: make_sheet([Picture(pixels, name) for name, pixels in crops if not isinstance(pixels, ValueError)]),
    }
