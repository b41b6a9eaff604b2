"""Only regular files are opened: a FIFO is waited for without end, and /dev/zero is read without end."""

import stat
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
