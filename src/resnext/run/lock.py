"""The lock of a run: only one process at a time trains it.

The lock is a POSIX lock (lockf): it ends with its process, however the process dies, and workers do not inherit it. The
file names the holder. If the file system has no such locks, or they do not work across hosts, the holder's heartbeat
decides: the holder updates the modification time of the file. Clocks of two hosts differ, and the clock of a dead host
may have been ahead by days. So this process does not compare the time with its own clock, but waits: the holder is
alive if the modification time changes within a minute.
"""

import fcntl
import json
import logging
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from resnext.errors import UserError
from resnext.files import check_regular

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0  # six missed heartbeats
OLD_SECONDS = 2 * 86400.0  # the clocks of two hosts differ by less, even with a wrong time zone
MAX_BYTES = 4096  # of the file; a larger file is damaged

log = logging.getLogger(__name__)


class RunLock:
    """A context manager. Entering it raises UserError with the holder if another process has the lock.

    Entering may take `STALE_SECONDS` if the holder is on another host and has no heartbeat.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        with suppress(FileNotFoundError):
            check_regular(self.path)
        self._file = open(self.path, "a+", errors="replace")
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locks_reach = self._holder().get("host", socket.gethostname()) == socket.gethostname()
        except (BlockingIOError, PermissionError):
            raise self._taken(self._holder()) from None
        except OSError:  # this file system has no locks
            locks_reach = False
        holder = self._holder()
        if not locks_reach and holder and not self._falls_silent(holder):
            raise self._taken(holder)
        self._write(
            host=socket.gethostname(),
            process=os.getpid(),
            job=os.environ.get("SLURM_JOB_ID"),
            since=time.strftime("%Y-%m-%d %H:%M:%S"),
        )
        self._beat = threading.Thread(target=self._heartbeat, name="run-lock", daemon=True)
        self._beat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._beat.join()
        with suppress(OSError):  # a full disk: the lock ends anyway when the file is closed
            self._write()
        with suppress(OSError):
            self._file.close()

    def is_taken(self) -> bool:
        try:
            with self:
                return False
        except UserError:
            return True

    def _taken(self, holder: dict[str, Any]) -> UserError:
        self._file.close()
        job = f", SLURM job {holder['job']}" if holder.get("job") else ""
        who = f"process {holder.get('process')} on {holder.get('host')}{job}, since {holder.get('since')}"
        who = who if holder else "a process"
        return UserError(f"{self.path.parent} is being trained by {who}: wait for it, or stop it first")

    def _holder(self) -> dict[str, Any]:
        self._file.seek(0)
        return _parse(self._file.read(MAX_BYTES))

    def _write(self, **holder: Any) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps(holder) + "\n")
        self._file.flush()

    def is_beating(self) -> bool:
        """Whether the lock has a holder, by its heartbeat. Does not touch the lock. Still true for 60 s after a kill.

        Returns immediately, unless the heartbeat lies in the future: then it waits for the next one. If the holder's
        clock is more than a minute behind, the answer is wrong.
        """
        try:
            check_regular(self.path)
            with open(self.path, errors="replace") as file:
                is_held = bool(_parse(file.read(MAX_BYTES)))
            age = time.time() - self._beaten_at() / 1e9
        except FileNotFoundError:
            return False
        if is_held and age <= -STALE_SECONDS:
            return self._beats_within(1.5 * HEARTBEAT_SECONDS)
        return is_held and age < STALE_SECONDS

    def _falls_silent(self, holder: dict[str, Any]) -> bool:
        """Whether the holder's heartbeat stays unchanged for a minute, by this process's own clock.

        A requeued job waits another minute for its own earlier start, whose node may be disconnected but alive.
        """
        if time.time() - self._beaten_at() / 1e9 > OLD_SECONDS:
            return True
        job = holder.get("job")
        is_ours = job is not None and job == os.environ.get("SLURM_JOB_ID")
        log.warning(
            "%s names process %s on %s: waiting up to %g s for its heartbeat",
            self.path,
            holder.get("process"),
            holder.get("host"),
            STALE_SECONDS,
        )
        deadline = time.monotonic() + (STALE_SECONDS if is_ours else 0)
        while self._beats_within(STALE_SECONDS):
            if time.monotonic() >= deadline:
                return False
        return True

    def _beats_within(self, seconds: float) -> bool:
        """Waits for the next heartbeat, for at most `seconds`."""
        seen, deadline = self._beaten_at(), time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(0.2)
            if self._beaten_at() != seen:
                return True
        return False

    def _beaten_at(self) -> int:
        """The time of the last heartbeat, in nanoseconds of an unknown clock.

        Reads it by path: POSIX ends this process's lock when any descriptor of the file is closed.
        """
        return self.path.stat().st_mtime_ns

    def _heartbeat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):  # a network file system that is unavailable for a moment
                os.utime(self.path)


def _parse(text: str) -> dict[str, Any]:
    """The holder; empty if the text is damaged, for example by a kill during the write."""
    try:
        holder = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}
