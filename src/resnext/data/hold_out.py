"""hold_out: the validation images that `data.val_fraction` takes from images without a split.

An image is for validation if a hash of its path is below the fraction. So its split depends on no other image, and new
images move no image to the other split. A class with at least two images needs one in each split. If the hashes put
all of them in one split, the image with the nearest hash moves to the other one. Only images of such classes may move
later.
"""

import hashlib

import numpy as np

from resnext.data.index import ImageIndex
from resnext.errors import UserError

BITS = 53  # of a hash, which a float64 holds exactly


def hold_out(images: ImageIndex, fraction: float) -> tuple[ImageIndex, ImageIndex]:
    """The training and the validation images, with the root and the classes of `images`.

    Each class is split on its own; a class of one image is for training. The counts of `unread` go to the training.

    Raises:
        UserError: if no class has two images.
    """
    places = np.array([hash_path(images.relative_path(image)) for image in range(len(images))])
    held_out = places < fraction
    for label in range(len(images.classes)):
        _fill_both_splits(held_out, places, np.flatnonzero(images.labels == label))
    if not held_out.any():
        raise UserError(
            f"data.val_fraction={fraction:g}, but no class of {images.root} has two images: a class needs one for "
            "training and one for validation; add images"
        )
    return _select(images, ~held_out, images.unread), _select(images, held_out, {})


def hash_path(path: bytes) -> float:
    """A number in [0, 1): the same for this path on every machine."""
    digest = hashlib.blake2b(path, digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> (64 - BITS)) / 2**BITS


def _fill_both_splits(held_out: np.ndarray, places: np.ndarray, members: np.ndarray) -> None:
    """Changes `held_out` for the class of these images if it has two or more, all of them in one split."""
    if len(members) < 2:
        held_out[members] = False
    elif not held_out[members].any():
        held_out[members[places[members].argmin()]] = True
    elif held_out[members].all():
        held_out[members[places[members].argmax()]] = False


def _select(images: ImageIndex, chosen: np.ndarray, unread: dict[str, int]) -> ImageIndex:
    lengths = np.diff(images.offsets)
    offsets = np.cumsum([0, *lengths[chosen]], dtype=np.int64)
    paths = images.paths[np.repeat(chosen, lengths)]
    return ImageIndex(images.root, images.classes, images.labels[chosen], paths, offsets, unread=unread)
