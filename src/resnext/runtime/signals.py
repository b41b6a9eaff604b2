"""Signals: a handler remembers which one came, and who asks between two optimizer steps acts on it. Imports no torch.

What SLURM sends, and what it means: USR1 (or USR2) that the time limit is near; TERM that the job is preempted,
requeued or cancelled, or that another rank died. scripts/train.sbatch asks SLURM which of these it was.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from resnext.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
NEAR_THE_END = (signal.SIGUSR1, signal.SIGUSR2)
SECONDS_TO_REACT = 2.0


class StopRequest:
    """Remembers the first signal. Later ones change nothing, but a second Ctrl-C ends the process at once."""

    def __init__(self) -> None:
        self.signum = 0
        self._deferred = True

    @contextmanager
    def received_to_the_end(self, *, deferred: bool) -> Iterator[None]:
        """`received`, for a process that does nothing else: signals are ignored afterwards, while the process ends."""
        self._deferred = deferred
        for signum in SIGNALS:
            signal.signal(signum, self._receive)
        try:
            yield
        finally:
            for signum in SIGNALS:
                signal.signal(signum, signal.SIG_IGN)

    @contextmanager
    def received(self, *, deferred: bool) -> Iterator[None]:
        """Catches the signals. If `deferred`, only records them for who reads `signum`; otherwise raises Interrupted.

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

    @contextmanager
    def ends_what_hangs(self, before_exit: Callable[[int], None]) -> Iterator[None]:
        """Ends this process if a signal that is not deferred cannot raise Interrupted.

        Python runs a handler only when the main thread is back from a library: never, if it waits in
        init_process_group for a process that hangs. The wake-up descriptor is written to at once.
        """
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=self._end_what_hangs, args=[reader, before_exit], daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            os.close(writer)  # the thread reads the end of the file, and ends

    def defer(self) -> None:
        """From now on there is something to save: who reads `signum` decides when to stop."""
        self._deferred = True

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        is_first, self.signum = not self.signum, self.signum or signum
        if signum == signal.SIGINT:
            signal.signal(signum, signal.SIG_DFL)
        if is_first and not self._deferred:
            raise Interrupted(signum)

    def _end_what_hangs(self, reader: int, before_exit: Callable[[int], None]) -> None:
        with open(reader, "rb", buffering=0) as signums:
            while signum := int.from_bytes(signums.read(1)):
                if signum not in SIGNALS or self._deferred:
                    continue
                time.sleep(SECONDS_TO_REACT)
                if not self.signum:
                    before_exit(signum)
                    os._exit(128 + signum)
