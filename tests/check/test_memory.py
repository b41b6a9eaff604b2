"""The largest micro-batch: against a machine whose memory is a known line in the number of images."""

import pytest

from resnext.check.memory import candidates
from resnext.check.trial import OutOfMemory, find_largest

BASE, EACH = 1000, 100


class Machine:
    """A trial on a machine with `usable_bytes`: more than this kills the process."""

    def __init__(self, usable_bytes: float, seconds: float = 0.0) -> None:
        self.usable_bytes, self.seconds = usable_bytes, seconds
        self.tried: list[int] = []

    def ask(self, function: str, micro: int) -> tuple[int, float]:
        self.tried.append(micro)
        taken = BASE + EACH * micro
        if taken > self.usable_bytes:
            raise OutOfMemory
        return taken, self.seconds * micro


@pytest.mark.parametrize("usable", [1050, 1100, 1399, 1400, 7399, 7400, 100_000])
def test_the_largest_size_that_fits_is_found(usable: int):
    sizes = [1, 2, 4, 8, 16, 32, 64, 128]
    machine = Machine(usable)
    done, fits = find_largest(machine, sizes)  # type: ignore[arg-type]
    assert fits == max([size for size in sizes if BASE + EACH * size <= usable], default=0)
    assert [each.micro for each in done] == [size for size in sizes if size <= fits]


def test_from_the_third_size_on_nothing_is_tried_that_would_not_fit():
    """The kernel would kill the process, and perhaps another one."""
    machine = Machine(1700)
    find_largest(machine, [1, 2, 4, 8, 16])  # type: ignore[arg-type]
    assert machine.tried == [1, 2, 4]


def test_a_size_that_takes_long_is_calculated():
    machine = Machine(10_000, seconds=8.0)
    done, fits = find_largest(machine, [1, 2, 4, 8, 16, 32, 64, 128])  # type: ignore[arg-type]
    assert machine.tried == [1, 2]
    assert fits == 64  # 7,400 bytes; 128 images would take 13,800
    assert [each.micro for each in done] == [1, 2]


@pytest.mark.parametrize(
    ("share", "micro", "smallest", "sizes"),
    [
        (64, 64, 1, [1, 2, 4, 8, 16, 32, 64]),
        (96, 12, 1, [1, 2, 4, 8, 12, 24, 48, 96]),
        (64, 16, 2, [2, 4, 8, 16, 32, 64]),
        (7, 7, 1, [1, 7]),
        (1, 1, 1, [1]),
    ],
)
def test_every_size_divides_the_share_of_a_device(share: int, micro: int, smallest: int, sizes: list[int]):
    assert candidates(share, micro, smallest) == sizes
    assert all(share % size == 0 for size in sizes)
