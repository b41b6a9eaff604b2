"""The settings of Hydra itself that a configuration may change: the launcher, the sweeper and their options.

Hydra instantiates `hydra.callbacks`, `hydra.job_logging`, `hydra.launcher` … from any file that it composes, and writes
to `hydra.run.dir`. Therefore each composition is first compared with a composition of Hydra's own files.
"""

import argparse
import copy
import os
import re
from pathlib import PurePath
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.utils import get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from resnext.config.config_file import CheckedFiles
from resnext.config.errors import KeyMistake
from resnext.config.folders import PROVIDERS, config_dir_in
from resnext.config.model import move_override, move_structure
from resnext.config.overrides import check_override, refuse_arguments
from resnext.config.parts import add_option_defaults
from resnext.config.pretrained import use_network_of_weights
from resnext.config.redaction import find_secret
from resnext.config.schema import find_differences
from resnext.config.shell_lines import check_shell_lines, holds_shell_lines
from resnext.errors import UserError, describe_error

MAIN = "train"  # configs/train.yaml
SUBMITIT = (
    *("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name"),
    "stderr_to_stdout",
)
SLURM = (
    *("partition", "qos", "comment", "constraint", "exclude", "gres", "cpus_per_gpu", "gpus_per_task", "mem_per_gpu"),
    *("mem_per_cpu", "account", "signal_delay_s", "max_num_timeout", "array_parallelism"),
)
OPTIONS = {  # allowed options, by group and name; none of them imports code, runs shell lines or names a folder
    "launcher": {"basic": (), "submitit_local": SUBMITIT, "submitit_slurm": (*SUBMITIT, *SLURM)},
    "sweeper": {
        "basic": ("max_batch_size", "params"),
        "optuna": ("direction", "n_trials", "n_jobs", "max_failure_rate", "study_name", "sampler.seed", "params"),
    },
}
SETTABLE = re.compile(r"hydra/(launcher|sweeper)|hydra\.(launcher|sweeper)\..+")
FILE_FLAGS = ("config_path", "config_name", "experimental_rerun")  # flags of Hydra; the last one unpickles a file
SETTINGS = {  # Hydra writes no files or logs, except runs/multirun.yaml for a multirun
    "run.dir": ".",
    "sweep.dir": "runs",
    "sweep.subdir": ".",
    "output_subdir": None,
    "job_logging": {"root": None},
    "hydra_logging": {"root": None},
}


def parse_arguments(arguments: list[str]) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Hydra's parser and the parsed `arguments`: flags and overrides in any order.

    Raises:
        UserError: for an unknown flag, or a flag that loads files from elsewhere. --config-dir is allowed: its files
            are checked.
    """
    parser = get_args_parser()
    parser.error = refuse_arguments  # pyright: ignore[reportAttributeAccessIssue]
    parsed = parser.parse_intermixed_args(arguments)
    if parsed.shell_completion:
        parsed.config_dir = config_dir_in(os.environ.get("COMP_LINE", ""))
    for flag in FILE_FLAGS:
        if getattr(parsed, flag) is not None:
            raise UserError(
                f"--{flag.replace('_', '-')} {getattr(parsed, flag)} is not allowed: every run is composed from "
                "configs/train.yaml; put the file into "
                "experiment/ of configs/ or of --config-dir, and give experiment=NAME"
            )
    return parser, parsed


class CheckedConfigLoader(ConfigLoaderImpl):
    """Composes like Hydra, and refuses settings that make Hydra or the shell run code or write elsewhere.

    Hydra uses it for every composition: --help, --cfg, completion, a run, and each job of a multirun.
    """

    def __init__(self, config_search_path: ConfigSearchPath, *, warns: bool = True) -> None:
        super().__init__(config_search_path)
        self.repository = CheckedFiles(config_search_path, warns=warns)
        self._expected: dict[tuple[str, ...], DictConfig] = {}

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Raises UserError for a setting that is not allowed in a file or an override."""
        overrides = [move_override(each) for each in overrides]
        parsed = OverridesParser.create().parse_overrides(overrides)
        has_own = any(each.provider == PROVIDERS[1] for each in self.config_search_path.get_path())
        for override in parsed:
            _check_override(override)
            check_override(override, self.get_group_options, has_own=has_own)
        arguments = (config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        try:
            composed = super().load_configuration(*arguments)
        except (HydraException, UserError):  # some of Hydra's are OSErrors; ours are ValueErrors
            raise
        except (AttributeError, TypeError, ValueError, OSError, RecursionError) as error:
            # errors inside Hydra for `hydra: null`, model=3, a file that is a number, or a file that includes itself
            reason = describe_error(error)
            raise UserError(f"the configuration cannot be composed: {reason}; correct the file or the value") from error
        self._check_hydra(composed.hydra, parsed)
        if "slurm" in composed:
            check_shell_lines(composed, parsed, self._lines_of_cluster)
        for key, value in SETTINGS.items():
            OmegaConf.update(composed.hydra, key, value, merge=False)
        use_network_of_weights(composed, parsed)
        add_option_defaults(composed)
        return composed

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        """Moves old keys (model.layers …) into model.options, so that the later of two files applies."""
        result = super()._load_single_config(default, repo)
        if isinstance(result.config, DictConfig) and isinstance(model := result.config.get("model"), DictConfig):
            content: Any = OmegaConf.to_container(model)
            if (moved := move_structure(content)) is not content:
                result.config["model"] = moved
        return result

    def _check_hydra(self, node: DictConfig, overrides: list[Override]) -> None:
        chosen = {group: node.runtime.choices.get(f"hydra/{group}") for group in OPTIONS}
        for group, name in chosen.items():
            if name not in OPTIONS[group]:
                raise UserError(f"hydra/{group}={name} is not allowed; give one of {', '.join(OPTIONS[group])}")
        found: Any = OmegaConf.to_container(node)
        expected: Any = OmegaConf.to_container(self._compose_expected(chosen))
        expected["overrides"] = {
            "hydra": [each.input_line for each in overrides if each.is_hydra_override()],
            "task": [each.input_line for each in overrides if not each.is_hydra_override()],
        }
        expected["runtime"] = found["runtime"] | {"output_dir": "???"}
        for name in ("override_dirname", "config_name"):  # made from the overrides
            expected["job"][name] = found["job"][name]
        for key, value, _ in find_differences(found, expected):
            _check_option(key, value, chosen)

    def _compose_expected(self, chosen: dict[str, str]) -> DictConfig:
        """The hydra node with these choices, composed only from the files of Hydra and its plugins."""
        key = tuple(chosen.values())
        if key not in self._expected:
            search_path = copy.deepcopy(self.config_search_path)
            search_path.get_path()[:] = [each for each in search_path.get_path() if each.provider not in PROVIDERS]
            choices = [f"hydra/{group}={name}" for group, name in chosen.items()]
            composed = ConfigLoaderImpl(search_path).load_configuration(None, choices, RunMode.RUN)
            self._expected[key] = composed.hydra
        return self._expected[key]

    def _lines_of_cluster(self, name: str | None) -> dict[str, Any]:
        if name is None or ".." in PurePath(name).parts:  # a file of another group
            return {}
        found: Any = OmegaConf.to_container(super().load_configuration(f"slurm/{name}", [], RunMode.RUN))
        return found.get("slurm") or {}


def check_no_secret(key: str, text: str) -> None:
    """Raises KeyMistake if `text`, the value of `key`, looks like a secret: a run would save it."""
    if (secret := find_secret(text)) is not None:
        raise KeyMistake(
            f"{key} holds {secret}, and a run saves its configuration as plain text: put secrets into environment "
            "variables, or into files that only you can read",
            key,
        )


def _check_override(override: Override) -> None:
    key, package = override.key_or_group, override.package or ""
    if key != "run":  # a run may have any name
        check_no_secret(key, (override.input_line or "").partition("=")[2])
    if "hydra" not in (re.split(r"[./]", key)[0], package.partition(".")[0]):
        return
    if package or override.is_delete() or not SETTABLE.fullmatch(key):
        raise UserError(_not_settable(override.input_line or key))


def _check_option(key: str, value: Any, chosen: dict[str, str]) -> None:
    group, _, option = key.partition(".")
    if group not in OPTIONS:
        raise UserError(_not_settable(f"hydra.{key}"))
    name = chosen[group]
    options = OPTIONS[group][name]
    if option not in options and not option.startswith("params."):
        allowed = ", ".join(options) or "none"
        raise UserError(f"hydra.{key} cannot be set: the options of hydra/{group}={name} are: {allowed}")
    if not _is_plain(value):
        raise UserError(f"hydra.{key} has to be a number or one line of text, without ${{…}}")
    swept = value if option == "params" and isinstance(value, dict) else [option.removeprefix("params.")]
    if any(holds_shell_lines(str(each)) for each in swept):
        raise UserError(
            f"hydra.{key} could hold a shell line: give notify.* and slurm.* themselves on the command line"
        )


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):  # params
        return all(_is_plain(each) for item in value.items() for each in item)
    return not isinstance(value, list) and "${" not in str(value) and str(value).isprintable()


def _not_settable(what: str) -> str:
    return (
        f"{what} cannot be set: give only hydra/launcher={'|'.join(OPTIONS['launcher'])}, "
        f"hydra/sweeper={'|'.join(OPTIONS['sweeper'])} or their options, such as hydra.launcher.timeout_min=60"
    )
