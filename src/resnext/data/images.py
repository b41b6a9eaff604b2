"""Finds and checks the images of a run. Also writes the embedded data set."""

import functools
from dataclasses import replace
from pathlib import Path

from resnext.config.data import DataConfig, register_ours
from resnext.data.digits import prepare_digits
from resnext.data.index import ImageIndex
from resnext.data.index_cache import load_splits
from resnext.data.pack import is_pack, load_pack
from resnext.data.scan import find_val, scan_val
from resnext.errors import UserError
from resnext.registry import NoOptions, build_part
from resnext.terminal import pluralize

HOW_TO_GET = {
    "digits": "remove the broken copy; the next start writes it again",
    "image_folder": "give the folder that holds train/CLASS/ and val/CLASS/, or a pack, as DATA=PATH (data.root=PATH)",
    "imagenet": (
        "give the folder of ImageNet that holds train/ and val/, with one folder for each class, as DATA=PATH "
        '(data.root=PATH), or link it there; `make prepare ARGS="imagenet SRC DST"` makes it from the archives'
    ),
    "cifar10": "`make prepare ARGS=cifar10` downloads it there",
    "cifar100": "`make prepare ARGS=cifar100` downloads it there",
}


def load_images(config: DataConfig) -> tuple[ImageIndex, ImageIndex]:
    """The training and validation images of a data set.

    Raises:
        UserError: if there are no images, the folder is not valid, or it does not have `num_classes` classes.
    """
    train, val = build_part("dataset", config.name, config.options, Path(config.root))
    if config.num_classes not in (None, len(train.classes)):
        found = pluralize(len(train.classes), "class", "classes")
        raise UserError(
            f"data.num_classes={config.num_classes}, but {train.root} has {found}; "
            f"give data.num_classes={len(train.classes)} if that is right, or data.num_classes=null to count them"
        )
    return train, val


def load_other_images(config: DataConfig) -> tuple[ImageIndex | None, ImageIndex]:
    """Images of any number of classes to validate on. A folder of images needs no train/: then the first is None.

    Raises:
        UserError: if there are no images, or the folder is not valid.
    """
    root = Path(config.root)
    if config.name not in register_ours or not root.is_dir() or is_pack(root) or (root / "train").exists():
        return load_images(replace(config, num_classes=None))
    if not find_val(root).is_dir():
        raise UserError(f"data.root={root} has no val/: give the folder that holds val/CLASS/")
    return None, scan_val(root)


def _load_ours(_options: NoOptions, root: Path, *, name: str) -> tuple[ImageIndex, ImageIndex]:
    """Loads a folder of images or a pack."""
    if name == "digits":
        prepare_digits(root)
    if not root.is_dir():
        found = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"data.root={root} {found}: {HOW_TO_GET[name]}")
    return load_pack(root) if is_pack(root) else load_splits(root)


for _name, _register in register_ours.items():
    _register(functools.partial(_load_ours, name=_name))
