"""Checks overrides of the command line before Hydra composes them: Hydra accepts more than a run can use."""

from collections.abc import Callable
from typing import Any, NoReturn

from hydra.core.override_parser.types import Override, QuotedString

from resnext.config.errors import find_default, has_key, nearest, unknown_key
from resnext.config.schema import schema_defaults
from resnext.errors import UserError

FindOptions = Callable[[str], list[str]]  # the names of a group's files; none if it is not a group


def check_override(override: Override, find_options: FindOptions, *, has_own: bool) -> None:
    """Raises UserError for a deletion, and for a group with a value that is not the name of one of its files.

    `has_own`: whether there is a --config-dir.
    """
    key = override.key_or_group
    if key.partition(".")[0].partition("/")[0] == "hydra":  # hydra_settings.py checks these
        return
    options = find_options(key)
    if override.is_delete():
        raise UserError(_not_deletable(key, options))
    if options and override.package:
        raise UserError(f"{override.input_line}: @{override.package} is not allowed; give {key}=NAME")
    for name in _choices(override) if options else ():
        if name not in options:
            raise UserError(describe_choice(key, name, options, has_own=has_own))


def describe_choice(group: str, name: Any, options: list[str], *, has_own: bool) -> str:
    """One line for a value that is not the name of a file in `group`. `has_own`: whether there is a --config-dir."""
    allowed = f"{group} is one of {', '.join(options)}"
    if isinstance(name, list):
        return f"{group}=[{','.join(map(str, name))}] is not allowed: give one name; {allowed}"
    if not isinstance(name, str):
        return f"{group}={'null' if name is None else name} is not allowed: give a name; {allowed}"
    if name.endswith(".yaml") and (stem := name.removesuffix(".yaml")) in options:
        return f"{group}={name} is not allowed: leave out .yaml and give {group}={stem}"
    hint = nearest(name, options)
    if not hint and not has_own:
        hint = f"; to use {group}/{name}.yaml in a folder of your own, add --config-dir FOLDER"
    return f"{group}={name} does not exist; {allowed}{hint}"


def describe_plus(override: Override, *, is_group: bool) -> str | None:
    """One line for a `+` before a key or group that exists; None for anything else."""
    key, sign = override.key_or_group, override.get_key_element().partition(override.key_or_group)[0]
    exists = is_group or (sign == "+" and has_key(key, schema_defaults()))  # ++key=VALUE may set a key that exists
    if sign not in ("+", "++") or not exists:
        return None
    assert override.input_line is not None
    return f"{override.input_line}: {key} exists already; leave out the {sign}: {override.input_line.lstrip('+')}"


def _not_deletable(key: str, options: list[str]) -> str:
    if options:
        return f"~{key} is not allowed: a run needs every group; {key} is one of {', '.join(options)}"
    if not has_key(key, schema_defaults()):
        return unknown_key(key, schema_defaults())
    return f"~{key} is not allowed: a run needs every key; give {key}=VALUE (null if the key is optional)"


def _choices(override: Override) -> list[Any]:
    """The names that an override gives; none if it gives keys and values of a group (`slurm={nodes: 2}`)."""
    if override.is_choice_sweep():
        return [each.text if isinstance(each, QuotedString) else each for each in override.sweep_iterator()]
    value = override.value()
    return [] if isinstance(value, dict) or override.is_sweep_override() else [value]


def describe_sweep(override: Override) -> str:
    """One line for an override with several values instead of one."""
    key, given = override.key_or_group, (override.input_line or "").partition("=")[2]
    if isinstance(find_default(key, schema_defaults()), list):
        return f"{override.input_line}: give a list in brackets: {key}=[{given}]"
    several = (
        f"{override.input_line}: a run has one value for each key; `resnext train -m` makes one run for each value"
    )
    return f"{several}; quote text with a comma twice: '{key}=\"{given}\"'" if "/" in given else several


def refuse_arguments(message: str) -> NoReturn:
    """Replaces argparse's `error`, which prints nine lines."""
    raise UserError(f"{message}; `resnext train --help` explains the arguments")
