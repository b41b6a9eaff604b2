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
    except (FileExistsError, NotADirectoryError):
        raise _not_a_folder(runs) from None
    except OSError as error:
        raise UserError(f"{runs} cannot be written ({error.strerror}): {NOT_WRITABLE}") from error


def check_runs_folder(runs: Path) -> None:
    """Raises UserError if `runs` exists and is not a folder that can be read."""
    try:
        os.scandir(runs).close()
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise _not_a_folder(runs) from None
    except OSError as error:
        raise UserError(f"{runs} cannot be read: {error.strerror}; make it readable") from error


def _not_a_folder(runs: Path) -> UserError:
    return UserError(f"{runs} is a file, but must be a folder for the runs: move it away")
