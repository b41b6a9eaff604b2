"""EpochLoss: the mean training loss of an epoch. A checkpoint holds its sums, which a resume continues exactly."""

import math

import torch
from torch import Tensor

from resnext.runtime.collectives import gather_floats


class EpochLoss:
    """Sums loss × images over the micro-steps of this rank.

    The losses stay on the device until they are read, at a logged step or a save. They are added one after the other
    in float64, so the sum does not depend on when they are read. A loss that is not finite is left out: its step is
    skipped, or it ends the training.
    """

    def __init__(self) -> None:
        self._unread: list[tuple[Tensor, int]] = []
        self._sums = [0.0, 0.0]  # loss × images, images

    def begin(self) -> None:
        """Begins an epoch."""
        self._unread, self._sums = [], [0.0, 0.0]

    def add(self, loss: Tensor, images: int) -> None:
        """Adds a micro-step: the mean loss of its images."""
        self._unread.append((loss.detach(), images))

    def read(self) -> None:
        """Adds the waiting losses to the sums. Waits for the device."""
        unread, self._unread = self._unread, []
        if not unread:
            return
        losses = torch.stack([loss for loss, _ in unread]).tolist()
        for loss, (_, images) in zip(losses, unread, strict=True):
            if math.isfinite(loss):
                self._sums[0] += loss * images
                self._sums[1] += images

    def mean(self, device: torch.device) -> float | None:
        """The mean over the images of all ranks so far; None if a part of the epoch is not known. A collective."""
        total, images = _add(self.state(device))
        return total / images if images and math.isfinite(total) else None

    def state(self, device: torch.device) -> list[list[float]]:
        """The sums of every rank, for a checkpoint. A collective."""
        self.read()
        return gather_floats(self._sums, device)

    def load_state(self, state: list[list[float]] | None, rank: int, ranks: int) -> None:
        """`state` None: from a checkpoint of an earlier release. Then the mean of the epoch that it cuts is unknown."""
        if state is None:
            self._sums = [math.nan, 0.0]
        elif len(state) == ranks:
            self._sums = list(state[rank])
        else:  # another number of ranks: the first one continues all sums
            self._sums = _add(state) if rank == 0 else [0.0, 0.0]


def _add(sums: list[list[float]]) -> list[float]:
    """The sum over the ranks, in their order."""
    return [sum(values) for values in zip(*sums, strict=True)]
