"""pyproject.toml declares every package that src/ imports, and requirements.lock has every declared package."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


EXTRAS = [line for name, lines in PROJECT["optional-dependencies"].items() if name != "dev" for line in lines]
DECLARED = {normalized(re.split(r"[^\w.-]", line)[0]) for line in [*PROJECT["dependencies"], *EXTRAS]}


def imported_packages() -> set[str]:
    """The top-level names that src/ imports, also inside functions, without the standard library and resnext."""
    names = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(str(node.module).partition(".")[0])
    return names - sys.stdlib_module_names - {"resnext"}


def test_every_package_that_src_imports_is_declared():
    distributions = packages_distributions()
    missing = {  # a package that is not installed has the name of its module
        name for name in imported_packages() if DECLARED.isdisjoint(map(normalized, distributions.get(name, [name])))
    }
    assert missing == set()


def test_every_declared_package_is_in_the_lock_file():
    """uv writes `via resnext (pyproject.toml)` below each declared package."""
    blocks = re.split(r"^(?=\S)", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)
    named = {normalized(re.split(r"[^\w.-]", block)[0]) for block in blocks if "resnext (pyproject.toml)" in block}
    assert named >= DECLARED
