"""The ranks agree on one number."""

from datetime import timedelta
from typing import Any

import torch
import torch.distributed


class Agreement:
    """The largest value that any rank brings, on every rank, over CPU memory: it never waits for a GPU."""

    def __init__(self, timeout: timedelta) -> None:
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self._group: Any = torch.distributed.new_group(backend="gloo", timeout=timeout) if distributed else None

    def largest(self, value: int) -> int:
        """A collective: every rank calls it at the same step."""
        if self._group is None:
            return value
        tensor = torch.tensor(value)
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX, group=self._group)
        return int(tensor)
