"""Files and folders are replaced completely or not changed."""

import os
from pathlib import Path

import pytest

from resnext.errors import UserError
from resnext.files import atomic_file, atomic_folder, atomic_write, read_text, resumable_folder


@pytest.mark.parametrize("content", ["zwölf\r\n", b"\xff\x00"])
def test_a_written_file_is_read_unchanged(tmp_path: Path, content: str | bytes):
    (tmp_path / "elsewhere").write_text("untouched")
    (tmp_path / ".file.partial").symlink_to("elsewhere")
    for _ in range(2):
        atomic_write(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == (content if isinstance(content, bytes) else b"zw\xc3\xb6lf\r\n")
    assert (tmp_path / "elsewhere").read_text() == "untouched"
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "file"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("several_writers", [False, True])
def test_an_error_leaves_the_old_file(tmp_path: Path, error: type[BaseException], several_writers: bool):
    atomic_write(tmp_path / "file", "old")
    with pytest.raises(error), atomic_file(tmp_path / "file", several_writers=several_writers) as file:
        file.write(b"half")
        raise error
    assert read_text(tmp_path / "file") == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_several_writers_have_separate_temporary_files(tmp_path: Path):
    with atomic_file(tmp_path / "file", several_writers=True) as one:
        with atomic_file(tmp_path / "file", several_writers=True) as other:
            one.write(b"half")
            other.write(b"whole")
        assert read_text(tmp_path / "file") == "whole"
        one.write(b" and half")
    assert read_text(tmp_path / "file") == "half and half"


def test_a_folder_is_complete_or_absent(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "folder") as folder:
        (folder / "file").touch()
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []
    with atomic_folder(tmp_path / "folder") as folder:
        (folder / "file").touch()
        assert not (tmp_path / "folder").exists()
    with pytest.raises(OSError, match="not empty"), atomic_folder(tmp_path / "folder"):
        pass
    assert os.listdir(tmp_path) == ["folder"]
    assert os.listdir(tmp_path / "folder") == ["file"]
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o755


def test_an_unfinished_folder_is_continued(tmp_path: Path):
    with pytest.raises(OSError), resumable_folder(tmp_path / "folder") as part:  # noqa: PT011
        (part / "one").touch()
        raise OSError
    with resumable_folder(tmp_path / "folder") as part:
        assert os.listdir(part) == ["one"]
        with pytest.raises(UserError, match="being written by another process"), resumable_folder(tmp_path / "folder"):
            pass
        (part / "two").touch()
    assert os.listdir(tmp_path) == ["folder"]
    assert sorted(os.listdir(tmp_path / "folder")) == ["one", "two"]
