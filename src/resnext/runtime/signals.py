"""Signals: a handler remembers which one came, and who asks between two optimizer steps acts on it. Imports no torch.

What SLURM sends, and what it means: USR1 (or USR2) that the time limit is near; TERM that the job is preempted,
requeued or cancelled, or that another rank died. scripts/train.sbatch asks SLURM which of these it was.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from resnext.errors import Interrupted
from resnext.runtime.parent_death import LAUNCHER
from resnext.runtime.slurm_job import is_slurm_rank

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
NEAR_THE_END = (signal.SIGUSR1, signal.SIGUSR2)
SECONDS_TO_REACT = 2.0


class StopRequest:
    """Remembers the first signal and says at once what follows. A second Ctrl-C ends the process without saving."""

    def __init__(self) -> None:
        self.signum = 0
        self._deferred = True
        self._saves = False
        self._process = os.getpid()
        self._unsaid = threading.Lock()  # held by whoever says it first: the handler or the thread

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
        self._deferred = self._saves = True

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a loader process, which was forked with this handler
            return
        is_first, self.signum = not self.signum, self.signum or signum
        self._acknowledge(signum)
        if signum == signal.SIGINT:
            signal.signal(signum, signal.SIG_DFL)
        if is_first and not self._deferred:
            raise Interrupted(signum)

    def _acknowledge(self, signum: int) -> None:
        """Says once what the first signal does. Safe in a signal handler: no buffer and no lock that is waited for."""
        if self._unsaid.acquire(blocking=False) and speaks_for_all_ranks():
            say_at_once(describe_stop(signum, "saving after this step" if self._saves else "stopping"))

    def _end_what_hangs(self, reader: int, before_exit: Callable[[int], None]) -> None:
        with open(reader, "rb", buffering=0) as signums:
            while signum := int.from_bytes(signums.read(1)):
                if signum not in SIGNALS:
                    continue
                self._acknowledge(signum)  # a handler waits until the main thread is back from a library
                if self._deferred:
                    continue
                time.sleep(SECONDS_TO_REACT)
                if not self.signum:
                    before_exit(signum)
                    os._exit(128 + signum)


@contextmanager
def acknowledged() -> Iterator[None]:
    """For a launcher, whose ranks are silent: says what the first signal does; a second Ctrl-C ends all of them.

    The handlers stay those of torchrun; the ranks are killed when this process ends (parent_death.py).
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_acknowledge_signals, args=[reader], daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)


def _acknowledge_signals(reader: int) -> None:
    signums: list[int] = []
    with open(reader, "rb", buffering=0) as received:
        while signum := int.from_bytes(received.read(1)):
            if signum not in SIGNALS:
                continue
            signums.append(signum)
            if len(signums) == 1:
                say_at_once(describe_stop(signum, "stopping; what is trained is saved after this step"))
            elif signums.count(signal.SIGINT) > 1:
                say_at_once("stopped without saving")
                os._exit(128 + signal.SIGINT)


def describe_stop(signum: int, what: str) -> str:
    """What follows, and for a Ctrl-C how to stop sooner."""
    return (
        f"{what}; Ctrl-C again stops without saving"
        if signum == signal.SIGINT
        else f"{signal.Signals(signum).name}: {what}"
    )


def speaks_for_all_ranks() -> bool:
    """Whether this process is the first rank, and no launcher of ours speaks for it."""
    rank = os.environ.get("SLURM_PROCID" if is_slurm_rank() else "RANK", "0")
    return rank == "0" and os.environ.get(LAUNCHER, str(os.getpid())) == str(os.getpid())


def say_at_once(text: str) -> None:
    """To stderr, past every buffer and lock, as a signal handler must; on a terminal below the progress bar."""
    with suppress(OSError):  # closed, or full
        os.write(2, f"{chr(10) if os.isatty(2) else ''}{text}\n".encode())
