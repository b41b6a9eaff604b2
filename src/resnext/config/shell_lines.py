"""Shell lines in a configuration: only the command line may give them, and for SLURM the cluster's file.

An experiment file is only data: who uses the file of somebody else does not run their commands.
"""

import re
from collections.abc import Callable
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from resnext.errors import UserError

OF_SLURM = ("prologue", "sbatch")  # keys of slurm
INTERPOLATION = re.compile(r"(?<!\\)\$\{")


def check_shell_lines(
    composed: DictConfig, overrides: list[Override], read_cluster: Callable[[str | None], dict[str, Any]]
) -> None:
    """Raises UserError for a shell line of another file. `read_cluster` reads configs/slurm/NAME.yaml."""
    _check_slurm(composed, overrides, read_cluster)
    node: Any = composed._get_node("notify")  # unresolved
    found: Any = OmegaConf.to_container(node) if isinstance(node, DictConfig) else node
    command = found.get("command") if isinstance(found, dict) else found
    if command is not None and not any(_gives(override, "notify", "command") for override in overrides):
        raise UserError("notify.command is a shell line: give it on the command line, not in a file")


def holds_shell_lines(key: str) -> bool:
    """Whether an override of `key` can give shell lines: `notify.command`, `+notify`, `slurm@here` …"""
    return re.split(r"[.@/]", key.lstrip("+~ "))[0].strip() in ("notify", "slurm")


def _check_slurm(
    composed: DictConfig, overrides: list[Override], read_cluster: Callable[[str | None], dict[str, Any]]
) -> None:
    if not isinstance(composed.slurm, DictConfig):
        raise UserError("slurm has to be a mapping of keys to values: correct the configuration file")
    found: Any = OmegaConf.to_container(composed.slurm)  # unresolved: an interpolation may get another value later
    from_files = {
        key: lines
        for key in OF_SLURM
        if (lines := found.get(key)) and not any(_gives(override, "slurm", key) for override in overrides)
    }
    cluster = read_cluster(composed.hydra.runtime.choices.get("slurm")) if from_files else {}
    for key, lines in from_files.items():
        if lines != cluster.get(key):
            raise UserError(
                f"slurm.{key} holds shell lines: give them in configs/slurm/NAME.yaml, chosen by slurm=NAME, "
                "or on the command line"
            )
        if INTERPOLATION.search(str(lines)):
            raise UserError(
                f"slurm.{key} holds ${{…}}, and another file may change it: write \\${{…}} for a shell variable"
            )


def _gives(override: Override, group: str, key: str) -> bool:
    """Whether the override itself gives GROUP.KEY; slurm=NAME only chooses a file."""
    return override.key_or_group == f"{group}.{key}" or (
        override.key_or_group == group and isinstance(override.value(), dict)
    )
