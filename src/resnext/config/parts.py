"""Checks the options of registered parts, and converts them to the parts' own types.

A mistake raises a ValueError (KeyMistake is one) with the whole message, like the schema's checks. Imports no torch.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from resnext.config.errors import KeyMistake, first_mistake, nearest
from resnext.registry import find_part, part_names

NOUNS = {"dataset": "dataset"}
ONE = {"network": "model", "loss": "recipe.loss", "dataset": "data"}  # KEY.name has KEY.options
SEVERAL = {"callback": "callbacks", "logger": "logger"}  # KEY.names have KEY.options.NAME


def parse_options(kind: str, name: str, given: Any, *, name_key: str, key: str) -> Any:
    """The typed options of the part `name`, from a mapping, None, or options that are typed already."""
    check_name(kind, name, name_key)
    part = find_part(kind, name)
    assert part is not None
    if isinstance(given, part.options):
        return given
    if not isinstance(given, Mapping | None):
        raise KeyMistake(f"{key} must be a mapping of the options of {name_key}={name} to values", key)
    fields: dict[str, FieldInfo] = part.options.__pydantic_fields__  # pyright: ignore[reportAttributeAccessIssue]
    check_option_names(dict(given or {}), list(fields), f"{name_key}={name}", key)
    try:
        options = TypeAdapter(part.options).validate_json(json.dumps(given or {}))
    except ValidationError as error:
        raise first_mistake(error, _nested(key, dict.fromkeys(fields)), at=tuple(key.split("."))) from None
    _check_plain(options, key)
    return options


def parse_named_options(kind: str, key: str, names: tuple[str, ...], given: Any) -> dict[str, Any]:
    """Part name → typed options, in the order of `names`."""
    if not isinstance(given, Mapping | None):
        raise KeyMistake(f"{key}.options must be a mapping of names in {key}.names to their options", f"{key}.options")
    given = dict(given or {})
    if unused := [name for name in given if name not in names]:
        unused_key = f"{key}.options.{unused[0]}"
        raise KeyMistake(f"{unused_key} is given, but {unused[0]} is not in {key}.names: add it there", unused_key)
    if len(set(names)) < len(names):
        raise KeyMistake(f"{key}.names=[{','.join(names)}] has a name twice", f"{key}.names")
    return {
        name: parse_options(kind, name, given.get(name), name_key=f"{key}.names", key=f"{key}.options.{name}")
        for name in names
    }


def check_name(kind: str, name: str, name_key: str) -> None:
    """Raises ValueError if `name` is not registered. The message has the nearest name, or all names."""
    known = part_names(kind)
    if name in known:
        return
    also = ", and timm's are timm/NAME" if kind == "network" else ""
    listed = f" (registered: {', '.join(known)})" if known else ""
    hint = nearest(name, known) or f"{listed}; add your own in src/resnext/extensions/ (docs/extending.md)"
    raise KeyMistake(f"{name_key}={name} is not a registered {NOUNS.get(kind, kind)}{also}{hint}", name_key)


def check_option_names(given: dict[str, Any], known: list[str], part: str, key: str) -> None:
    unknown = next((name for name in given if name not in known), None)
    if unknown is None:
        return
    hint = nearest(str(unknown), known)
    if not hint:
        hint = f"; it takes {', '.join(known)}" if known else ", which has no options"
        if key == "model.options":  # the options are from a model file, and only model.name was changed
            hint += f"; begin with a model file without options: model=resnext50_32x4d {part}"
    raise KeyMistake(f"{key}.{unknown} is not an option of {part}{hint}", f"{key}.{unknown}")


def open_options(schema: dict[str, Any]) -> DictConfig:
    """Hydra's node of the schema, in which the command line may set any option."""
    tree = OmegaConf.create(schema)
    for key in (*ONE.values(), *SEVERAL.values()):
        OmegaConf.set_struct(OmegaConf.select(tree, f"{key}.options"), False)
    return tree


def add_option_defaults(tree: DictConfig) -> None:
    """Adds the options that the named parts take, so that `--cfg job` shows them and Tab completes them."""
    for kind, key in ONE.items():
        if isinstance(name := select(tree, f"{key}.name"), str):
            _add_defaults(tree, kind, name, f"{key}.options")
    for kind, key in SEVERAL.items():
        for name in _names(tree, key):
            _add_defaults(tree, kind, str(name), f"{key}.options.{name}")


def drop_options_of_removed_names(tree: DictConfig, former: Mapping[str, Any]) -> None:
    """Removes the saved options of parts that `former` names and `tree` no longer names."""
    for key in SEVERAL.values():
        options = select(tree, f"{key}.options")
        for name in former[key]["names"]:
            if name not in _names(tree, key) and isinstance(options, DictConfig):
                options.pop(name, None)


def select(tree: DictConfig, key: str) -> Any:
    """The value of `key`; None if it is missing or cannot be resolved."""
    group, _, leaf = key.rpartition(".")
    found = OmegaConf.select(tree, group, throw_on_resolution_failure=False)
    return OmegaConf.select(found, leaf, throw_on_resolution_failure=False) if isinstance(found, DictConfig) else None


def _names(tree: DictConfig, key: str) -> list[Any]:
    """KEY.names; empty if it is not a list, which is an error when the configuration is read."""
    found = select(tree, f"{key}.names")
    return list(found) if isinstance(found, ListConfig) else []


def _add_defaults(tree: DictConfig, kind: str, name: str, key: str) -> None:
    part = find_part(kind, name)
    given = select(tree, key)
    if part is None or not isinstance(given, DictConfig | None):
        return  # an error when the configuration is read
    for option, field in part.options.__pydantic_fields__.items():  # pyright: ignore[reportAttributeAccessIssue]
        if given is None or option not in given:
            OmegaConf.update(tree, f"{key}.{option}", _plain_default(field), force_add=True)


def _plain_default(field: FieldInfo) -> Any:
    if field.is_required():
        return "???"
    return TypeAdapter(Any).dump_python(field.get_default(call_default_factory=True), mode="json")


def _check_plain(options: Any, key: str) -> None:
    """Raises ValueError for options that a run cannot write as YAML or compare."""
    try:
        json.dumps(dataclasses.asdict(options), allow_nan=False)
        hash(options)
    except (TypeError, ValueError):
        raise ValueError(
            f"{key} holds a value that a run cannot save: declare text, numbers, booleans, tuples and frozen "
            f"dataclasses of them in {type(options).__name__}"
        ) from None


def _nested(key: str, leaf: dict[str, Any]) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        leaf = {part: leaf}
    return leaf
