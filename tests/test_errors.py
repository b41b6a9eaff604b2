"""An error that ends a command is printed in one line, with its whole text."""

import errno
import importlib
import pickle
from types import SimpleNamespace

import pytest

from resnext.__main__ import run_verb
from resnext.errors import NOT_WRITABLE, RunFailed, UserError, describe_error, describe_os_error, picklable


class Unpicklable(UserError):
    def __init__(self, *, path: str) -> None:
        super().__init__(f"{path} is damaged")


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (Unpicklable(path="a.jpg"), UserError, "a.jpg is damaged"),
        (RunFailed("lost"), RunFailed, "lost"),
        (KeyError("x"), RunFailed, "the part failed: KeyError: 'x'"),
    ],
)
def test_an_error_reaches_another_process(error: Exception, kind: type[Exception], text: str):
    found = pickle.loads(pickle.dumps(picklable(error, "the part")))
    assert (type(found), str(found)) == (kind, text)


@pytest.mark.parametrize(("error", "code"), [(UserError, 2), (RunFailed, 1)])
def test_an_error_of_several_lines_is_printed_in_one_line(
    error: type[Exception], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """If a message quotes a library's message, the key is in the first line and the reason in the last."""

    def fail(_arguments: list[str]) -> int:
        raise error("model.name=timm/x cannot be built: Expected\n  size 3,\n\n but got 4\n")

    monkeypatch.setattr(importlib, "import_module", lambda _name: SimpleNamespace(main=fail, load_extensions=tuple))
    assert run_verb(["train"]) == code
    printed = capsys.readouterr().err
    assert printed == "resnext train: model.name=timm/x cannot be built: Expected size 3, but got 4\n"


def test_a_librarys_error_is_described_by_its_type_and_first_line():
    assert (
        describe_error(RuntimeError("\nCUDA error: out of luck\nCompile with …"))
        == "RuntimeError: CUDA error: out of luck"
    )
    assert describe_error(MemoryError()) == "MemoryError"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(errno.EROFS, "Read-only file system", "runs/x/lock"),
            f"runs/x/lock: Read-only file system; {NOT_WRITABLE}",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "x"), "x: No space left on device; make room"),
        (OSError(errno.ENOENT, "No such file or directory", "x"), "x: No such file or directory"),
        (OSError("odd"), "OSError: odd"),
    ],
)
def test_an_error_of_the_file_system_has_a_remedy(error: OSError, line: str):
    assert describe_os_error(error) == line


def test_ctrl_c_gives_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def interrupt(_arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(
        importlib, "import_module", lambda _name: SimpleNamespace(main=interrupt, load_extensions=tuple)
    )
    assert run_verb(["train"]) == 130
    assert capsys.readouterr().err == "resnext train: interrupted\n"
