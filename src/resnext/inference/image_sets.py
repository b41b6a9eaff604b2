"""ImageSet: images with their correct classes, as positions in the classes of a network."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from resnext.config.data import DataConfig
from resnext.data.images import Split, load_images, load_other_images, load_split
from resnext.data.index import ImageIndex, identify_data
from resnext.errors import UserError
from resnext.inference.outputs import UNKNOWN
from resnext.run.directory import Run
from resnext.terminal import first_three, pluralize


class ImageSet(NamedTuple):
    """Images to evaluate. `name` tells the sets of a suite apart; it is empty for a single set.

    Attributes:
        listed: its labels are not used.
        accepted: int64 [images, K], the correct classes of each image, padded with UNKNOWN.
        allowed: int64 [M], the only classes that can be predicted; None for all.
    """

    name: str
    listed: ImageIndex
    accepted: np.ndarray
    allowed: np.ndarray | None = None

    @property
    def targets(self) -> np.ndarray:
        """int64 [images]; UNKNOWN for all if an image has several correct classes."""
        return _targets(self.accepted)

    def for_batch(self, batch: range, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """The targets of a batch and the allowed classes, on `device`."""
        targets = torch.from_numpy(_targets(self.accepted[batch.start : batch.stop])).to(device)
        return targets, None if self.allowed is None else torch.from_numpy(self.allowed).to(device)


def _targets(accepted: np.ndarray) -> np.ndarray:
    return accepted[:, 0] if accepted.shape[1] == 1 else np.full(len(accepted), UNKNOWN)


class Found(NamedTuple):
    """A set of images; `elsewhere` is its folder if these are not the images of the run."""

    images: ImageSet
    elsewhere: Path | None


def find_images(run: Run, data: DataConfig, split: Split) -> Found:
    """The images of a split below data.root, which may be another folder than the run's.

    Raises:
        UserError: if there are no images, a class is not one of the run's, or the images in the run's own data.root
            have changed.
    """
    is_own = data.root == run.config.data.root
    if split != "val":
        index = load_split(data, split)
        elsewhere = not is_own
    elif is_own:
        train, index = load_images(data)
        run.check_data(identify_data(train, index))
        elsewhere = False
    else:
        train, index = load_other_images(data)  # only both splits together identify the images
        elsewhere = train is None or identify_data(train, index) != run.data_identity
    images = as_set(index, run.data_identity.classes, str(run.path))
    return Found(images, index.root if elsewhere else None)


def find_other_images(data: DataConfig, split: Split, classes: tuple[str, ...], owner: str) -> Found:
    """The images of a split for a network that has `classes`, without its run. Raises UserError as `find_images`."""
    index = load_split(data, split) if split != "val" else load_other_images(data)[1]
    return Found(as_set(index, classes, owner), index.root)


def as_set(index: ImageIndex, classes: tuple[str, ...], owner: str) -> ImageSet:
    """The set of all images of `index`, whose classes may be some of `classes`, which `owner` has. Names decide."""
    position = {name: label for label, name in enumerate(classes)}
    unknown = [name for name in index.classes if name not in position]
    if unknown:
        raise UserError(
            f"{index.root} has {pluralize(len(unknown), 'class', 'classes')} that {owner} does not have "
            f"({first_three(unknown)}): give folders with the names of its classes, or `resnext predict` "
            "for images without classes"
        )
    labels = np.array([position[name] for name in index.classes], np.int64)[index.labels]
    return ImageSet("", index, labels[:, None])
