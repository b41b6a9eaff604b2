"""The number of CPU cores of a rank, with and without core binding."""

import pytest

from resnext.config.data import DataConfig
from resnext.data import cores
from resnext.data.cores import Cores, share_of_cores


def bound(count: int, ranks: int) -> list[Cores]:
    return [Cores("node", frozenset(range(rank * count, (rank + 1) * count))) for rank in range(ranks)]


def test_bound_ranks_use_all_their_own_cores():
    """As with srun --cpus-per-task=12 and 8 tasks on a node."""
    ranks = bound(12, 8)
    assert [share_of_cores(mine, ranks) for mine in ranks] == [12] * 8


@pytest.mark.parametrize(("count", "ranks", "share"), [(96, 8, 12), (2, 1, 2), (2, 4, 1), (10, 4, 2)])
def test_unbound_ranks_share_the_cores_of_the_machine(count: int, ranks: int, share: int):
    everyone = [Cores("node", frozenset(range(count)))] * ranks
    assert share_of_cores(everyone[0], everyone) == share


def test_ranks_that_are_bound_in_pairs_share_the_cores_of_the_pair():
    """As with torchrun --numa-binding=node."""
    ranks = [pair for pair in bound(48, 2) for _ in range(4)]
    assert share_of_cores(ranks[0], ranks) == 12


def test_ranks_of_another_machine_use_no_cores_here():
    ranks = [Cores(host, frozenset(range(16))) for host in ("a", "a", "b", "b")]
    assert share_of_cores(ranks[0], ranks) == 8


def test_the_number_of_workers_is_the_number_of_cores_up_to_a_limit(monkeypatch: pytest.MonkeyPatch):
    config = DataConfig(name="digits", root="digits")
    for count in (12, 64):
        monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _pid, count=count: set(range(count)))
        assert cores.count_workers(config) == min(count, cores.MAX_WORKERS)
