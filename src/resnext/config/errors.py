"""What the schema refuses, as one line: the dotted key, what was given, what is allowed, the nearest name."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

Tree = Mapping[str, Any]  # the schema's keys with their defaults, nested


def nearest(name: str, names: list[str]) -> str:
    """`; did you mean X?` for the nearest of `names`, or nothing where none is near."""
    matches = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {matches[0]}?" if matches else ""


def has_key(key: str, schema: Tree) -> bool:
    """Whether the schema has this dotted key, as a group or a value. An empty mapping is open: it has any key."""
    known: Any = schema
    for part in key.split("."):
        if known == {}:
            return True
        if not isinstance(known, Mapping) or part not in known:
            return False
        known = known[part]
    return True


def unknown_key(key: str, schema: Tree) -> str:
    """The line for a dotted key that the schema does not have."""
    group, _, leaf = key.rpartition(".")
    keys = list(_dotted_keys(schema))
    siblings = [name.rpartition(".")[2] for name in keys if name.rpartition(".")[0] == group]
    elsewhere = [name for name in keys if name.rpartition(".")[2] == leaf]
    if close := difflib.get_close_matches(leaf, siblings, n=1):
        hint = f"; did you mean {group + '.' if group else ''}{close[0]}?"
    else:
        hint = f"; did you mean {elsewhere[0]}?" if elsewhere else nearest(key, keys)
    return f"{key} is not a configuration key{hint or '; `resnext train --cfg job` prints them all'}"


def describe(error: ValidationError, schema: Tree, at: tuple[str, ...] = ()) -> str:
    """The first mistake as one line; a value that fails a union yields one error per member, all named.

    `at` is where in the schema the value is.
    """
    errors: list[Any] = [{**each, "loc": (*at, *each["loc"])} for each in error.errors()]
    first: Any = errors[0]
    key = _dotted_key(first["loc"], schema)
    same = [each for each in errors if _dotted_key(each["loc"], schema) == key]
    others = len({_dotted_key(each["loc"], schema) for each in errors}) - 1
    more = f" ({others} more mistake{'s' if others > 1 else ''} after this)" if others else ""
    if first["type"] == "unexpected_keyword_argument":
        return unknown_key(key, schema) + more
    if first["type"] == "missing" and not isinstance(first["loc"][-1], int):
        return f"{key} is missing: give it as {key}=VALUE{more}"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"]) + more  # what our own check raised
    allowed = " or ".join(dict.fromkeys(_allowed(each) for each in same)).replace(" or be ", " or ")
    return f"{key}={as_typed(first['input'])} is not allowed: it should {allowed}{_hint(key, same)}{more}"


def _allowed(error: Any) -> str:
    """`be greater than 0` of `Input should be greater than 0`."""
    return "have more items" if error["type"] == "missing" else error["msg"].partition(" should ")[2] or error["msg"]


def _hint(key: str, errors: list[Any]) -> str:
    """The nearest allowed name; for text that was read as something else, how to quote it."""
    given = errors[0]["input"]
    if isinstance(given, str):
        expected = " ".join(str(error.get("ctx", {}).get("expected", "")) for error in errors)
        return nearest(given, expected.split("'")[1::2])
    if errors[0]["type"] == "string_type" and given is not None:
        return f"; quoted twice it is text: {key}='\"{as_typed(given)}\"'"
    return ""


def _dotted_key(location: tuple[int | str, ...], schema: Tree) -> str:
    """The configuration key of a pydantic location, without the union members and indices that pydantic appends."""
    known: Any = schema
    parts: list[str] = []
    for part in location:
        if not isinstance(part, str) or not isinstance(known, Mapping):
            break
        parts.append(part)
        known = known.get(part)
    return ".".join(parts)


def as_typed(value: Any) -> str:
    """A value in YAML notation: null, true, 0.1."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _dotted_keys(tree: Tree, prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from _dotted_keys(value, f"{prefix}{key}.")
