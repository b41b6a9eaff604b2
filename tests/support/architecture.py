"""Draws the parts of docs/architecture.md that follow from the code: `make docs` writes them, a test compares them."""

import ast
import re
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PACKAGE = PROJECT / "src/resnext"
PAGE = PROJECT / "docs/architecture.md"
WIDTH = 110
BLOCK = re.compile(r"(<!-- drawn: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def redraw(page: str) -> str:
    """The text of the page, with each block between `<!-- drawn: NAME -->` and `<!-- end -->` replaced."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{globals()[f'draw_{block[2]}']()}\n\n{block[3]}", page)


def draw_tree() -> str:
    """The packages and modules of src/resnext/ from the top layer to the lowest, and the first sentence of each."""
    lines = ["src/resnext/"]
    for name in [name for layer in layers() for name in layer]:
        folder = PACKAGE / name
        label = f"{name}/" if folder.is_dir() else f"{name}.py"
        source = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        lines += _hanging(f"  {label:14}", first_sentence(source))
        if folder.is_dir():
            modules = sorted(path.stem for path in folder.glob("[!_]*.py"))
            lines += _hanging(" " * 16, " ".join(modules)) if modules else []
    return _fenced("", lines)


def draw_layers() -> str:
    """The layers of pyproject.toml's first contract, as text."""
    return _fenced("", [" | ".join(layer) for layer in layers()])


def draw_imports() -> str:
    """The imports between packages as a Mermaid graph, without the arrows that follow from other arrows."""
    imports = {name: imported_by(name) for layer in layers() for name in layer}
    arrows = [
        f"    {name} --> {other}"
        for name, direct in imports.items()
        for other in sorted(direct)
        if not any(other in _reachable(between, imports) for between in direct - {other})
    ]
    return _fenced("mermaid", ["flowchart TD", '    __main__["__main__"]', *arrows])


def layers() -> list[list[str]]:
    """The layers from top to bottom: each may import all layers below. Modules outside the contract come last."""
    contracts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    listed = [
        [name.strip(" ()").removeprefix("resnext.") for name in re.split(r"[|:]", layer)]
        for layer in contracts[0]["layers"]
    ]
    others = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    others -= {"__init__", *(name for layer in listed for name in layer)}
    return [*listed, *([sorted(others)] if others else [])]


def imported_by(name: str) -> set[str]:
    """The other packages and modules of resnext that the files of `name` import, also inside functions."""
    folder = PACKAGE / name
    files = sorted(folder.glob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    return {found for file in files for found in _imports(ast.parse(file.read_text()))} - {name}


def first_sentence(source: Path) -> str:
    docstring = ast.get_docstring(ast.parse(source.read_text())) or ""
    return re.split(r"(?<=\.)\s+(?=[A-Z])|\n\n", docstring)[0].replace("\n", " ")


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        modules += [each.name for each in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module == "resnext":
            modules += [f"resnext.{each.name}" for each in node.names]
        yield from (module.split(".")[1] for module in modules if module.startswith("resnext."))


def _reachable(name: str, imports: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    pending = set(imports[name])
    while pending:
        found |= pending
        pending = {each for other in pending for each in imports[other]} - found
    return found


def _hanging(head: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False)


def _fenced(language: str, lines: list[str]) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


if __name__ == "__main__":
    PAGE.write_text(redraw(PAGE.read_text()))
