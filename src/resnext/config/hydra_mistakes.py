"""Turns errors of Hydra and OmegaConf into one-line UserErrors that say what to do."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from resnext.config.config_file import FileMistake
from resnext.config.errors import has_key, unknown_key
from resnext.config.folders import config_names
from resnext.config.model import move_override
from resnext.config.overrides import describe_choice, describe_plus, describe_sweep
from resnext.config.schema import schema_defaults
from resnext.errors import UserError


@contextmanager
def mistakes_in_one_line(folders: Sequence[Path], arguments: Sequence[str]) -> Iterator[None]:
    """Converts Hydra's errors about the files in `folders` or about `arguments` into UserError."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, UserError) as error:
        if hides_interrupt(error):
            raise KeyboardInterrupt from error
        if isinstance(error, UserError):
            raise
        raise UserError(describe_mistake(error, folders, arguments)) from error
    except yaml.YAMLError as error:
        raise FileMistake(f"a configuration file is not valid YAML; correct it: {error}") from error


def describe_mistake(error: Exception, folders: Sequence[Path], arguments: Sequence[str] = ()) -> str:
    """One line for an error of Hydra or OmegaConf. Leaves out Hydra's hint, which suggests to add the mistyped key."""
    if isinstance(error, OmegaConfBaseException):
        return f"{error.full_key or 'configuration'}: {_short_message(error)}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        options = list(error.options or config_names(folders, group))
        if not group:
            return f"{name} does not exist: the defaults list of a configuration file names it; correct the list"
        return describe_choice(group, name, options, has_own=len(folders) > 1)
    if isinstance(error, OverrideParseException):
        if "=" not in (key := str(error.override)) and has_key(key, schema_defaults()):
            return f"{key}: write {key}={_next_argument(key, arguments)}"
        return f"{error.override} cannot be read as KEY=VALUE; quote text with spaces or symbols twice: 'KEY=\"TEXT\"'"
    if isinstance(error.__cause__, OmegaConfBaseException) and (key := error.__cause__.full_key):
        return unknown_key(str(key), schema_defaults())
    return _find_mistake(folders, arguments) or _short_message(error)


def _find_mistake(folders: Sequence[Path], arguments: Sequence[str]) -> str | None:
    """Describes the first wrong override: Hydra's error names it only in its text."""
    overrides = [each for each in arguments if each.startswith("~") or ("=" in each and not each.startswith("-"))]
    several = ("-m" in arguments or "--multirun" in arguments) and "--cfg" not in arguments
    for override in OverridesParser.create().parse_overrides([move_override(each) for each in overrides]):
        key = override.key_or_group
        if override.is_sweep_override() and not several:
            return describe_sweep(override)
        is_group = any((folder / key).is_dir() for folder in folders)
        if (plus := describe_plus(override, is_group=is_group)) is not None:
            return plus
        if not has_key(key, schema_defaults()) and not is_group and not key.startswith("hydra"):
            return unknown_key(key, schema_defaults())
    return None


def _next_argument(key: str, arguments: Sequence[str]) -> str:
    """The value that a user gave after `key` and a space; VALUE if there is none."""
    following = [*arguments[list(arguments).index(key) + 1 :], "VALUE"] if key in arguments else ["VALUE"]
    return following[0] if "=" not in following[0] and not following[0].startswith("-") else "VALUE"


def _short_message(error: Any) -> str:
    """The first line of an error, joined with the second line if the first ends with a colon."""
    first, *more = str(error).strip().splitlines()
    return f"{first} {more[0].strip()}" if first.endswith(":") and more else first


def hides_interrupt(error: BaseException | None) -> bool:
    """Whether a KeyboardInterrupt caused this error: OmegaConf may replace a Ctrl-C by its own error."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
