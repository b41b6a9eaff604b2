"""What the data module does before it makes a DataLoader."""

import gc
import weakref
from pathlib import Path
from types import SimpleNamespace

import torch

from resnext.data.datamodule import ImageDataModule
from resnext.data.scan import scan_splits
from support.small_run import small_config


def test_garbage_is_collected_before_workers_are_forked(image_folder: Path, tmp_path: Path):
    """A forked copy of a process group would hang in its destructor."""
    config, splits = small_config(image_folder), scan_splits(image_folder)
    module = ImageDataModule(config.data, config.recipe, *splits[:2], {}, seed=0, skipped=tmp_path / "skipped.txt")
    module.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    garbage = torch.nn.Module()
    garbage.__dict__["itself"] = garbage
    left = weakref.ref(garbage)
    gc.disable()
    try:
        del garbage
        module._loading()
        assert left() is None
    finally:
        gc.enable()
