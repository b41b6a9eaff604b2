"""Exchange of numbers between the ranks. Each is a collective: every rank makes the same calls in the same order."""

from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor


def min_over_ranks(value: int, device: torch.device) -> int:
    """The smallest value of any rank, on every rank.

    Uses the training's own process group (nccl on GPUs), which runs this after the step's kernels. Call it only where
    the program waits for the device anyway; elsewhere, use MaxOverRanks.
    """
    if not torch.distributed.is_initialized():
        return value
    tensor = torch.tensor(value, device=device)
    torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MIN)
    return int(tensor)


def gather_floats(values: list[float], device: torch.device) -> list[list[float]]:
    """`values` of every rank, in the order of the ranks, on every rank; for the same places as min_over_ranks."""
    if not torch.distributed.is_initialized():
        return [list(values)]
    mine = torch.tensor(values, dtype=torch.float64, device=device)
    found = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(found, mine)
    return torch.stack(found).tolist()


class MaxOverRanks:
    """The largest value of any rank, on every rank. Uses CPU memory and its own gloo group: never waits for a GPU.

    A rank that does not answer within `timeout` ends the training.
    """

    def __init__(self, timeout: timedelta) -> None:
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self._group: Any = torch.distributed.new_group(backend="gloo", timeout=timeout) if distributed else None
        self._pending: tuple[Any, Tensor] | None = None

    def now(self, value: int) -> int:
        """The largest value; waits for all ranks."""
        if self._group is None:
            return value
        work, tensor = self._send(value)
        work.wait()
        return int(tensor)

    def of_last_call(self, value: int) -> int:
        """Sends `value`, and returns the result of the previous call, which arrived during the computation of the step.

        Returns 0 if there was no previous call, or if `discard` was called since then. With one process, returns
        `value` itself. docs/performance.md has the time that this saves.
        """
        if self._group is None:
            return value
        answer = self.discard()
        self._pending = self._send(value)
        return answer

    def discard(self) -> int:
        """Waits for the result that `of_last_call` would return next, and returns it; 0 if there is none."""
        if self._pending is None:
            return 0
        (work, tensor), self._pending = self._pending, None
        work.wait()
        return int(tensor)

    def _send(self, value: int) -> tuple[Any, Tensor]:
        tensor = torch.tensor(value)
        work = torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX, group=self._group, async_op=True)
        return work, tensor
