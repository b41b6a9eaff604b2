"""The folder that holds all runs."""

import os
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
        check_runs_folder(runs)
        raise UserError(f"{runs} cannot be written ({error.strerror}): {NOT_WRITABLE}") from error


def check_runs_folder(runs: Path) -> None:
    """Raises UserError if `runs` exists and is not a folder that can be read."""
    try:
        os.scandir(runs).close()
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise UserError(f"{runs} is a file, but must be a folder for the runs: move it away") from error
