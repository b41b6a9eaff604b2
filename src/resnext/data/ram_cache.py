"""Decoded images of a split in memory that the workers of a rank share, for datasets of small images."""

import mmap
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from resnext.data.index import ImageIndex
from resnext.errors import UserError
from resnext.terminal import progress

SHARE_OF_FREE_MEMORY = 0.5  # for both splits together; the rest is for the training
CHECK_EVERY = 256  # images
CGROUPS = Path("/sys/fs/cgroup")


class RamCache:
    """Decodes every image of `index` once, before the workers are forked.

    Args:
        devices: the number of ranks on this machine, each with its own cache.

    Raises:
        UserError: if the images take more than SHARE_OF_FREE_MEMORY.
    """

    def __init__(self, index: ImageIndex, devices: int) -> None:
        self._index = index
        self._shapes = np.zeros((len(index), 2), dtype=np.int32)
        self._starts = np.zeros(len(index) + 1, dtype=np.int64)
        limit = int(SHARE_OF_FREE_MEMORY * free_memory() / 2 / devices)  # two splits
        with open(os.memfd_create("images"), "w+b") as file:
            for image, pixels in enumerate(_decode_all(index)):
                self._starts[image + 1] = self._starts[image] + pixels.nbytes
                if image % CHECK_EVERY == 0 and self._starts[image] > limit:
                    raise UserError(
                        f"data.cache=ram: {image:,} of {len(index):,} images of {index.root} fill {limit >> 20:,} MiB, "
                        "which is a rank's share of half the free memory; use data.cache=none"
                    )
                file.write(pixels.data)
                self._shapes[image] = pixels.shape[:2]
            file.flush()
            size = int(self._starts[-1])
            self._memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""

    def __getitem__(self, image: int) -> np.ndarray:
        """A copy, uint8 [height, width, 3]: transforms may write to it. Raises UserError for an unreadable image."""
        height, width = self._shapes[image].tolist()
        if not height:
            return self._index.pixels(image)
        start = int(self._starts[image])
        return np.frombuffer(self._memory, np.uint8, height * width * 3, start).reshape(height, width, 3).copy()


def free_memory() -> int:
    """The smaller of the free bytes of this machine (Linux's own estimate) and of this job (its version-2 cgroup)."""
    with open("/proc/meminfo") as file:
        machine = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable:")) * 1024
    return min([machine, *_left_in_groups()])


def _left_in_groups() -> Iterator[int]:
    with open("/proc/self/cgroup") as file:
        own = next((line.strip()[3:] for line in file if line.startswith("0::")), "/")
    for group in (CGROUPS / own.lstrip("/"), *(CGROUPS / own.lstrip("/")).parents):
        with suppress(OSError, ValueError):  # no such group, or `max`
            yield int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())


def _decode_all(index: ImageIndex) -> Iterator[np.ndarray]:
    """Yields an empty array for an image that cannot be read. Reading this image from the cache raises the error."""
    with progress(f"decoding {index.root}", len(index)) as advance:
        for image in range(len(index)):
            try:
                yield index.pixels(image)
            except UserError:
                yield np.empty((0, 0, 3), np.uint8)
            advance(1)
