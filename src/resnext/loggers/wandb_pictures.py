"""Pictures in the W&B run, below names that start with `report/`: sheets of images, and a confusion matrix."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import wandb
from PIL import Image

from resnext.loggers.wandb_folders import STEP

FIRST_BATCH, VALIDATION = "report/first_batch", "report/validation"
CONFUSION, WORST_MISTAKES = "report/confusion", "report/worst_mistakes"
LOSSLESS = 64  # pixels of a side; larger images are JPEG files, which take a tenth


class Picture(NamedTuple):
    """Pixels uint8 [height, width, 3]. W&B shows the pictures of a sheet in one size, so they all have it."""

    pixels: np.ndarray
    caption: str


def send_pictures(pictures: dict[str, Any], step: int) -> None:
    """Logs them at `step` to the W&B run of this process."""
    assert wandb.run is not None
    wandb.run.log({**pictures, STEP: step})


def has_picture(name: str) -> bool:
    """Whether W&B is off, or an earlier start has sent `name`. Each offline start stores the whole run again."""
    return wandb.run is None or wandb.run.summary.get(name) is not None


def make_sheet(pictures: Sequence[Picture]) -> list[wandb.Image]:
    return [
        wandb.Image(
            Image.fromarray(np.ascontiguousarray(pixels)),
            caption=caption,
            file_type="png" if max(pixels.shape) <= LOSSLESS else "jpg",
        )
        for pixels, caption in pictures
    ]


def make_confusion(names: Sequence[str], counts: np.ndarray) -> Any:
    """W&B's own chart of int [N, N], the true class in rows."""
    true, predicted = (np.repeat(each, counts.ravel()).tolist() for each in np.indices(counts.shape).reshape(2, -1))
    return wandb.plot.confusion_matrix(y_true=true, preds=predicted, class_names=list(names), title="Confusion")
