"""Watchdog: a hung or dead DataLoader worker fails the run with a one-line error."""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

from resnext.errors import RunFailed, UserError, describe_error
from resnext.runtime.parent_death import die_with_parent

SECONDS_TO_DIE = 2.0


def die_with_rank() -> None:
    """Makes this worker end with its rank. torch's own watchdog needs up to 5 s to notice that the rank was killed."""
    rank = multiprocessing.parent_process()
    assert rank is not None, "called in a worker"
    assert rank.pid is not None
    forked = multiprocessing.get_start_method() == "fork"  # else the parent is multiprocessing's fork server
    die_with_parent(rank.pid if forked else os.getppid())


class LoaderFailed(RunFailed):
    """A worker hangs, was killed or failed. The message is one line that says what to do."""


class LoaderHung(LoaderFailed):
    """No worker returned a batch in time."""


def wrap_error(error: Exception) -> UserError | RunFailed:
    """The error that a worker returns instead of a batch, for the main process to raise.

    If a worker raised the error, DataLoader would build another error of the same type, with the text of the traceback
    as its message. This function returns our own errors unchanged. Any other error may not be picklable, so a
    LoaderFailed replaces it and describes it. The traceback is added as a note, for log.txt.
    """
    ours = isinstance(error, UserError | RunFailed)
    wrapped = error if ours else LoaderFailed(f"a DataLoader worker failed: {describe_error(error)}; see log.txt")
    wrapped.add_note("In a DataLoader worker: " + "".join(traceback.format_exception(error)))
    return wrapped


class WorkerWatchdog:
    """Watches the workers of one DataLoader during its iterations.

    DataLoader's own timeout does not cover the transfer of a batch, but a worker may also hang during the transfer.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._deadline: float | None = None
        self._hung = False
        self._processes: list[BaseProcess] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Runs the watchdog during one iteration."""
        over = threading.Event()
        threading.Thread(target=self._watch, args=[over], daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def watch_children(self) -> None:
        """Call this after the workers have started.

        Removes torch's SIGCHLD handler. When a worker dies, this handler raises an error wherever the main thread is,
        even during a save. Without the handler, the error is raised during the wait for the next batch.
        """
        for process in multiprocessing.active_children():
            if process not in self._processes:
                self._processes.append(process)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Encloses the wait for a batch. Raises LoaderFailed if the wait is too long or a worker died."""
        self._deadline = time.monotonic() + self.timeout
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            reason = self._reason(error)
            if reason is None:
                raise
            raise (LoaderHung if self._hung else LoaderFailed)(reason) from error
        finally:
            self._deadline = None

    def _reason(self, error: Exception) -> str | None:
        if isinstance(error, (ConnectionError, EOFError)):
            self._wait_for_death()  # the connection to a killed worker may break before its exit code is known
        if self._hung:
            return (
                f"no DataLoader worker returned a batch within data.worker_timeout={self.timeout:g} seconds: check "
                "whether the storage hangs; if it is only slow, give a longer timeout"
            )
        code = self._exit_code()
        if code is None:
            return None
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"a DataLoader worker {how}: if the machine ran out of memory, give fewer data.workers"

    def _wait_for_death(self) -> None:
        deadline = time.monotonic() + SECONDS_TO_DIE
        while self._exit_code() is None and time.monotonic() < deadline:
            time.sleep(0.01)

    def _exit_code(self) -> int | None:
        """The exit code of a worker that failed, None if none did."""
        return next((process.exitcode for process in self._processes if process.exitcode), None)

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(min(1, self.timeout / 10)):
            deadline = self._deadline
            if deadline is not None and time.monotonic() > deadline:
                self._hung = self._exit_code() is None  # DataLoader itself checks for dead workers only every 5 s
                for child in multiprocessing.active_children():
                    child.kill()
                return
