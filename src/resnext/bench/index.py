"""The cost of the index of a large folder: the time to list it and to load it again, and the memory of each worker."""

import os
import time
from pathlib import Path
from typing import NamedTuple

from resnext.data.index import ImageIndex
from resnext.data.index_cache import load_splits
from resnext.data.scan import scan_splits
from resnext.errors import UserError


class IndexCost(NamedTuple):
    """`worker_mib`: growth of a forked process's private memory, in MiB, after it has read every path and label."""

    images: int
    list_seconds: float
    load_seconds: float
    worker_mib: float


def measure_index(root: Path) -> IndexCost:
    """Lists `root` like the first start, then loads it like every later start. Raises the errors of scan_splits."""
    began = time.perf_counter()
    scan_splits(root)
    listed = time.perf_counter() - began
    load_splits(root)  # saves the index
    began = time.perf_counter()
    train, val = load_splits(root)
    loaded = time.perf_counter() - began
    if train.labels.flags.owndata:
        raise UserError(
            f"the index of {root} was not saved: the folder has just changed (try again), or the cache is not writable"
        )
    return IndexCost(len(train) + len(val), listed, loaded, _memory_of_a_worker(train) / 2**20)


def _memory_of_a_worker(index: ImageIndex) -> int:
    """Growth of a forked process's private memory, in bytes."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            before = _private_bytes()
            for image in range(len(index)):
                index.path(image)
                int(index.labels[image])
            os.write(writer, str(_private_bytes() - before).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as file:
        grown = int(file.read())
    os.wait()
    return grown


def _private_bytes() -> int:
    with open("/proc/self/smaps_rollup") as file:
        return 1024 * sum(int(line.split()[1]) for line in file if line.startswith("Private_"))
