"""Decoded images in memory: they equal the files' pixels, are shared with workers, and are limited in size."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnext.data import ram_cache
from resnext.data.ram_cache import RamCache
from resnext.data.scan import scan_splits
from resnext.errors import UserError


def test_cached_pixels_equal_the_files(image_folder: Path):
    Image.new("RGB", (5, 9), (1, 2, 3)).save(image_folder / "train/dog/odd.png")
    index = scan_splits(image_folder).train
    cache = RamCache(index, devices=1)
    for image in range(len(index)):
        assert np.array_equal(cache[image], np.asarray(Image.open(index.path(image))))


def test_a_forked_process_shares_the_cache(image_folder: Path):
    index = scan_splits(image_folder).train
    cache = RamCache(index, devices=1)
    expected = cache[3]
    index.path(3).unlink()
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(cache[3], expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_an_unreadable_image_is_an_error_when_it_is_requested(image_folder: Path):
    (image_folder / "train/cat/2.png").write_bytes(b"no image")
    cache = RamCache(scan_splits(image_folder).train, devices=1)
    assert cache[1].shape == (16, 20, 3)
    with pytest.raises(UserError, match=r"cat/2.png cannot be read"):
        cache[2]


def test_a_cache_larger_than_the_memory_is_refused(image_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ram_cache, "free_memory", lambda: 40_000)  # a quarter is 10 images
    monkeypatch.setattr(ram_cache, "CHECK_EVERY", 1)
    with pytest.raises(UserError, match=r"data.cache=ram: 11 of 12 images .* use data.cache=none"):
        RamCache(scan_splits(image_folder).train, devices=1)


def test_free_memory_is_less_than_the_total():
    assert 2**20 < ram_cache.free_memory() < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_a_split_without_readable_images_is_cached(image_folder: Path):
    for path in image_folder.glob("train/*/*"):
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match="cannot be read"):
        RamCache(scan_splits(image_folder).train, devices=1)[0]
