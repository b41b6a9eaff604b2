"""The folders that Hydra composes from: configs/ of this project, then the user's folder, given by --config-dir.

The order is Hydra's: if both have a file of the same name, Hydra uses the one in configs/.
"""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult

from resnext.errors import UserError, describe_error

PROVIDERS = ("main", "command-line")  # what Hydra calls configs/ and --config-dir in its search path


def config_folders(configs: Path, config_dir: str | None, *, warns: bool = True) -> list[Path]:
    """`configs` and the folder `config_dir`, as absolute paths in the order of the search path.

    If `warns`, a line on stderr names the files of `config_dir` that are ignored.

    Raises:
        UserError: if `config_dir` is not a folder.
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
    if warns:
        _warn_of_ignored_files(configs, folder)
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


def config_names(folders: Sequence[Path], group: str) -> list[str]:
    """The names that can be chosen in `group`."""
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml") if path.is_file()})


def config_file(folders: Sequence[Path], name: str) -> Path:
    """The file of GROUP/NAME that Hydra reads."""
    return next(path for folder in folders if (path := folder / f"{name}.yaml").is_file())


def experiments_with_data(folders: Sequence[Path], data: str) -> list[str]:
    """The experiments whose defaults list chooses this data set."""
    names = config_names(folders, "experiment")
    return [name for name in names if _data_of(config_file(folders, f"experiment/{name}")) == data]


class BrokenFile(UserError):
    """A configuration file that cannot be read; the message names it."""


class NamedFiles(ConfigRepository):
    """Hydra's file reader, with the name of the file in each error."""

    def load_config(self, config_path: str) -> ConfigResult | None:
        try:
            return super().load_config(config_path)
        except HydraException:  # some of them are OSErrors
            raise
        except (UnicodeDecodeError, OSError) as error:
            source = self._find_object_source(config_path, ObjectType.CONFIG)
            file = f"{source.path if source else ''}/{config_path}.yaml"
            raise BrokenFile(f"{file} cannot be composed: {describe_error(error)}; correct the file") from error


def _data_of(experiment: Path) -> Any:
    """The data set in its defaults list; None if it chooses none, or is not valid YAML."""
    try:
        defaults = yaml.safe_load(experiment.read_text(errors="replace"))["defaults"]
        return next((each["override /data"] for each in defaults if "override /data" in each), None)
    except (yaml.YAMLError, LookupError, TypeError):
        return None


def _warn_of_ignored_files(configs: Path, folder: Path) -> None:
    names = sorted(path.relative_to(configs) for path in configs.rglob("*.yaml"))  # `folder` may be a whole home folder
    ignored = [name for name in names if (folder / name).is_file()]
    if ignored:
        more = f" (and {len(ignored) - 1} more)" if len(ignored) > 1 else ""
        print(
            f"resnext: {folder / ignored[0]}{more} is ignored: configs/ has a file of the same name; rename it",
            file=sys.stderr,
        )
