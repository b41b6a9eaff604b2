"""Finds and checks the images of a run. Also writes the embedded dataset."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Literal

from resnext.config.data import DataConfig, register_ours
from resnext.data.class_folders import find_val
from resnext.data.digits import FEW, prepare_digits
from resnext.data.index import ImageIndex
from resnext.data.index_cache import load_splits
from resnext.data.pack import is_pack, load_pack, read_settings
from resnext.data.scan import scan_test, scan_val
from resnext.errors import UserError
from resnext.registry import NoOptions, build_part
from resnext.terminal import pluralize

Split = Literal["val", "test"]

HOW_TO_GET = {
    "digits": "remove the broken copy; the next start writes it again",
    "digits_few": "remove the broken copy; the next start writes it again",
    "image_folder": "give the folder that holds train/CLASS/ and val/CLASS/, or a pack, as DATA=PATH (data.root=PATH)",
    "imagenet": (
        "give the folder of ImageNet that holds train/ and val/, with one folder for each class, as DATA=PATH "
        '(data.root=PATH), or link it there; `make prepare ARGS="imagenet SRC DST"` makes it from the archives'
    ),
    "cifar10": "`make prepare ARGS=cifar10` downloads it there",
    "cifar100": "`make prepare ARGS=cifar100` downloads it there",
}


def load_images(config: DataConfig) -> tuple[ImageIndex, ImageIndex]:
    """The training and validation images of a dataset.

    Raises:
        UserError: if there are no images, the folder is not valid, or it does not have `num_classes` classes.
    """
    split = {"val_fraction": config.val_fraction} if config.val_fraction is not None else {}
    train, val = build_part("dataset", config.name, config.options, Path(config.root), **split)
    if config.num_classes not in (None, len(train.classes)):
        found = pluralize(len(train.classes), "class", "classes")
        raise UserError(
            f"data.num_classes={config.num_classes}, but {train.root} has {found}; "
            f"give data.num_classes={len(train.classes)} if that is right, or data.num_classes=null to count them"
        )
    return train, val


def load_split(config: DataConfig, split: Split) -> ImageIndex:
    """The images of one split. Those of test/ have the classes of the training images, or without any, their own.

    Raises:
        UserError: if the split is missing, or has a class that the training images do not have.
    """
    if split == "val":
        return load_images(config)[1]
    root = Path(config.root)
    if config.name not in register_ours:
        raise UserError(f"data.name={config.name} has no test split: evaluate the split val")
    _check_folder(root, config.name)
    if is_pack(root):
        raise UserError(f"{root} is a pack, which has no test split: give the folder that holds test/CLASS/")
    return scan_test(root)


def load_other_images(config: DataConfig) -> tuple[ImageIndex | None, ImageIndex]:
    """Images of any number of classes to validate on. A folder of images needs no train/: then the first is None.

    If the folder has a val/ or is a pack, data.val_fraction has no effect. If not, it holds out the same images as in
    a training: the folder may be a copy of the run's own, and no image of the training may be counted.

    Raises:
        UserError: if there are no images, or the folder is not valid.
    """
    root, config = Path(config.root), replace(config, num_classes=None)
    if config.name not in register_ours or not root.is_dir():
        return load_images(config)
    has_val, is_packed = find_val(root).is_dir(), is_pack(root)
    if has_val or is_packed:
        config = replace(config, val_fraction=None)
    if is_packed or config.val_fraction is not None or (root / "train").exists():
        return load_images(config)
    if not has_val:
        raise UserError(f"{root} has no val/: give the folder that holds val/CLASS/")
    return None, scan_val(root)


def _load_ours(
    _options: NoOptions, root: Path, *, name: str, val_fraction: float | None = None
) -> tuple[ImageIndex, ImageIndex]:
    """Loads a folder of images or a pack."""
    if name in ("digits", "digits_few"):
        prepare_digits(root, FEW if name == "digits_few" else None)
    _check_folder(root, name)
    if not is_pack(root):
        return load_splits(root, val_fraction)
    if val_fraction not in (None, read_settings(root).get("val_fraction")):
        raise UserError(
            f"data.val_fraction={val_fraction:g}, but the pack {root} has another split: set data.val_fraction=null to "
            f"use it, or pack again with --val-fraction {val_fraction:g}"
        )
    return load_pack(root)


def _check_folder(root: Path, name: str) -> None:
    if not root.is_dir():
        found = "is not a folder" if root.exists() else "does not exist"
        raise UserError(f"data.root={root} {found}: {HOW_TO_GET[name]}")


for _name, _register in register_ours.items():
    _register(functools.partial(_load_ours, name=_name))
