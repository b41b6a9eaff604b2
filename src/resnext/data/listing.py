"""index_images: the images of a registered dataset, from lists of paths and class names."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from resnext.data.index import ImageIndex
from resnext.errors import UserError

Pairs = Iterable[tuple[str, str]]  # path below the root, and class name


def index_images(root: Path, train: Pairs, val: Pairs) -> tuple[ImageIndex, ImageIndex]:
    """The two splits. The classes are those of `train` in the order of their names; a label is a position in them.

    Paths, classes and labels are part of a run's identity, the root is not: give paths relative to it.

    Raises:
        UserError: if a split is empty, or `val` has a class that `train` does not have.
    """
    train, val = list(train), list(val)
    classes = tuple(sorted({name for _, name in train}))
    if unknown := sorted({name for _, name in val} - set(classes)):
        raise UserError(f"the validation images of {root} have the class {unknown[0]}, which no training image has")
    return _index(root, train, classes, "training"), _index(root, val, classes, "validation")


def _index(root: Path, pairs: list[tuple[str, str]], classes: tuple[str, ...], split: str) -> ImageIndex:
    if not pairs:
        raise UserError(f"the dataset in data.root={root} lists no {split} images")
    labels = {name: label for label, name in enumerate(classes)}
    rows = sorted((labels[name], os.fsencode(path)) for path, name in pairs)
    offsets = np.cumsum([0, *(len(path) for _, path in rows)], dtype=np.int64)
    joined = np.frombuffer(b"".join(path for _, path in rows), dtype=np.uint8)
    return ImageIndex(root, classes, np.array([label for label, _ in rows], dtype=np.int64), joined, offsets)
