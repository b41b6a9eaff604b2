"""The ranks agree on one number, over CPU memory: no GPU is ever waited for."""

from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor


class Agreement:
    """The largest value that any rank brings, on every rank. Its methods are collectives: every rank calls the same.

    `largest` waits for the answer; `largest_before` sends a value and gives the answer to the one before, which has
    come in while the step was computed (docs/performance.md has what that spares).
    """

    def __init__(self, timeout: timedelta) -> None:
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self._group: Any = torch.distributed.new_group(backend="gloo", timeout=timeout) if distributed else None
        self._pending: tuple[Any, Tensor] | None = None

    def largest(self, value: int) -> int:
        if self._group is None:
            return value
        work, tensor = self._send(value)
        work.wait()
        return int(tensor)

    def largest_before(self, value: int) -> int:
        """0 where there was no call before, or `forget` came after it; alone, `value` itself."""
        if self._group is None:
            return value
        answer = self.forget()
        self._pending = self._send(value)
        return answer

    def forget(self) -> int:
        """The answer that is still to be given, which then is not."""
        if self._pending is None:
            return 0
        (work, tensor), self._pending = self._pending, None
        work.wait()
        return int(tensor)

    def _send(self, value: int) -> tuple[Any, Tensor]:
        tensor = torch.tensor(value)
        work = torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX, group=self._group, async_op=True)
        return work, tensor
