"""From Hydra's arguments to a `Config`: groups in configs/, overrides on the command line."""

import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from resnext.config.errors import KeyMistake, find_unknown, has_key, unknown_key
from resnext.config.folders import config_folders, config_names, experiments_with_data, with_config_dir
from resnext.config.help import train_page
from resnext.config.hydra_mistakes import describe_mistake, hides_interrupt, mistakes_in_one_line
from resnext.config.hydra_settings import MAIN, CheckedConfigLoader, check_no_secret, parse_arguments
from resnext.config.model import move_override
from resnext.config.origin import with_file
from resnext.config.overrides import describe_plus
from resnext.config.parts import drop_options_of_removed_names, open_options
from resnext.config.paths import PROJECT, with_absolute_paths
from resnext.config.resolvers import register_resolvers
from resnext.config.schema import Config, find_texts, parse_config, schema_defaults, to_dict
from resnext.errors import Paused, RunFailed, UserError, describe_os_error

CONFIGS = PROJECT / "configs"


def run_with_hydra(verb: str, arguments: list[str], task: Callable[[Config], float | None]) -> None:
    """Calls `task` with the composed configuration; a multirun calls it for each job, also after a failed job.

    The sweeper of a multirun receives what `task` returns.

    Raises:
        UserError: for a wrong key, value, group or override.
        UserError, RunFailed: the first error of `task`, after the last job.
    """
    parser, asked = parse_arguments(arguments)
    folders = config_folders(CONFIGS, asked.config_dir)
    if asked.help:
        print(train_page(verb, folders))
        return
    errors: list[UserError | RunFailed] = []

    def job(composed: DictConfig) -> float | None:
        register_resolvers()  # the job may be in another process
        try:
            try:
                return task(_convert(composed, folders))
            except OmegaConfBaseException as error:
                if hides_interrupt(error):
                    raise KeyboardInterrupt from error
                raise _find_own_error(error) or UserError(describe_mistake(error, folders)) from error
            except OSError as error:
                raise UserError(describe_os_error(error)) from error
        except Paused:  # the other jobs of a multirun go on
            return None
        except (UserError, RunFailed) as error:
            if "SUBMITIT_EXECUTOR" in os.environ:  # a job in its own process: it must fail
                raise
            if errors and str(error):
                print(f"resnext {verb}: {error}", file=sys.stderr)
            errors.append(error)
            return None

    sys.argv = [f"resnext {verb}" if not asked.shell_completion else "resnext", *arguments]  # Hydra's help shows it
    with mistakes_in_one_line(folders, arguments):
        _run_command(parser, asked, folders, job)
    if errors:
        raise errors[0]


def compose(overrides: list[str]) -> Config:
    """The configuration that `resnext train` composes from `overrides`. Raises UserError for a wrong override."""
    with composer() as compose_one:
        return compose_one(overrides)


@dataclass(frozen=True)
class Composer:
    """Composes several configurations with one Hydra instance, from the files in `folders`."""

    folders: list[Path]
    hydra: Hydra

    def __call__(self, overrides: list[str]) -> Config:
        with mistakes_in_one_line(self.folders, overrides):
            return _compose_with(self.hydra, overrides, self.folders)


@contextmanager
def composer(config_dir: str | None = None) -> Iterator[Composer]:
    """A `Composer` for configs/ and `config_dir`, also within a job that Hydra runs."""
    folders = config_folders(CONFIGS, config_dir)
    running = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    try:
        with _hydra(folders) as hydra:
            yield Composer(folders, hydra)
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = running


@contextmanager
def _hydra(folders: Sequence[Path], *, warns: bool = True) -> Iterator[Hydra]:
    """Hydra for the files in `folders`, with a loader that rejects configurations that could run code."""
    register_resolvers()
    ConfigStore.instance().store(name="schema", node=open_options(schema_defaults()))
    with initialize_config_dir(str(folders[0]), job_name="resnext", version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        search_path = with_config_dir(hydra.config_loader.get_search_path(), folders[1:])
        hydra.config_loader = CheckedConfigLoader(search_path, warns=warns)
        yield hydra


def _run_command(
    parser: ArgumentParser, asked: Namespace, folders: list[Path], job: Callable[[DictConfig], float | None]
) -> None:
    """Runs the command that the arguments select, as hydra.main does."""
    with _hydra(folders, warns=not asked.shell_completion) as hydra:
        if asked.hydra_help:
            hydra.hydra_help(MAIN, parser, asked)
        elif asked.cfg:
            _check_composed(hydra, asked, folders)
            hydra.show_cfg(MAIN, asked.overrides, asked.cfg, asked.package, asked.resolve)
        elif asked.info:
            hydra.show_info(asked.info, MAIN, asked.overrides)
        elif asked.shell_completion:
            hydra.shell_completion(MAIN, asked.overrides)
        elif asked.multirun:
            hydra.multirun(MAIN, job, _with_name(asked.overrides))
        else:
            hydra.run(MAIN, job, asked.overrides)


def _check_composed(hydra: Hydra, asked: Namespace, folders: list[Path]) -> None:
    """Raises UserError if a run would refuse the configuration: Hydra prints every one that it can compose."""
    _compose_with(hydra, asked.overrides, folders)
    if asked.package not in (None, "_global_") and not has_key(asked.package, schema_defaults()):
        raise UserError(f"--package {asked.package}: {unknown_key(asked.package, schema_defaults())}")


def _compose_with(hydra: Hydra, overrides: list[str], folders: list[Path]) -> Config:
    composed = hydra.compose_config(MAIN, overrides, RunMode.RUN, with_log_configuration=False)
    HydraConfig.instance().set_config(composed)  # for ${hydra:…}
    OmegaConf.set_struct(composed, False)
    del composed["hydra"]
    return _convert(composed, folders)


def _find_own_error(error: OmegaConfBaseException) -> UserError | None:
    """The UserError of one of our resolvers, with the key of the value that calls the resolver."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__ or cause.__context__
    return UserError(f"{error.full_key}: {cause}") if cause else None


def _with_name(overrides: list[str]) -> list[str]:
    """Adds a name for the runs of a multirun, so that a requeued job finds its run."""
    if any(each.startswith("run=") for each in overrides):
        return overrides
    return [*overrides, f"run=sweep-{time.strftime('%Y%m%d-%H%M%S')}"]


def apply_overrides(config: Config, overrides: list[str]) -> Config:
    """`config` with KEY=VALUE overrides in Hydra's syntax; an override cannot choose a group's file.

    Raises:
        UserError: for a wrong key or value.
    """
    tree = OmegaConf.create(to_dict(config))
    try:
        for override in OverridesParser.create().parse_overrides([move_override(each) for each in overrides]):
            if override.is_sweep_override():
                raise UserError(f"{override.input_line}: a run has one value for each key; `train -m` takes several")
            if (plus := describe_plus(override, is_group=False)) is not None:
                raise UserError(plus)
            if not has_key(override.get_key_element(), schema_defaults()):
                raise UserError(unknown_key(override.get_key_element(), schema_defaults()))
            OmegaConf.update(tree, override.get_key_element(), override.value())
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(describe_mistake(error, [CONFIGS], overrides)) from error
    drop_options_of_removed_names(tree, to_dict(config))
    return _parse(OmegaConf.to_container(tree))


def _convert(composed: DictConfig, folders: Sequence[Path]) -> Config:
    try:
        _check_complete(composed)
        config = _parse(OmegaConf.to_container(composed, resolve=True))
    except KeyMistake as error:
        raise with_file(error, folders, HydraConfig.get().overrides.task) from None
    _check_experiment(folders)
    job = HydraConfig.get().job
    if not OmegaConf.is_missing(job, "num") and config.run is not None:  # a job of a multirun
        config = replace(config, run=f"{config.run}-{job.num}")
    return config


def _check_complete(composed: DictConfig) -> None:
    """Raises UserError for keys without a value."""
    if missing := OmegaConf.missing_keys(composed):
        found: Any = OmegaConf.to_container(composed)
        if (unknown := find_unknown(found, schema_defaults())) is not None:  # a typo makes the right key missing
            raise KeyMistake(unknown_key(unknown, schema_defaults()), unknown)
        key = min(missing)
        if len(missing) == 1:
            raise UserError(f"{key} is missing: give it as {key}=VALUE")
        group = key.partition(".")[0]
        where = f"the file of {group}={HydraConfig.get().runtime.choices.get(group)}"
        raise UserError(f"{', '.join(sorted(missing))} are missing: write them into {where}, or give each as KEY=VALUE")


def _check_experiment(folders: Sequence[Path]) -> None:
    """Raises UserError for data that was chosen without an experiment, or without both a network and a recipe."""
    hydra = HydraConfig.get()
    typed = {each.partition("=")[0].lstrip("+") for each in hydra.overrides.task}
    if "data" not in typed or "experiment" in typed or {"model", "recipe"} <= typed:
        return
    name, default = hydra.runtime.choices["data"], hydra.runtime.choices["experiment"]
    fitting = experiments_with_data(folders, name)
    if default not in fitting:
        names = " or ".join(fitting) or "|".join(config_names(folders, "experiment"))
        raise UserError(
            f"data={name} needs an experiment made for it: the default, {default}, has a network and a recipe for "
            f"other data; give experiment={names}, or both model=NAME and recipe=NAME"
        )


def _parse(tree: Any) -> Config:
    """Raises UserError for a value that the schema refuses or that looks like a secret."""
    config = parse_config(tree)
    for key, text in find_texts(tree):
        if key != "run":  # a run may have any name
            check_no_secret(key, text)
    return with_absolute_paths(config)
