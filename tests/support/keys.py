"""Draws docs/keys.md, the table of all configuration keys: `make docs` writes it, a test compares it."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from resnext.config.errors import as_typed
from resnext.config.parts import ONE, SEVERAL
from resnext.config.schema import Config
from resnext.config.sweep import SweepConfig
from resnext.config.types import Options
from resnext.registry import NoOptions, find_part, part_names

PAGE = Path(__file__).parents[2] / "docs/keys.md"
SENTENCE = re.compile(r"(?<=\.)\s+(?=[A-Z`])")
SUBJECT = re.compile(r"^(`\w+`(, )?)+:? ")  # of a sentence such as: `name`: a registered network.
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}  # of annotated_types
SCALARS = {int: "integer", float: "number", str: "text", bool: "true or false", NoneType: "null"}
HEAD = """# All configuration keys

`make docs` writes this page from the schema in `src/resnext/config/`, and a test fails if the page differs from it. The
defaults are the schema's. The files in `configs/` set other values: `resnext train --cfg job` prints the values of a
run. `train` and `slurm` take each key as KEY=VALUE; those of `sweep` are for `resnext sweep`. [Stopping and
resuming](resume.md#what-may-change-between-two-starts) says which keys may change when a run resumes."""


def draw() -> str:
    """The text of the page: one section for each dataclass of the schema, and one for each part with options."""
    sections = [HEAD, *(_section(name, cls) for name, cls in groups()), _section("sweep", SweepConfig), *_parts()]
    return "\n\n".join(sections) + "\n"


def groups(name: str = "", cls: Any = Config) -> Iterator[tuple[str, Any]]:
    """(dotted name, dataclass) of every group of the schema; the whole configuration has the name ''."""
    yield name, cls
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(field.type):
            yield from groups(f"{name}.{field.name}".lstrip("."), field.type)


def describe(field: str, cls: type) -> str:
    """The sentence of the class's docstring that begins with `field` in backticks, or else the first that names it."""
    naming = [each for each in _sentences(cls) if f"`{field}`" in each]
    naming.sort(key=lambda each: not each.startswith(f"`{field}`"))
    return SUBJECT.sub("", naming[0]).removesuffix(".") if naming else ""


def _sentences(cls: type) -> list[str]:
    return SENTENCE.split(" ".join((cls.__doc__ or "").split()))


def describe_type(annotation: Any) -> str:
    """`integer ≥ 1 or null`, `auto, cpu or gpu`."""
    if annotation is Options:
        return "the options of the part"
    if get_origin(annotation) is Annotated:
        kind, *notes = get_args(annotation)
        return " ".join([describe_type(kind), *filter(None, [_bounds(notes)])])
    if get_origin(annotation) in (Union, UnionType):
        return _any_of([describe_type(each) for each in get_args(annotation)])
    if get_origin(annotation) is Literal:
        return _any_of([f"`{value}`" for value in get_args(annotation)])
    if get_origin(annotation) is dict:
        return "mapping"
    if get_origin(annotation) is tuple:
        items = get_args(annotation)
        inner = describe_type(items[0]) if items[-1] is Ellipsis else ", ".join(map(describe_type, items))
        return f"list of {inner}" if items[-1] is Ellipsis else f"[{inner}]"
    return SCALARS[annotation]


def _any_of(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]]) if names[1:] else names[0]


def _bounds(notes: list[Any]) -> str:
    inner = [each for note in notes for each in (note.metadata if isinstance(note, FieldInfo) else [note])]
    return " and ".join(
        f"{sign} {getattr(note, name):g}" if getattr(note, name) < 2**31 else f"{sign} 2⁶³"
        for note in inner
        for name, sign in BOUNDS.items()
        if hasattr(note, name)
    )


def _section(name: str, cls: type, title: str | None = None) -> str:
    rows = [_row(name, field, cls) for field in dataclasses.fields(cls) if not dataclasses.is_dataclass(field.type)]
    first = _sentences(cls)[0]
    head = [f"## {title or name or 'The run'}", "", *([first, ""] if "`" not in first else [])]
    return "\n".join([*head, "| key | type | default | meaning |", "|---|---|---|---|", *rows])


def _row(group: str, field: dataclasses.Field[Any], cls: type) -> str:
    cells = (
        f"`{group}.{field.name}`" if group else f"`{field.name}`",
        describe_type(field.type),
        _default(field),
        describe(field.name, cls),
    )
    return "| " + " | ".join(each.replace("|", "\\|") for each in cells) + " |"


def _default(field: dataclasses.Field[Any]) -> str:
    default: Any = field.default
    if isinstance(default, FieldInfo) and default.default_factory is not None:
        return "`{}`"
    if isinstance(default, FieldInfo):
        default = default.default
    if field.type is Options:
        return ""
    if default is dataclasses.MISSING:
        return "required"
    if isinstance(default, tuple):
        return f"`[{', '.join(f'{value:.4g}' if isinstance(value, float) else str(value) for value in default)}]`"
    return f"`{as_typed(default)}`"


def _parts() -> Iterator[str]:
    """A section for each registered part of ours that has options."""
    for kind, key in {**ONE, **SEVERAL}.items():
        for name in part_names(kind):
            part = find_part(kind, name)
            if part and part.options is not NoOptions and part.module.startswith("resnext."):
                group = f"{key}.options" if kind in ONE else f"{key}.options.{name}"
                yield _section(group, part.options, title=f"{group} of the {kind} {name}")


if __name__ == "__main__":
    PAGE.write_text(draw())
