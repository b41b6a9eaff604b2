"""Signals: a handler records the first one, and the training stops between two optimizer steps. Imports no torch.

SLURM sends USR1 (or USR2) when the time limit is near. It sends TERM when the job is preempted, requeued or cancelled,
or when another rank died. scripts/train.sbatch asks SLURM for the reason.
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
TIME_LIMIT_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
SECONDS_TO_REACT = 2.0


class StopRequest:
    """Records the first signal and prints at once what happens next. A second Ctrl-C ends the run without saving."""

    def __init__(self) -> None:
        self.signum = 0
        self._deferred = True
        self._saves = False
        self._process = os.getpid()
        self._print_once = threading.Lock()  # taken by the handler or by the thread, and never released

    @contextmanager
    def received_to_the_end(self, *, deferred: bool) -> Iterator[None]:
        """Like `received`, but afterwards signals are ignored, because the process is about to exit."""
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
        """Catches the signals. If `deferred`, only records them for code that reads `signum`; else raises Interrupted.

        Restores the earlier handlers at the end.
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
    def ends_hanging_process(self, before_exit: Callable[[int], None]) -> Iterator[None]:
        """Ends this process if a signal that is not deferred cannot raise Interrupted.

        Python runs a handler only after the main thread returns from a library. The main thread does not return if it
        waits in init_process_group for a process that hangs. But Python writes each signal to the wake-up descriptor
        immediately, and a thread reads it there.
        """
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=self._end_hanging_process, args=[reader, before_exit], daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            os.close(writer)  # the thread reads the end of the file, and ends

    def defer(self) -> None:
        """From now on, only records signals: there is a state to save. The code that reads `signum` stops the run."""
        self._deferred = self._saves = True

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a DataLoader worker: it was forked with this handler
            return
        is_first, self.signum = not self.signum, self.signum or signum
        self._acknowledge(signum)
        if signum == signal.SIGINT:
            signal.signal(signum, signal.SIG_DFL)
        if is_first and not self._deferred:
            raise Interrupted(signum)

    def _acknowledge(self, signum: int) -> None:
        """Prints once what happens after the signal. Safe in a signal handler: uses no buffer and waits for no lock."""
        if self._print_once.acquire(blocking=False) and prints_for_all_ranks():
            saving, ending = ("saving after this step", "stops without saving"), ("stopping", "ends it at once")
            print_unbuffered(_describe_stop(signum, *(saving if self._saves else ending)))

    def _end_hanging_process(self, reader: int, before_exit: Callable[[int], None]) -> None:
        with open(reader, "rb", buffering=0) as signums:
            while signum := int.from_bytes(signums.read(1)):
                if signum not in SIGNALS:
                    continue
                self._acknowledge(signum)  # the handler may have to wait for the main thread
                if self._deferred:
                    continue
                time.sleep(SECONDS_TO_REACT)
                if not self.signum:
                    before_exit(signum)
                    os._exit(128 + signum)


@contextmanager
def acknowledged() -> Iterator[None]:
    """For a launcher: prints for all ranks what happens after the first signal. A second Ctrl-C ends all ranks.

    torchrun keeps its own handlers. The ranks are killed when this process ends (parent_death.py).
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
                what = ("stopping; the training is saved after this step", "stops without saving")
                print_unbuffered(_describe_stop(signum, *what))
            elif signums.count(signal.SIGINT) > 1:
                print_unbuffered("stopped without saving")
                os._exit(128 + signal.SIGINT)


def _describe_stop(signum: int, what: str, again: str) -> str:
    """What happens after the signal; for Ctrl-C, also what a second one does."""
    return f"{what}; Ctrl-C again {again}" if signum == signal.SIGINT else f"{signal.Signals(signum).name}: {what}"


def prints_for_all_ranks() -> bool:
    """Whether this process is rank 0 and has no launcher that prints instead."""
    rank = os.environ.get("SLURM_PROCID" if is_slurm_rank() else "RANK", "0")
    return rank == "0" and os.environ.get(LAUNCHER, str(os.getpid())) == str(os.getpid())


def print_unbuffered(text: str) -> None:
    """Writes to stderr without buffers and locks, as a signal handler must; on a terminal, below the progress bar."""
    with suppress(OSError):  # closed, or full
        os.write(2, f"{chr(10) if os.isatty(2) else ''}{text}\n".encode())
