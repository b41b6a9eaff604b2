"""Reductions of one number over the ranks. Each is a collective: every rank makes the same calls in the same order."""

from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor


def min_over_ranks(value: int, device: torch.device) -> int:
    """The smallest value of any rank, on every rank.

    It uses the training's own process group (nccl on GPUs), which queues it behind the step's kernels. So it is for a
    caller that waits for the device anyway. A caller that must not wait uses MaxOverRanks.
    """
    if not torch.distributed.is_initialized():
        return value
    tensor = torch.tensor(value, device=device)
    torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MIN)
    return int(tensor)


class MaxOverRanks:
    """The largest value of any rank, on every rank. It uses CPU memory and never waits for a GPU.

    It has its own gloo group. A rank that does not answer within `timeout` ends the training.
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
        """Sends `value`, and returns the answer to the call before, which has arrived while the step was computed.

        Returns 0 if there was no call before, or `discard` came after it; with one process, `value` itself.
        docs/performance.md states the time that this saves.
        """
        if self._group is None:
            return value
        answer = self.discard()
        self._pending = self._send(value)
        return answer

    def discard(self) -> int:
        """Waits for the answer that `of_last_call` would return next, and returns it; 0 if there is none."""
        if self._pending is None:
            return 0
        (work, tensor), self._pending = self._pending, None
        work.wait()
        return int(tensor)

    def _send(self, value: int) -> tuple[Any, Tensor]:
        tensor = torch.tensor(value)
        work = torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX, group=self._group, async_op=True)
        return work, tensor
