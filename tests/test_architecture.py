"""docs/architecture.md agrees with the code: its drawn blocks, the functions of its journeys, and every path."""

import ast
import re
from pathlib import Path

import pytest

from support.architecture import PACKAGE, PAGE, PROJECT, redraw

ROW = re.compile(r"^\| .+ \| `(?P<file>[\w/]+\.py): (?P<name>[\w.]+)` \| (?P<caller>.+) \|$", re.MULTILINE)
CALLER = re.compile(r"`(?P<file>[\w/]+\.py): (?P<name>[\w.]+)`")
LIBRARIES = ("Lightning", "Hydra")
WRITTEN_LATER = ("runs/", "src/resnext/extensions/", "configs/slurm/ours.yaml")  # created by a run, or by the user
OF_OTHERS = ("references/", "src/train.py", "src/eval.py")  # in docs/coming-from.md
PATH = re.compile(r"(?<![\w./-])(?:[\w-]+/)+[\w-]+\.(?:py|md|sh|toml|sbatch)\b")
ROWS = [match.groupdict() for match in ROW.finditer(PAGE.read_text())]


def find(file: str, name: str) -> ast.AST:
    """The function or class `name`, or `Class.method`, in a file of the package."""
    node: ast.AST = ast.parse((PACKAGE / file).read_text())
    for part in name.split("."):
        found = [each for each in ast.iter_child_nodes(node) if getattr(each, "name", None) == part]
        assert found, f"docs/architecture.md: {file} has no {name}"
        node = found[0]
    return node


def names_in(node: ast.AST) -> set[str]:
    inner = list(ast.walk(node))
    return {each.id for each in inner if isinstance(each, ast.Name)} | {
        each.attr for each in inner if isinstance(each, ast.Attribute)
    }


def test_the_drawn_blocks_equal_the_code():
    assert redraw(PAGE.read_text()) == PAGE.read_text(), "docs/architecture.md differs from the code: run `make docs`"


def test_every_row_of_the_journeys_is_checked():
    """The next test reads every row of the tables."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert len(ROWS) == len(lines) - 3  # without the header rows of three tables
    assert len(ROWS) > 30


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_each_step_of_a_journey_exists_and_its_caller_uses_it(row: dict[str, str]):
    find(row["file"], row["name"])
    if row["caller"] in LIBRARIES:
        return
    caller = CALLER.fullmatch(row["caller"])
    assert caller, f"{row['caller']} is neither a function nor one of {', '.join(LIBRARIES)}"
    used = names_in(find(caller["file"], caller["name"]))
    assert row["name"].split(".")[-1] in used, f"{row['caller']} does not use {row['name']}"


@pytest.mark.parametrize(
    "page", [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_every_path_that_a_page_names_exists(page: Path):
    roots = (PROJECT, PACKAGE, PROJECT / "docs", PROJECT / "tests", PROJECT / "src")
    names = sorted(
        name for name in set(PATH.findall(page.read_text())) if not name.startswith((*WRITTEN_LATER, *OF_OTHERS))
    )
    assert [name for name in names if not any((root / name).exists() for root in roots)] == []
