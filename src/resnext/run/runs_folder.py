"""The folder that holds all runs."""

import errno
import tempfile
from pathlib import Path

from resnext.errors import NOT_WRITABLE, UserError


def make_runs_folder(runs: Path) -> None:
    """Makes the folder if it does not exist. Raises UserError if it is a file or cannot be written."""
    try:
        runs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=runs, prefix="."):
            pass
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            raise UserError(f"{runs} is a file, but must be a folder for the runs: move it away") from error
        raise UserError(f"{runs} cannot be written ({error.strerror}): {NOT_WRITABLE}") from error
