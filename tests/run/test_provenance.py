"""The code of a run: git applies code.diff, and the digest changes with every source file."""

import os
import subprocess
from pathlib import Path

import pytest

from resnext.run import provenance
from resnext.run.provenance import describe_code, write_diff


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project under git, instead of this project."""
    root = tmp_path / "project"
    for name, text in {
        "src/resnext/net.py": "a = 1\nb = 2\n\n",
        "src/resnext/dos.py": "c = 3\r\n",
        "configs/train.yaml": "seed: 1\n",
        "README.md": "# Title\n",
        ".gitignore": "__pycache__/\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode())
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "start")
    monkeypatch.setattr(provenance, "PROJECT", root)
    monkeypatch.setattr(provenance, "PACKAGE", root / "src/resnext")
    return root


def diff(project: Path) -> str:
    path = project.parent / "code.diff"
    write_diff(path)
    return path.read_bytes().decode(errors="surrogateescape")


def test_code_diff_restores_the_uncommitted_changes(project: Path):
    """`git apply` on a fresh clone gives the same files, byte for byte."""
    changed = {
        "src/resnext/net.py": b"a = 5\nb = 2\n\n",
        "src/resnext/dos.py": b"c = 4\r\n",
        "src/resnext/models/new network.py": b"width = 8\n\n",
        "src/resnext/no_newline.py": "größe = 3".encode(),
        "src/resnext/größe.py": b"a\x0cb\n",
        "src/resnext/empty/__init__.py": b"",
        "configs/experiment/mine.yaml": b"seed: 7\r\n",
    }
    for name, content in changed.items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_bytes(content)
    (project / "src/resnext/weights.bin").write_bytes(bytes(1000))  # named at the end, where git apply ignores it
    diff(project)
    git(project.parent, "clone", "-q", str(project), "clone")
    git(project.parent / "clone", "apply", "--whitespace=nowarn", "../code.diff")
    assert {name: (project.parent / "clone" / name).read_bytes() for name in changed} == changed


def test_the_users_git_settings_do_not_change_the_diff(project: Path):
    (project / "src/resnext/net.py").write_text("a = 5\n")
    (project / "src/resnext/new.py").write_text("new = 1\n")
    plain, code = diff(project), describe_code()
    for key, value in {"color.ui": "always", "diff.external": "false", "diff.noprefix": "true"}.items():
        git(project, "config", key, value)
    assert (diff(project), describe_code()) == (plain, code)


def test_the_digest_changes_with_every_source_file_of_the_package(project: Path):
    commit = git(project, "rev-parse", "HEAD").strip()
    assert describe_code() == commit
    seen = {commit}
    for name, content in [("net.py", "a = 2\n"), ("new.py", "a = 1\n"), ("new.py", "a = 2\n"), ("newer.py", "a = 2\n")]:
        (project / "src/resnext" / name).write_text(content)
        seen.add(str(describe_code()))
    assert len(seen) == 5
    before = describe_code()
    for name in ("configs/mine.yaml", "src/resnext/__pycache__/net.py", "notes.py"):  # not code of a run
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("x")
    assert describe_code() == before


def test_there_is_no_diff_if_all_is_committed(project: Path):
    write_diff(project / "code.diff")
    assert not (project / "code.diff").exists()


def test_secrets_binaries_and_huge_files_are_named_and_not_copied(project: Path):
    """Only text files with a suffix in SOURCES are copied. A link is not followed, and a FIFO is not opened."""
    for name in (".env", "src/.env", "src/resnext/.secret.yaml", "src/resnext/key.pem", "configs/account.json"):
        (project / name).write_text("hunter2\n")
    (project / "src/resnext/binary.py").write_bytes(b"\0hunter2\n")
    (project / "src/resnext/link.py").symlink_to(project / ".env")
    (project / "src/resnext/zero.py").symlink_to("/dev/zero")
    with open(project / "src/resnext/huge.py", "wb") as file:
        file.truncate(8 << 30)
    os.mkfifo(project / "src/resnext/pipe.py")
    text = diff(project)
    assert "hunter2" not in text
    assert len(text) < 2000
    left_out = [line for line in text.splitlines() if line.startswith("# untracked and not copied: ")]
    names = {line.removeprefix("# untracked and not copied: ").rpartition(" (")[0] for line in left_out}
    files = {"key.pem", ".secret.yaml", "binary.py", "link.py", "zero.py", "huge.py"}
    assert names == {f"src/resnext/{name}" for name in files} | {"src/.env", "configs/account.json"}
    before = describe_code()
    os.truncate(project / "src/resnext/huge.py", (8 << 30) + 1)
    assert describe_code() != before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("configs/secrets.yaml", "logger:\n  api_key: hunter2\n"),
        ("configs/wandb.toml", 'password = "hunter2"\n'),
        ("configs/proxy.yaml", "root: http://me:hunter2@host/images\n"),
        ("src/resnext/job.sh", "export WANDB_API_KEY=hunter2\n"),
        ("src/resnext/login.py", 'token = "hunter2"\n'),
        ("src/resnext/account.py", 'ACCOUNT = {"password": "hunter2"}\n'),
    ],
)
def test_a_source_file_that_holds_a_secret_is_named_and_not_copied(project: Path, name: str, text: str):
    (project / name).write_text(text)
    assert diff(project) == f"# untracked and not copied: {name} ({len(text)} bytes)\n"
    before = describe_code()
    (project / name).write_text(text.replace("hunter2", "hunter3"))
    assert (describe_code() != before) == name.startswith("src/resnext/")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "src/resnext/order.py",
            "def first(rows, key: str, token=None):\n    return key == 'a' or sorted(rows, key=len)[0]\n",
        ),
        ("src/resnext/job.sh", 'export WANDB_API_KEY="$KEY"\n'),
        ("configs/mine.yaml", "model:\n  key:\n    width: 8\n"),
    ],
)
def test_a_name_alone_is_not_a_secret(project: Path, name: str, text: str):
    (project / name).write_text(text)
    assert text.splitlines()[0] in diff(project)


def test_a_cut_diff_ends_with_a_note(project: Path, monkeypatch: pytest.MonkeyPatch):
    (project / "src/resnext/net.py").write_text("a = 5\nb = 2\n")
    (project / "src/resnext/new.py").write_text("line\n" * 500)
    whole = diff(project)
    monkeypatch.setattr(provenance, "MAX_DIFF_BYTES", 600)
    *kept, last = diff(project).splitlines(keepends=True)
    assert "".join(kept) == whole[: len("".join(kept))]
    assert "+a = 5\n" in kept
    assert kept[-1] == "+line\n"
    assert last == f"# cut here: {len(whole) - len(''.join(kept)):,} more bytes are not in this file\n"


def test_the_digest_is_unknown_if_git_does_not_answer(project: Path, monkeypatch: pytest.MonkeyPatch):
    """For example if `git diff` takes too long on a slow file system."""
    run = subprocess.run

    def slow(command: list[str], **options: object):
        if "diff" in command:
            raise subprocess.TimeoutExpired(command, 20)
        return run(command, **options)

    monkeypatch.setattr(provenance.subprocess, "run", slow)
    assert str(describe_code()).endswith("+unknown")
    monkeypatch.setattr(provenance, "PROJECT", project.parent)
    assert describe_code() is None
