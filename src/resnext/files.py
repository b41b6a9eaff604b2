"""Reads, replaces and locks files: the only place that replaces a file or locks a folder. Imports nothing heavy.

Only regular files are opened: opening a FIFO may wait forever, and reading /dev/zero never ends.
"""

import fcntl
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from resnext.errors import UserError

MAX_TEXT_BYTES = 2**28  # the largest real file: a run.json with 20,000 classes and 100,000 starts has 100 MB
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}


def check_regular(path: Path) -> None:
    """Checks that `path` is a regular file, or a link to a regular file.

    Raises:
        FileNotFoundError: if `path` does not exist.
        UserError: if it is a folder, a FIFO, a socket or a device, a link to one of these, or a broken link.
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
    """The whole text of a file.

    Raises:
        FileNotFoundError: if `path` does not exist.
        UserError: if it is not a regular file, has more than MAX_TEXT_BYTES, or (if `errors` is strict) is not UTF-8.
    """
    check_regular(path)
    if (size := path.stat().st_size) > MAX_TEXT_BYTES:
        raise UserError(f"{path} is damaged: it has {size:,} bytes, more than any file of this kind: move it away")
    try:
        return path.read_text(encoding="utf-8", errors=errors)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is damaged: byte {error.start:,} is not UTF-8 text; restore it, or move it away"
        ) from None


def atomic_write(path: Path, content: str | bytes) -> None:
    """Replaces `path`: readers see the old file or the new file, even after a kill. Raises OSError."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_file(path: Path, *, several_writers: bool = False) -> Iterator[IO[bytes]]:
    """Yields a temporary file beside `path`, which replaces `path` at the end; an error removes it.

    After a kill, the next call removes the temporary file. With `several_writers`, each process has its own temporary
    file, and no call removes it after a kill.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex if several_writers else 'partial'}")
    aside.unlink(missing_ok=True)  # open() would wait for a FIFO, and would follow a link
    try:
        with open(aside, "wb") as file:
            yield file
            sync(file)
        os.replace(aside, path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise


def check_writable(folder: Path) -> None:
    """Creates `folder`. Raises OSError if no file can be written to it, before the work whose result goes there."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):  # root has every permission, so only writing shows it
        pass


def move_into_place(made: Path, target: Path) -> None:
    """Gives a finished file or folder its final name; a file replaces an earlier one. Raises OSError."""
    if made.is_file():
        with open(made, "rb") as file:
            os.fsync(file.fileno())
    os.replace(made, target)
    sync_folder(target.parent)


def sync(file: IO[bytes]) -> None:
    """Waits until the written data is on the disk, and not only in memory."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Like `sync`, for the names in `folder`: without it, the old file may be back after a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_or_move(path: Path, other: Path) -> None:
    """Adds the name `other` to the file `path`, and replaces an older `other`. Without hard links, moves the file.

    The file always has at least one of the two names.
    """
    if not _link(path, other):
        os.replace(path, other)


def link_or_copy(path: Path, other: Path) -> None:
    """Like `link_or_move`, but without hard links, copies the file. Raises OSError if there is no space for it."""
    if not _link(path, other):
        with open(path, "rb") as content, atomic_file(other) as file:
            shutil.copyfileobj(content, file)


def _link(path: Path, other: Path) -> bool:
    """Returns False on a file system without hard links."""
    aside = other.with_name(f".{other.name}.partial")
    aside.unlink(missing_ok=True)
    try:
        os.link(path, aside)
    except OSError:
        return False
    os.replace(aside, other)
    aside.unlink(missing_ok=True)  # if both are already names of one file, os.replace does nothing
    return True


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path`, which is renamed to `path` at the end; an error removes it.

    Raises:
        OSError: also if another process has created a `path` that is not empty.
    """
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}-", dir=path.parent))
    aside.chmod(0o755)
    try:
        yield aside
        aside.rename(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


@contextmanager
def resumable_folder(path: Path) -> Iterator[Path]:
    """Yields the folder PATH.part, locked, and renames it to `path` at the end. An error leaves it for the next call.

    Raises:
        UserError: if another process is writing to the folder.
    """
    aside = path.with_name(f"{path.name}.part")
    aside.mkdir(parents=True, exist_ok=True)
    with folder_lock(aside):
        yield aside
        os.replace(aside, path)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Locks `folder`, at most until this process ends. Raises UserError if another process has the lock."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(f"{folder} is being written by another process: wait for it, or stop it") from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(descriptor)
