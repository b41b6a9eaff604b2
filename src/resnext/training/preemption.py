"""Signals: a handler sets a flag and nothing else; the ranks agree between two optimizer steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed

from resnext.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Remembers the first signal. A second one of the same kind ends the process at once, as it would without us."""

    def __init__(self) -> None:
        self.signum = 0
        self._deferred = False

    def install(self, *, deferred: bool) -> None:
        """Catches the signals: at once, while there is nothing to save; or `deferred` to who reads `signum`."""
        self._deferred = deferred
        for signum in SIGNALS:
            signal.signal(signum, self._receive)

    @contextmanager
    def received_at_once(self) -> Iterator[None]:
        """Raises Interrupted at a signal, until `install` defers it; the usual handlers are back at the end."""
        self.install(deferred=False)
        try:
            yield
        finally:
            self._uninstall()

    def _uninstall(self) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self.signum = self.signum or signum
        signal.signal(signum, signal.SIG_DFL)
        if not self._deferred:
            raise Interrupted(signum)


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
