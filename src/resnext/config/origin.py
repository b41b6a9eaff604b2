"""Finds the configuration file that a value is from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from resnext.config.config_file import FileMistake
from resnext.config.errors import KeyMistake
from resnext.config.folders import config_file, with_config_dir
from resnext.config.hydra_settings import MAIN, CheckedConfigLoader
from resnext.config.model import move_override
from resnext.errors import UserError


def with_file(mistake: KeyMistake, folders: Sequence[Path], overrides: Sequence[str]) -> UserError:
    """The same mistake with the name of the file that has it, unless one of the `overrides` gives the key."""
    file = find_origin(mistake.key, folders, overrides)
    return FileMistake(f"{file}: {mistake}") if file is not None else mistake


def find_origin(key: str, folders: Sequence[Path], overrides: Sequence[str]) -> Path | None:
    """The file in `folders` that gives the value of a dotted key; for a group of keys, the last file that gives one.

    None if an override gives it, or no file does. `overrides` are valid, without values for a sweep.
    """
    overrides = [move_override(each) for each in overrides]
    groups = {path.name for folder in folders for path in folder.iterdir() if path.is_dir()}
    part = key.partition(".options.")[0]
    for override in OverridesParser.create().parse_overrides(overrides):
        name = override.key_or_group
        chooses_file = name in groups and not isinstance(override.value(), dict)
        is_part_name = name in (f"{part}.name", f"{part}.names")  # the options in a file may fit another part
        if not chooses_file and (is_part_name or f"{name}.".startswith(f"{key}.") or f"{key}.".startswith(f"{name}.")):
            return None
    search_path = with_config_dir(create_config_search_path(str(folders[0])), folders[1:])
    loader = CheckedConfigLoader(search_path, warns=False)
    files = CachingConfigRepository(loader.repository)
    for default in reversed(loader.compute_defaults_list(MAIN, list(overrides), RunMode.RUN).defaults):
        if default.config_path is None or not _is_in(folders, default.config_path):
            continue
        content: Any = OmegaConf.to_container(loader._load_single_config(default, files).config)
        if _gives(content, key):
            return config_file(folders, default.config_path)
    return None


def _is_in(folders: Sequence[Path], name: str) -> bool:
    return any((folder / f"{name}.yaml").is_file() for folder in folders)


def _gives(content: Any, key: str) -> bool:
    """Whether the nested mapping has this dotted key, or a value in place of one of its groups."""
    for part in key.split("."):
        if not isinstance(content, Mapping):
            return True
        if part not in content:
            return False
        content = content[part]
    return True
