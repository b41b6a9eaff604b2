"""The DataLoaders: a sample depends only on its key, not on the workers; failures give a one-line error."""

import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from resnext.data.augment import build_train_transforms
from resnext.data.corrupt_images import CorruptImageBudget
from resnext.data.dataset import TrainImages
from resnext.data.loader import TrainLoader
from resnext.data.ram_cache import RamCache
from resnext.data.sampler import RankBatches
from resnext.data.scan import scan_splits
from resnext.data.worker_watchdog import LoaderFailed
from resnext.errors import UserError
from support.small_run import small_config

TIMEOUT = 2.0
AUGMENTATION = {"scale": [0.3, 1.0], "auto_augment": "rand-m7-mstd0.5", "lighting": 0.1, "erasing": 0.5, "repeats": 2}


def build_loader(root: Path, *, workers: int = 0, max_skipped: int = 0, cached: bool = False) -> TrainLoader:
    config = small_config(root, recipe__augmentation=AUGMENTATION, data__max_skipped=max_skipped)
    index = scan_splits(root).train
    cache = RamCache(index, devices=1) if cached else None
    transforms = build_train_transforms(config.recipe, config.data)
    images = TrainImages(index, cache, config.recipe, config.data, transforms, 5)
    batches = RankBatches(5, len(index), 4, 0, 1, 1, repeats=2)
    return TrainLoader(
        images,
        batches,
        CorruptImageBudget(root / "skipped.txt", max_skipped),
        None,
        num_workers=workers,
        worker_timeout=TIMEOUT,
    )


def equal(ours: list, theirs: list) -> bool:
    flat = [[[*batch[:2], *batch[2]] for batch in batches] for batches in (ours, theirs)]
    return all(torch.equal(*pair) for both in zip(*flat, strict=True) for pair in zip(*both, strict=True))


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 2}, {"cached": True}, {"cached": True, "workers": 2}])
def test_batches_do_not_depend_on_workers_or_cache(image_folder: Path, options: dict):
    expected = list(build_loader(image_folder))
    random.seed(9)
    np.random.seed(9)
    torch.manual_seed(9)
    assert equal(list(build_loader(image_folder, **options)), expected)


def test_a_loader_can_start_at_any_batch(image_folder: Path):
    expected = list(build_loader(image_folder))
    loader = build_loader(image_folder)
    loader.load_state_dict({"step": 2})
    assert equal(list(loader), expected[2:])


def test_copies_of_an_image_differ(image_folder: Path):
    """Three batches of four samples hold six images, each twice."""
    loader = build_loader(image_folder)
    copies: dict[int, list[torch.Tensor]] = {}
    for samples in loader.batches:
        for sample in samples:
            copies.setdefault(sample.image, []).append(loader.dataset[sample][0])
    assert [len(pixels) for pixels in copies.values()] == [2] * 6
    assert not any(torch.equal(*pixels) for pixels in copies.values())


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_left_out_within_the_budget(image_folder: Path, workers: int):
    samples = [sample for batch in build_loader(image_folder).batches for sample in batch]
    drawn = [noise for batch in build_loader(image_folder) for noise in batch[2].noise.tolist()]
    bad = samples[0].image
    scan_splits(image_folder).train.path(bad).write_bytes(b"no image")
    loader = build_loader(image_folder, workers=workers, max_skipped=1)
    left = [noise for batch in loader for noise in batch[2].noise.tolist()]
    assert left == [noise for noise, sample in zip(drawn, samples, strict=True) if sample.image != bad]
    assert len(left) == len(drawn) - 2  # the two copies of the unreadable image
    assert len((image_folder / "skipped.txt").read_text().splitlines()) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_one_unreadable_image_beyond_the_budget_ends_the_training(image_folder: Path, workers: int):
    index, batches = scan_splits(image_folder).train, list(build_loader(image_folder).batches)
    for image in {batches[0][0].image, batches[1][0].image, batches[2][0].image}:
        index.path(image).write_bytes(b"no image")
    with pytest.raises(UserError, match=r"2 training images cannot be read, more than data.max_skipped=1"):
        list(build_loader(image_folder, workers=workers, max_skipped=1))


def test_a_batch_without_a_readable_image_ends_the_training(image_folder: Path):
    for path in (image_folder / "train").glob("*/*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match="no image of a batch of 4 can be read"):
        list(build_loader(image_folder, max_skipped=100))


def test_without_a_budget_the_error_names_the_image(image_folder: Path):
    for path in (image_folder / "train").glob("*/*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"train/\w+/\d.png cannot be read as an image"):
        list(build_loader(image_folder))


@pytest.mark.parametrize("max_skipped", [0, 100])
def test_an_image_on_failing_storage_is_not_skipped(
    image_folder: Path, max_skipped: int, monkeypatch: pytest.MonkeyPatch
):
    def fail(*arguments, **options):
        raise OSError(5, "Input/output error")

    loader = build_loader(image_folder, max_skipped=max_skipped)
    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(UserError, match=r"cannot be read as an image \(Input/output error\)") as error:
        list(loader)
    assert "max_skipped" not in str(error.value)


def test_a_worker_that_hangs_in_a_read_ends_the_iteration(image_folder: Path, monkeypatch: pytest.MonkeyPatch):
    loader = build_loader(image_folder, workers=1)
    monkeypatch.setattr(os, "open", lambda *_arguments: time.sleep(600))
    began = time.monotonic()
    with pytest.raises(LoaderFailed, match=r"within data.worker_timeout=2 seconds: check whether the storage hangs"):
        list(loader)
    assert time.monotonic() - began < TIMEOUT + 10
