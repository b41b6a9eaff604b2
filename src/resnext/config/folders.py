"""The folders that Hydra composes from: configs/ of this project, then the user's folder, given by --config-dir.

The order is Hydra's: if both have a file of the same name, Hydra uses the one in configs/.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery

from resnext.errors import UserError

PROVIDERS = ("main", "command-line")  # what Hydra calls configs/ and --config-dir in its search path
MARKS = ("experiment", "recipe")  # groups whose names other folders rarely have


def config_folders(configs: Path, config_dir: str | None) -> list[Path]:
    """`configs` and the folder `config_dir`, as absolute paths in the order of the search path.

    Raises:
        UserError: if `config_dir` is not a folder, or holds none of the groups of `configs`.
    """
    if config_dir is None:
        return [configs]
    folder = Path(os.path.abspath(os.path.expanduser(config_dir)))  # noqa: PTH100, PTH111 - also if ~user is unknown
    if not config_dir or not folder.is_dir():
        problem = "is not a folder" if config_dir and folder.exists() else "does not exist"
        raise UserError(
            f"--config-dir={config_dir} {problem}: give a folder that holds experiment/, recipe/ or another group"
        )
    if folder.samefile(configs):
        return [configs]
    if not _has_group(folder, groups := group_names(configs)):
        near = next((each for each in (folder.parent, *_folders_in(folder)) if _has_group(each, MARKS)), None)
        remedy = f"give {near}, which does" if near else "give a folder that does"
        raise UserError(f"--config-dir={config_dir} holds none of {', '.join(f'{name}/' for name in groups)}: {remedy}")
    return [configs, folder]


def with_config_dir(search_path: ConfigSearchPath, folders: Sequence[Path]) -> ConfigSearchPath:
    """Puts `folders` where hydra.main puts --config-dir: after configs/, before the schema."""
    for folder in folders:
        search_path.prepend(PROVIDERS[1], f"file://{folder}", SearchPathQuery(provider="schema"))
    return search_path


def config_dir_in(line: str) -> str | None:
    """The folder of --config-dir in a command line that is being completed; None if the folder does not exist."""
    found = re.findall(r"\s(?:--config-dir|-cd)(?:=|\s+)(\S+)\s", line)
    return found[-1] if found and Path(found[-1]).expanduser().is_dir() else None


def group_names(configs: Path) -> list[str]:
    """The groups of `configs`, as folder names."""
    return sorted(path.name for path in configs.iterdir() if path.is_dir())


def config_names(folders: Sequence[Path], group: str) -> list[str]:
    """The names that can be chosen in `group`."""
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml") if path.is_file()})


def config_file(folders: Sequence[Path], name: str) -> Path:
    """The file of GROUP/NAME that Hydra reads."""
    return next(path for folder in folders if (path := folder / f"{name}.yaml").is_file())


def experiments_with_data(folders: Sequence[Path], data: str) -> list[str]:
    """The experiments whose defaults list chooses this dataset."""
    names = config_names(folders, "experiment")
    return [name for name in names if _data_of(config_file(folders, f"experiment/{name}")) == data]


def _data_of(experiment: Path) -> Any:
    """The dataset in its defaults list; None if it chooses none, or is not valid YAML."""
    try:
        defaults = yaml.safe_load(experiment.read_text(errors="replace"))["defaults"]
        return next((each["override /data"] for each in defaults if "override /data" in each), None)
    except (yaml.YAMLError, LookupError, TypeError):
        return None


def _has_group(folder: Path, groups: Sequence[str]) -> bool:
    return any((folder / name).is_dir() for name in groups)


def _folders_in(folder: Path) -> list[Path]:
    return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir())
