"""Describes an error of the schema in one line: the dotted key, the given value, what is allowed, the nearest name."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from resnext.errors import UserError

Tree = Mapping[str, Any]  # the schema's keys with their defaults, nested
CUTOFF = 0.6  # of difflib's ratio: at 0.5 it proposes `loss` for `foo` and `v1` for `b1`
SHORTEST_BEGINNING = 3  # letters


class KeyMistake(UserError):
    """A mistake in the value of the dotted `key`, or in one of the keys of this group."""

    def __init__(self, message: str, key: str) -> None:
        super().__init__(message)
        self.key = key


def nearest(name: str, names: list[str]) -> str:
    """`; did you mean X?` with the nearest of `names`; empty if none is near."""
    return f"; did you mean {near}?" if (near := find_near(name, names)) else ""


def find_near(name: str, names: list[str]) -> str | None:
    """The nearest of the names that begin with `name`, or else the name with the most similar spelling, if any."""
    longer = [each for each in names if len(name) >= SHORTEST_BEGINNING and each.startswith(name)]
    matches = difflib.get_close_matches(name, longer or names, n=1, cutoff=0 if longer else CUTOFF)
    return matches[0] if matches else None


def has_key(key: str, schema: Tree) -> bool:
    """Whether the schema has this dotted key, as a group or a value. An empty mapping accepts any key."""
    known: Any = schema
    for part in key.split("."):
        if known == {}:
            return True
        if not isinstance(known, Mapping) or part not in known:
            return False
        known = known[part]
    return True


def find_default(key: str, schema: Tree) -> Any:
    """The default or the group at a dotted key of the schema; None if the schema does not have the key."""
    found: Any = schema
    for part in key.split(".") if key else ():
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def unknown_key(key: str, schema: Tree) -> str:
    """The message for a dotted key that the schema does not have."""
    return f"{key} is not a configuration key; {_near_key(key, schema) or _allowed_keys(key, schema)}"


def _near_key(key: str, schema: Tree) -> str | None:
    """`did you mean X?`: a similar key of the group, the same key of other groups, or the value before the last dot."""
    group, _, leaf = key.rpartition(".")
    keys = list(_dotted_keys(schema))
    siblings = [name.rpartition(".")[2] for name in keys if name.rpartition(".")[0] == group]
    if near := find_near(leaf, siblings):
        return f"did you mean {group + '.' if group else ''}{near}?"
    elsewhere = [name for name in keys if name.rpartition(".")[2] == leaf]
    if group:
        elsewhere = difflib.get_close_matches(key, elsewhere, n=1, cutoff=CUTOFF) or elsewhere
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    return f"did you mean {group}?" if group in keys and not isinstance(find_default(group, schema), Mapping) else None


def _allowed_keys(key: str, schema: Tree) -> str:
    """Lists the keys of the innermost existing group of `key`."""
    group = key.rpartition(".")[0]
    while not isinstance(found := find_default(group, schema), Mapping):
        group = group.rpartition(".")[0]
    return f"{group or 'a configuration'} has {', '.join(found)}"


def find_unknown(tree: Tree, schema: Tree) -> str | None:
    """The first dotted key of `tree` that its group in the schema does not have."""
    for key in _dotted_keys(tree):
        group = find_default(key.rpartition(".")[0], schema)
        if group and isinstance(group, Mapping) and not has_key(key, schema):  # an empty group takes any key
            return key
    return None


def first_mistake(error: ValidationError, schema: Tree, at: tuple[str, ...] = ()) -> KeyMistake:
    """The first mistake in one line. If a value fits no member of a union, the line has what each member allows.

    `at` is the location of the value in the schema.
    """
    errors: list[Any] = [{**each, "loc": (*at, *each["loc"])} for each in error.errors()]
    errors.sort(key=lambda each: each["type"] != "unexpected_keyword_argument")  # a typo also makes a key missing
    key = _dotted_key(errors[0]["loc"], schema)
    own = errors[0].get("ctx", {}).get("error")  # of our own check
    return KeyMistake(_describe(errors, key, schema), own.key if isinstance(own, KeyMistake) else key)


def _describe(errors: list[Any], key: str, schema: Tree) -> str:
    first = errors[0]
    same = [each for each in errors if _dotted_key(each["loc"], schema) == key]
    others = len({_dotted_key(each["loc"], schema) for each in errors}) - 1
    more = f" ({others} more mistake{'s' if others > 1 else ''} after this)" if others else ""
    if first["type"] == "unexpected_keyword_argument":
        return unknown_key(key, schema) + more
    if first["type"] == "missing" and not isinstance(first["loc"][-1], int):
        return f"{key} is missing: give it as {key}=VALUE{more}"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"]) + more  # the message of our own check
    if first["type"] == "tuple_type":
        return f"{key}={as_typed(first['input'])} is not allowed: {_list_hint(key, first['input'], schema)}{more}"
    allowed = " or ".join(dict.fromkeys(_allowed(each) for each in same)).replace(" or be ", " or ")
    return f"{key}={as_typed(first['input'])} is not allowed: it should {allowed}{_hint(key, same)}{more}"


def _list_hint(key: str, given: Any, schema: Tree) -> str:
    """The value as a list; for a key whose default has items, the default as an example."""
    example = find_default(key, schema)
    items = example or ([] if given is None else [given])
    return f"give a list{', such as' if example else ':'} {key}=[{','.join(map(as_typed, items))}]"


def _allowed(error: Any) -> str:
    """`be greater than 0` of `Input should be greater than 0`."""
    return "have more items" if error["type"] == "missing" else error["msg"].partition(" should ")[2] or error["msg"]


def _hint(key: str, errors: list[Any]) -> str:
    """The nearest allowed name; for text that was read as another type, how to quote it."""
    given = errors[0]["input"]
    if isinstance(given, str):
        expected = " ".join(str(error.get("ctx", {}).get("expected", "")) for error in errors)
        return nearest(given, expected.split("'")[1::2])
    if errors[0]["type"] == "string_type" and given is not None:
        return f"; to give text, quote it twice: {key}='\"{as_typed(given)}\"'"
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
