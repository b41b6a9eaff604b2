"""Signals: a handler remembers which one came, and who asks between two optimizer steps acts on it. Imports no torch.

What SLURM sends, and what it means: USR1 (or USR2) that the time limit is near; TERM that the job is preempted,
requeued or cancelled, or that another rank died. scripts/train.sbatch asks SLURM which of these it was.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from resnext.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
NEAR_THE_END = (signal.SIGUSR1, signal.SIGUSR2)


class StopRequest:
    """Remembers the first signal. Later ones change nothing, but a second Ctrl-C ends the process at once."""

    def __init__(self) -> None:
        self.signum = 0
        self._deferred = True

    @contextmanager
    def received_to_the_end(self) -> Iterator[None]:
        """For a process that does nothing else: its signals are deferred, and ignored after this, while it ends."""
        for signum in SIGNALS:
            signal.signal(signum, self._receive)
        try:
            yield
        finally:
            for signum in SIGNALS:
                signal.signal(signum, signal.SIG_IGN)

    @contextmanager
    def received(self, *, deferred: bool) -> Iterator[None]:
        """Catches the signals: `deferred` to who reads `signum`, or raising Interrupted while there is nothing to save.

        The handlers that were there before are back at the end.
        """
        self._deferred = deferred
        before = {signum: signal.signal(signum, self._receive) for signum in SIGNALS}
        try:
            if not deferred and self.signum:
                raise Interrupted(self.signum)
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def defer(self) -> None:
        """From now on there is something to save: who reads `signum` decides when to stop."""
        self._deferred = True

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        is_first, self.signum = not self.signum, self.signum or signum
        if signum == signal.SIGINT:
            signal.signal(signum, signal.SIG_DFL)
        if is_first and not self._deferred:
            raise Interrupted(signum)
