"""One process at a time trains a run.

The lock is POSIX's (lockf): it ends with its process, however that dies, and loader processes do not inherit it. The
file says who holds it. Where the file system has no such locks, or they do not reach across hosts, the holder's
heartbeat counts: the file's modification time.
"""

import fcntl
import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from resnext.errors import UserError

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0  # six missed heartbeats


class RunLock:
    """A context manager; entering it raises UserError with the holder if another process has the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        self._file = open(self.path, "a+")
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locks_reach = self._holder().get("host", socket.gethostname()) == socket.gethostname()
        except (BlockingIOError, PermissionError):
            raise self._taken() from None
        except OSError:  # this file system has no locks
            locks_reach = False
        if not locks_reach and self._holder() and not self._falls_silent():
            raise self._taken()
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
        with suppress(OSError):  # a full disk: the lock itself ends with the file
            self._write()
        with suppress(OSError):
            self._file.close()

    def is_taken(self) -> bool:
        try:
            with self:
                return False
        except UserError:
            return True

    def _taken(self) -> UserError:
        holder = self._holder()
        self._file.close()
        job = f", SLURM job {holder['job']}" if holder.get("job") else ""
        who = (
            f"process {holder['process']} on {holder['host']}{job}, since {holder['since']}" if holder else "a process"
        )
        return UserError(f"{self.path.parent} is being trained by {who}: wait for it, or stop it first")

    def _holder(self) -> dict[str, Any]:
        self._file.seek(0)
        try:
            return json.loads(self._file.read() or "{}")
        except ValueError:  # killed while writing
            return {}

    def _write(self, **holder: Any) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps(holder) + "\n")
        self._file.flush()

    def is_beating(self) -> bool:
        """Whether somebody holds it, as far as can be told without touching it: a minute late after a kill."""
        try:
            return bool(json.loads(self.path.read_text() or "{}")) and self._age() < STALE_SECONDS
        except (FileNotFoundError, ValueError):
            return False

    def _falls_silent(self) -> bool:
        """A requeued job waits for its own former start: that node may be cut off, and not dead."""
        job = self._holder().get("job")
        is_ours = job is not None and job == os.environ.get("SLURM_JOB_ID")
        deadline = time.monotonic() + (2 * STALE_SECONDS if is_ours else 0)
        while self._age() < STALE_SECONDS:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.5)
        return True

    def _age(self) -> float:
        return time.time() - self.path.stat().st_mtime

    def _heartbeat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):  # a network file system that is away for a moment
                os.utime(self.path)
