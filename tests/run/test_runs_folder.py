"""One line for a folder for runs that cannot be used. The errors are simulated, because root may write everywhere."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from resnext.errors import UserError
from resnext.run.runs_folder import check_runs_folder, make_runs_folder


def test_the_folder_is_made_and_left_empty():
    make_runs_folder(Path("runs"))
    make_runs_folder(Path("runs"))
    assert list(Path("runs").iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_refused():
    Path("runs").touch()
    with pytest.raises(UserError, match=r"^runs is a file, but must be a folder for the runs: move it away$"):
        make_runs_folder(Path("runs"))


def test_a_folder_that_cannot_be_read_is_refused(monkeypatch: pytest.MonkeyPatch):
    def refuse(_path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "runs")

    check_runs_folder(Path("runs"))
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"^runs cannot be read: Permission denied; make it readable$"):
        check_runs_folder(Path("runs"))


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("where", ["mkdir", "mkdtemp"])
def test_a_folder_that_cannot_be_written_is_refused(code: int, where: str, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(code, os.strerror(code), "runs")

    monkeypatch.setattr(*((Path, "mkdir") if where == "mkdir" else (tempfile, "mkdtemp")), refuse)
    with pytest.raises(UserError) as error:
        make_runs_folder(Path("runs"))
    assert str(error.value) == (
        f"runs cannot be written ({os.strerror(code)}): make it writable, work in another folder, "
        "or replace it with a link to a writable folder"
    )
