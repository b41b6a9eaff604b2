"""Reads configuration files for Hydra, and says in one line which file has a mistake and how to correct it."""

import functools
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath

from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ConfigDefault, GroupDefault, InputDefault
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource

from resnext.config.errors import nearest
from resnext.config.folders import PROVIDERS
from resnext.errors import UserError, describe_error

EXPERIMENT = "experiment/"  # its files set keys of all groups, so they need a header and overrides
HEADER = "# @package _global_"


class FileMistake(UserError):
    """A mistake in a configuration file; the message names the file."""


class CheckedFiles(ConfigRepository):
    """Hydra's file reader, which checks each file that it reads. If `warns`, a line on stderr names ignored files.

    Raises:
        FileMistake: for a file that cannot be read, an experiment without its header, and a wrong defaults list.
    """

    def __init__(self, config_search_path: ConfigSearchPath, *, warns: bool = True) -> None:
        super().__init__(config_search_path)
        self.warns = warns

    def load_config(self, config_path: str) -> ConfigResult | None:
        sources = self._sources_of(config_path)
        file = f"{sources[0].path}/{config_path}.yaml" if sources else config_path
        try:
            loaded = super().load_config(config_path)
        except (HydraException, UserError):  # some of Hydra's are OSErrors, ours are ValueErrors
            raise
        except (ValueError, OSError) as error:
            raise FileMistake(f"{file} cannot be composed: {describe_error(error)}; correct the file") from error
        if loaded is None or not sources:
            return loaded
        if config_path.startswith(EXPERIMENT):
            _check_experiment(file, loaded)
        for default in loaded.defaults_list or ():
            self._check_choice(file, default)
        if self.warns and len(sources) > 1:
            _warn_of_ignored(f"{sources[1].path}/{config_path}.yaml")
        return loaded

    def _sources_of(self, config_path: str) -> list[ConfigSource]:
        """configs/ and the folder of --config-dir, whichever have this file; Hydra reads it from the first."""
        found = self._find_object_source(config_path, ObjectType.CONFIG)
        if found is None or found.provider not in PROVIDERS:
            return []
        return [each for each in self.sources if each.provider in PROVIDERS and each.is_config(config_path)]

    def _check_choice(self, file: str, default: InputDefault) -> None:
        """Raises FileMistake for an override of a group that does not exist, or with a name that it does not have."""
        if not isinstance(default, GroupDefault) or not default.override or _is_unchecked(default):
            return
        group, name = str(default.group).lstrip("/"), default.value
        if isinstance(name, list):
            raise FileMistake(f"{file}: `override /{group}: [{', '.join(name)}]` in its defaults list: give one name")
        if name is None or "${" in name or name == "???":
            return
        if not self.group_exists(group):
            groups = sorted(set(self._groups()))
            hint = nearest(group, groups) or f"; the groups are {', '.join(groups)}"
            raise FileMistake(f"{file}: /{group} in its defaults list is not a group{hint}")
        if not self.config_exists(f"{group}/{name}"):
            names = self.get_group_options(group)
            raise FileMistake(
                f"{file}: `override /{group}: {name}` in its defaults list names a file that does not exist; "
                f"{group} is one of {', '.join(names)}{nearest(name, names)}"
            )

    def _groups(self) -> Iterator[str]:
        for source in self.sources:
            if source.provider in PROVIDERS:
                yield from source.list("", ObjectType.GROUP)


@functools.cache  # once for each file: a multirun reads it for each job
def _warn_of_ignored(file: str) -> None:
    print(f"resnext: {file} is ignored: configs/ has a file of the same name; rename it", file=sys.stderr)


def _check_experiment(file: str, loaded: ConfigResult) -> None:
    """Raises FileMistake for an empty experiment, and for one that Hydra would put below the key `experiment`."""
    defaults = loaded.defaults_list or []
    if not loaded.config and not defaults:
        raise FileMistake(f"{file} is empty: choose a model, data and a recipe in it, as configs/experiment/*.yaml do")
    if (package := loaded.header.get("package")) != "_global_":
        lacks = f"has `# @package {package}`: write" if package else "lacks the line that makes it an experiment: add"
        raise FileMistake(f"{file} {lacks} `{HEADER}` as its first line")
    after_override = False
    for default in defaults:
        if isinstance(default, GroupDefault) and not _is_unchecked(default):
            group = str(PurePosixPath("/", str(default.group)))
            if not default.override or default.group != group:
                found = f"{'override ' if default.override else ''}{default.group}: {default.value}"
                right = default.value if group == "/experiment" else f"override {group}: {default.value}"
                raise FileMistake(f"{file}: its defaults list has `- {found}`; write `- {right}`")
            after_override = True
        elif isinstance(default, ConfigDefault) and " " in (path := default.path or ""):
            *_, group, name = path.split()
            raise FileMistake(f"{file}: its defaults list has `- {path}`; write `- override {group}: {name}`")
        elif isinstance(default, ConfigDefault) and after_override:
            raise FileMistake(f"{file}: in its defaults list, `{default.path}` has to stand before every `override`")


def _is_unchecked(default: GroupDefault) -> bool:
    """Whether it chooses a file of Hydra's own, or puts a file below another key."""
    return str(default.group).lstrip("/").startswith("hydra/") or default.package is not None
