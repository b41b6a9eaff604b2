"""The whole configuration, typed and frozen; its network is in model.py, its data in data.py, its recipe in recipe.py.

`parse_config` converts a plain mapping (composed by Hydra, or read from a run directory) to a `Config`, or raises a
`UserError` of one line. Other code uses only the `Config`. Imports no torch.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from resnext.config.batch import BatchSplit, split_batch
from resnext.config.data import OF_THE_MACHINE, DataConfig
from resnext.config.errors import KeyMistake, first_mistake
from resnext.config.logger import LoggerConfig
from resnext.config.model import ModelConfig
from resnext.config.parts import parse_named_options
from resnext.config.recipe import RecipeConfig
from resnext.config.slurm import SlurmConfig
from resnext.config.types import STRICT, Count, Name, Options, Positive
from resnext.errors import UserError
from resnext.registry import load_extensions
from resnext.terminal import pluralize

TEXTS = ("file", "source", "published")  # keys of recipe; only displayed, not in a run's identity


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainerConfig:
    """The machine and its use. Each auto is resolved at the run's first start, on the machine that trains, and stays.

    `accelerator` auto: a GPU if there is one. `devices`: per node; auto: every GPU, or one process on a CPU. `nodes`:
    the number of machines. `precision` auto: bf16-mixed if the device has instructions for it, else 16-mixed on a GPU
    and 32-true on a CPU. `micro_batch_size`: images per device in one micro-step; null: the device's whole share of the
    global batch; auto: the most that fit, found by trial when the run is made, which keeps the number. `compile`: use
    torch.compile; auto: on a GPU. `channels_last`: the memory format of images and network; auto: yes. `deterministic`:
    on a GPU, only algorithms that give the same bits each time. `on_nonfinite`: after a loss that is not finite, stop
    the training, or skip the step (skip waits for the device at every step). `timeout_minutes`: how long a process may
    keep the others waiting before they end. `max_restarts`: how many times to restart this machine's processes after
    one dies. `pause_after_epochs`: save a checkpoint and end the process after the validation of this epoch; a sweep
    uses this. To resume the run, give null or a later epoch.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: Count | Literal["auto"] = "auto"
    nodes: Count = 1
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    micro_batch_size: Count | Literal["auto"] | None = None
    compile: bool | Literal["auto"] = "auto"
    channels_last: bool | Literal["auto"] = "auto"
    deterministic: bool = False
    on_nonfinite: Literal["stop", "skip"] = "stop"
    timeout_minutes: Positive = 30.0
    max_restarts: Annotated[int, Field(ge=0)] = 0
    pause_after_epochs: Count | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CheckpointConfig:
    """When to write last.ckpt, in addition to the end of every epoch.

    `every_minutes`: minutes of wall time between two saves. `every_steps`: optimizer steps between two saves.
    `keep_every_epochs` N: also keep the last.ckpt of every Nth epoch. `max_failures`: after this number of failed saves
    in a row, the training ends.
    """

    every_minutes: Positive | None = 15.0
    every_steps: Count | None = None
    keep_every_epochs: Count | None = None
    max_failures: Count = 10


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NotifyConfig:
    """`command`: a line of the shell that is run when the run ends, fails or stalls (docs/watching.md)."""

    command: Name | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CallbacksConfig:
    """Registered callbacks. They are part of a run's identity.

    `names`: called in this order, after our own callbacks. `options`: NAME.OPTION of these callbacks.
    """

    names: tuple[Name, ...] = ()
    options: Options = None

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        object.__setattr__(self, "options", parse_named_options("callback", "callbacks", self.names, self.options))
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Config:
    """One training run.

    `experiment`: the file in configs/experiment/ that fixes the other groups. `run`: the name of the directory
    runs/NAME; null: named after the experiment and the time. `seed`: all random numbers of the training depend on it.
    """

    experiment: str
    run: Name | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    model: ModelConfig
    data: DataConfig
    recipe: RecipeConfig
    callbacks: CallbacksConfig = Field(default_factory=CallbacksConfig)
    trainer: TrainerConfig = Field(default_factory=TrainerConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    logger: LoggerConfig = Field(default_factory=LoggerConfig)
    notify: NotifyConfig = Field(default_factory=NotifyConfig)
    slurm: SlurmConfig = Field(default_factory=SlurmConfig)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        """The folder of a run is named after `run`, or after `experiment` and the time."""
        for key, name in (("run", self.run), ("experiment", self.experiment)):
            if name is not None and (name.startswith((".", "-")) or "/" in name or not name.isprintable()):
                plain = name.rstrip("/").rpartition("/")[2].lstrip(".-")
                raise ValueError(f"{key}={name!r} must be a plain folder name in runs/, such as {plain or 'first'}")
        return self

    def split_batch(self, world_size: int) -> BatchSplit:
        """Divides the global batch among `world_size` devices. With micro-batches of `auto`: as with null.

        Raises:
            UserError: if it cannot be divided, or if images are mixed in micro-batches of one image.
        """
        micro = self.trainer.micro_batch_size
        split = split_batch(self.recipe.batch_size, None if micro == "auto" else micro, world_size)
        if split.micro == 1 and self.recipe.mixing.on:
            raise UserError(
                f"recipe.mixing mixes the images of a micro-batch, which has one image for recipe.batch_size="
                f"{self.recipe.batch_size} on {pluralize(world_size, 'device')}: set trainer.micro_batch_size=2 or "
                "more, or use fewer devices"
            )
        return split

    def identity(self) -> dict[str, Any]:
        """The part of the configuration that must be the same at every start of the run."""
        return {
            "seed": self.seed,
            "model": to_dict(self.model),
            "recipe": self._recipe_identity(),
            "data": {key: value for key, value in to_dict(self.data).items() if key not in OF_THE_MACHINE},
            "callbacks": to_dict(self.callbacks),
        }

    def _recipe_identity(self) -> dict[str, Any]:
        recipe = {key: value for key, value in to_dict(self.recipe).items() if key not in TEXTS}
        if not self.model.name.startswith("timm/"):  # null and false are the same for our networks
            recipe["init"]["zero_init_last"] = bool(self.recipe.init.zero_init_last)
        return recipe


def parse_config(mapping: Mapping[str, Any]) -> Config:
    """Checks a plain mapping against the schema.

    Raises:
        KeyMistake: one line with the dotted key, the given value, what is allowed and, for a name, the nearest name.
    """
    for key, text in find_texts(mapping):
        if text and text.splitlines() != [text]:  # it would break a line of a batch script, a log or a message
            raise KeyMistake(f"{key} has more than one line: {text!r}; write it in one line", key)
    load_extensions()  # here, not within pydantic, which would report its error once for each field
    try:
        # as JSON: strict mode accepts a dict for a dataclass and a list for a tuple only from JSON
        return TypeAdapter(Config).validate_json(json.dumps(mapping))
    except ValidationError as error:
        raise first_mistake(error, schema_defaults()) from None


def find_texts(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a configuration with its dotted key; a text in a list has the key of the list."""
    if isinstance(tree, str):
        yield key, tree
    elif isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from find_texts(value, f"{key}.{name}" if key else str(name))
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from find_texts(value, key)


def find_differences(one: Any, other: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields (dotted key, first value, second value) for each difference of nested dicts; a missing value is None."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in one | other:
            yield from find_differences(one.get(name), other.get(name), f"{key}.{name}" if key else str(name))
    elif one != other:
        yield key, one, other


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration object as plain dicts, lists and scalars, ready for YAML."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (tuple, list)) else value

    return plain(dataclasses.asdict(config))


def schema_defaults(cls: type = Config) -> dict[str, Any]:
    """Every key of the schema with its default; without a default, Hydra's mark for a missing value, `???`."""
    defaults: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        nested = field.type
        if dataclasses.is_dataclass(nested) and isinstance(nested, type):
            defaults[field.name] = schema_defaults(nested)
        elif nested is Options:
            defaults[field.name] = {}
        elif field.default is dataclasses.MISSING:
            defaults[field.name] = "???"
        else:
            defaults[field.name] = list(field.default) if isinstance(field.default, tuple) else field.default
    return defaults
