"""The settings of a sweep: `sweep.KEY=VALUE` on the command line, over configs/sweep/NAME.yaml. Imports no torch.

A sweep is not part of a run's configuration: each of its runs has the configuration of a run that is trained alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from resnext.config.errors import first_mistake, unknown_key
from resnext.config.folders import config_file, config_names
from resnext.config.model import move_override
from resnext.config.overrides import describe_choice
from resnext.config.schema import schema_defaults, to_dict
from resnext.config.types import STRICT, Count, Name, Positive
from resnext.errors import UserError

GROUP = "sweep"
OF_THIS_START = ("parallel", "launcher", "budget_minutes", "max_failures")  # may change each time a sweep is continued
NOT_SWEPT = {"run": "it names the sweep", "seed": "give sweep.seeds=[0,1,2], which reports mean and spread"}
Overrides = tuple[Name, ...]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SweepConfig:
    """Many runs as one. A trial is one set of values; it has a run for each seed.

    `overrides`: KEY=VALUE for every run. `space`: the values of each key that is searched, in Hydra's syntax. `points`:
    instead of a space, named sets of overrides: family → label → overrides. `sampler`: Optuna's sampler; grid takes
    every combination. `sampler_seed`: the seed of the sampler. `trials`: the number of trials; null: every combination
    of the grid. `seeds`: the seeds of each trial; the sampler sees their mean. Empty: one run, with the experiment's
    seed. `metric`: a column of metrics.csv, whose best epoch counts; null: the recipe's own (val/top1, or val_ema/top1
    with an EMA). `direction`: whether a higher metric is better. `pruner`: Optuna's pruner; asha pauses the trials that
    are not among the best of a rung, and may promote them later; median ends the trials that are worse than the median.
    `min_epochs`: the epochs of the first rung; with median, also the epochs between two rungs; null: a ninth of the
    epochs for asha, a tenth for median. `reduction_factor`: with asha, the best 1 / reduction_factor of the trials of a
    rung continue, to reduction_factor times as many epochs. `parallel`: how many runs train at the same time; null: 1,
    and 8 jobs on SLURM. `launcher`: where the runs train: on this machine, or as SLURM jobs. `budget_minutes`: the
    sweep stops after this time; repeat the command to continue it. `max_failures`: the sweep stops after more failed
    trials than this. `config_dir`: the folder of --config-dir.
    """

    overrides: Overrides = ()
    space: dict[Name, Name] = Field(default_factory=dict)
    points: dict[Name, dict[Name, Overrides]] = Field(default_factory=dict)
    sampler: Literal["grid", "random", "tpe", "gp"] = "grid"
    sampler_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    trials: Count | None = None
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = ()
    metric: Name | None = None
    direction: Literal["maximize", "minimize"] = "maximize"
    pruner: Literal["none", "asha", "median"] = "none"
    min_epochs: Count | None = None
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    parallel: Count | None = None
    launcher: Literal["local", "slurm"] = "local"
    budget_minutes: Positive | None = None
    max_failures: Annotated[int, Field(ge=0)] = 3
    config_dir: Name | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sampler != "grid" and self.trials is None:
            raise ValueError(f"sweep.sampler={self.sampler} needs a number of trials: give sweep.trials=N")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"sweep.seeds={list(self.seeds)} has a seed twice")
        if self.metric is not None and self.metric.endswith("loss") and self.direction == "maximize":
            raise ValueError(f"sweep.metric={self.metric} is better when it is lower: give sweep.direction=minimize")
        if bool(self.space) == bool(self.points):
            raise ValueError(
                "sweep.points replaces the space: leave one of them out"
                if self.space
                else "a sweep needs the values of at least one key, such as recipe.optimizer.lr=0.05,0.1,0.2"
            )
        if self.points and self.sampler != "grid":
            raise ValueError(f"sweep.sampler={self.sampler} needs a space; sweep.points are trained one by one (grid)")
        return self

    @property
    def places(self) -> int:
        """The number of runs that train at the same time."""
        return self.parallel or (8 if self.launcher == "slurm" else 1)


class Asked(NamedTuple):
    """What a command line asks for: the name of the sweep, if it gives one, and the settings."""

    name: str | None
    sweep: SweepConfig


def parse_sweep(arguments: Sequence[str], folders: Sequence[Path], config_dir: str | None = None) -> Asked:
    """The settings of `resnext sweep ARGUMENTS`; an argument replaces the same key of the sweep's file.

    Raises:
        UserError: for an argument that is not KEY=VALUE, an unknown key of `sweep`, or a value that it refuses.
    """
    parsed = [(argument, parse_argument(argument)) for argument in map(move_override, arguments)]
    chosen = next((str(each.value()) for _, each in reversed(parsed) if each.key_or_group == GROUP), None)
    name = next((str(each.value()) for _, each in reversed(parsed) if each.key_or_group == "run"), chosen)
    settings = _read_file(chosen, folders) if chosen is not None else {}
    space: dict[str, str] = dict(settings.get("space") or {})
    overrides: list[str] = list(settings.get("overrides") or ())
    for argument, override in parsed:
        key, _, text = argument.partition("=")
        if key.startswith(f"{GROUP}."):
            _set(settings, key.partition(".")[2], override)
        elif key not in (GROUP, "run") or override.is_sweep_override():
            space.pop(key, None)
            overrides = [each for each in overrides if each.partition("=")[0] != key]
            if not override.is_sweep_override():
                overrides.append(argument)
            elif key in NOT_SWEPT:
                raise UserError(f"{argument}: a sweep cannot search over {key}: {NOT_SWEPT[key]}")
            else:
                space[key] = text
    return Asked(name, make_sweep(settings | {"space": space, "overrides": overrides, "config_dir": config_dir}))


def make_sweep(settings: dict[str, Any]) -> SweepConfig:
    """Raises UserError in one line, with the key as `sweep.KEY`."""
    schema = {GROUP: schema_defaults(SweepConfig)}
    try:
        return TypeAdapter(SweepConfig).validate_python(_as_tuples(settings), strict=False)
    except ValidationError as error:
        raise first_mistake(error, schema, (GROUP,)) from None


def change_sweep(sweep: SweepConfig, arguments: Sequence[str], name: str) -> SweepConfig:
    """The settings of a sweep that exists, with those that may differ each time it goes on."""
    changes: dict[str, Any] = {}
    for argument in arguments:
        override = parse_argument(argument)
        key = argument.partition("=")[0].removeprefix(f"{GROUP}.")
        if key not in OF_THIS_START:
            allowed = ", ".join(f"{GROUP}.{each}" for each in OF_THIS_START)
            raise UserError(f"{argument}: the sweep {name} exists; only {allowed} can change; give another run=NAME")
        changes[key] = override.value()
    return make_sweep(to_dict(sweep) | changes)


def parse_argument(argument: str) -> Override:
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        key = argument.partition("=")[0]
        raise UserError(
            f"{argument} cannot be read as KEY=VALUE or KEY=SPACE; a space is {key}=A,B,C, {key}='range(1,5)', "
            f"{key}='interval(0.1,1)' or {key}='tag(log,interval(0.01,1))'"
        ) from None


def _set(settings: dict[str, Any], key: str, override: Override) -> None:
    if key in ("space", "points", "overrides") or key not in (schema := schema_defaults(SweepConfig)):
        known = [each for each in schema_defaults(SweepConfig) if each not in ("space", "points", "overrides")]
        raise UserError(unknown_key(f"{GROUP}.{key}", {GROUP: dict.fromkeys(known)}))
    if override.is_sweep_override():
        raise UserError(
            f"{override.input_line}: write a list in brackets, such as sweep.seeds=[0,1,2]"
            if isinstance(schema[key], list)
            else f"{override.input_line}: sweep.{key} has one value"
        )
    settings[key] = override.value()


def _read_file(name: str, folders: Sequence[Path]) -> dict[str, Any]:
    names = config_names(folders, GROUP)
    if name not in names:
        raise UserError(describe_choice(GROUP, name, names, has_own=len(folders) > 1))
    path = config_file(folders, f"{GROUP}/{name}")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} has no settings: it needs a space or points")
    if unknown := [key for key in content if key not in schema_defaults(SweepConfig)]:
        raise UserError(f"{path}: {unknown_key(f'{GROUP}.{unknown[0]}', {GROUP: schema_defaults(SweepConfig)})}")
    _check_shapes(path, content)
    content["space"] = {key: str(value) for key, value in (content.get("space") or {}).items()}
    return content


def _check_shapes(path: Path, content: dict[str, Any]) -> None:
    """Raises UserError for a list or a mapping that is written in another way."""
    space, points, overrides = (
        content.get(key) or kind() for key, kind in (("space", dict), ("points", dict), ("overrides", list))
    )
    if not isinstance(space, dict):
        raise UserError(f"{path}: write space as lines `KEY: VALUES`")
    if not isinstance(overrides, list):
        raise UserError(f"{path}: write overrides as a list: [KEY=VALUE, …]")
    if not isinstance(points, dict) or not all(
        isinstance(labels, dict) and all(isinstance(each, list) for each in labels.values())
        for labels in points.values()
    ):
        raise UserError(f"{path}: write points as lines `FAMILY: {{LABEL: [KEY=VALUE, …]}}`")


def _as_tuples(settings: dict[str, Any]) -> dict[str, Any]:
    """Lists as tuples, and the labels of points as texts: YAML reads a label `1` as a number."""
    made = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    if isinstance(points := settings.get("points"), dict):
        made["points"] = {
            str(family): {str(label): tuple(map(str, texts)) for label, texts in (labels or {}).items()}
            for family, labels in points.items()
        }
    return made
