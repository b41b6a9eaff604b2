"""The number of CPU cores that a rank has, and of its DataLoader workers."""

import os
import socket
from fractions import Fraction
from typing import NamedTuple

import torch.distributed

from resnext.config.data import DataConfig

MAX_WORKERS = 16


class Cores(NamedTuple):
    """The cores of one machine that a process may run on."""

    host: str
    numbers: frozenset[int]

    @classmethod
    def of_this_process(cls) -> "Cores":
        known = hasattr(os, "sched_getaffinity")
        numbers = os.sched_getaffinity(0) if known else range(os.cpu_count() or 1)
        return cls(socket.gethostname(), frozenset(numbers))


def count_workers(data: DataConfig) -> int:
    """The number of workers of one rank: `data.workers`, or by default its cores, at most MAX_WORKERS."""
    return min(MAX_WORKERS, count_cores()) if data.workers is None else data.workers


def count_cores() -> int:
    """This rank's share of the cores that it may run on. A collective: every rank must call it."""
    mine = Cores.of_this_process()
    ranks = [mine]
    if torch.distributed.is_initialized():
        ranks = [mine] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(ranks, mine)
    return share_of_cores(mine, ranks)


def share_of_cores(mine: Cores, ranks: list[Cores]) -> int:
    """Divides each core equally among the ranks that may use it.

    This works with and without CPU binding: if SLURM binds each task to its own cores, no core is shared; without
    binding, the ranks share all cores of the machine or the job.
    """
    neighbours = [rank.numbers for rank in ranks if rank.host == mine.host]
    shares = (Fraction(1, sum(core in other for other in neighbours)) for core in mine.numbers)
    return max(1, int(sum(shares)))
