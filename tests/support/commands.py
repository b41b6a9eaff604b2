"""The commands in README.md and docs/, and what each of them passes to `resnext`."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).parents[2]
PAGES = [*sorted(PROJECT.glob("*.md")), *sorted(PROJECT.glob("docs/*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OURS = re.compile(r"(?:^|[|(] ?)(?:make|\.venv/bin/\w[\w-]*|resnext)\b")
TOOLS = ("resnext", "pytest", "ruff", "lint-imports", "basedpyright", "python", "pre-commit", "pip")
# Writes its name and arguments, each ended by a null byte, and a line end.
STUB = """#!/bin/sh
printf '%s\\0' "${0##*/}" "$@" >> "$RECORD"
echo >> "$RECORD"
"""


class Block(NamedTuple):
    """A fenced block of a page; `needs` is the text of its first line after `# needs `, or empty."""

    page: str
    language: str
    text: str

    @property
    def needs(self) -> str:
        found = re.match(r"# needs (.+)\n", self.text)
        return found[1] if found else ""

    @property
    def lines(self) -> list[str]:
        """The command lines, without the lines that are only a comment."""
        joined = self.text.replace("\\\n", " ")
        return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


class Call(NamedTuple):
    """A program that a command line started, with its arguments; make alone if it started none, as `make help`."""

    block: Block
    line: str
    program: str
    arguments: list[str]


def blocks(language: str | None = None) -> Iterator[Block]:
    for page in PAGES:
        for match in BLOCK.finditer(page.read_text()):
            if language in (None, match[1]):
                yield Block(page.name, match[1], match[2])


def recorded_calls(folder: Path) -> list[Call]:
    """Runs each line with make or a program of .venv in `folder`, where these programs only write their arguments."""
    record = _project_of_stubs(folder)
    lines = [(block, line) for block in blocks("bash") for line in block.lines if OURS.search(line)]
    script = [
        f"printf '\\n%s\\n' '@{number}' >> \"$RECORD\"\n( {line}\n) || exit" for number, (_, line) in enumerate(lines)
    ]
    path = f"{folder}/.venv/bin:{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "PATH": path, "RECORD": str(record), "MAKEFLAGS": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    calls = []
    for part in record.read_text().split("\n@")[1:]:
        number, _, called = part.partition("\n")
        for program, *arguments in [each.split("\0")[:-1] for each in called.split("\n") if each] or [["make"]]:
            calls.append(Call(*lines[int(number)], program, arguments))
    return calls


def _project_of_stubs(folder: Path) -> Path:
    """The Makefile with stubs for the programs in .venv; returns the file that they write."""
    bin = folder / ".venv/bin"
    bin.mkdir(parents=True)
    for tool in TOOLS:
        (bin / tool).write_text(STUB)
        (bin / tool).chmod(0o755)
    (folder / "scripts").mkdir()
    for name in ("pyproject.toml", "requirements.lock", "scripts/setup.sh", "Makefile"):
        shutil.copy(PROJECT / name, folder / name)
    (folder / "configs").symlink_to(PROJECT / "configs")
    (folder / ".venv/.ready").touch()  # newer than the copies
    record = folder / "record"
    record.touch()
    return record
