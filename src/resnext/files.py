"""Reads, replaces and locks files: the only place that replaces a file or locks a folder. Imports nothing heavy.

Only regular files are opened: a FIFO is waited for without end, and /dev/zero is read without end.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resnext.errors import UserError

MAX_TEXT_BYTES = 2**28  # the largest honest file is a run.json: 20,000 classes and 100,000 starts take 100 MB
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}


def check_regular(path: Path) -> None:
    """Follows links.

    Raises:
        FileNotFoundError: if nothing is there.
        UserError: for a folder, a FIFO, a device, or a link to one or to nothing.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if not path.is_symlink():
            raise
        raise UserError(
            f"{path} is a link to a file that does not exist: restore the file, or remove the link"
        ) from None
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "a device")
        raise UserError(f"{path} is {kind} and not a regular file: move it away, or restore the file")


def read_text(path: Path, errors: str = "strict") -> str:
    """The whole text.

    Raises:
        FileNotFoundError: if nothing is there.
        UserError: if it is not a regular file, too large to be what is expected, or (if `errors` is strict) not UTF-8.
    """
    check_regular(path)
    if (size := path.stat().st_size) > MAX_TEXT_BYTES:
        raise UserError(f"{path} is damaged: it has {size:,} bytes, more than any such file: move it away")
    try:
        return path.read_text(errors=errors)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is damaged: byte {error.start:,} is not UTF-8 text; restore it, or move it away"
        ) from None


def atomic_write(path: Path, text: str) -> None:
    """A reader, or a kill, finds the old file or the new one. Raises OSError."""
    aside = path.with_name(f".{path.name}.partial")
    aside.unlink(missing_ok=True)  # a FIFO would be waited for, a link followed
    with open(aside, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Holds `folder`, until this process ends at the latest. Raises UserError if another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(f"{folder} is being written by another process: wait for it, or end it") from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(descriptor)
