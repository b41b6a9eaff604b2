"""The network part of the configuration: name, weights and options. Imports no torch."""

import re
from dataclasses import asdict, is_dataclass, replace
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from resnext.config.parts import parse_options
from resnext.config.types import STRICT, Count, Name, Options
from resnext.registry import register_network

TIMM_PREFIX = "timm/"
STRUCTURE = ("layers", "cardinality", "base_width", "width", "stem")  # formerly keys of model, now of model.options
OLD_OVERRIDE = re.compile(rf"([+~]*)model\.(?=({'|'.join(STRUCTURE)})(=|$))")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ResNeXtOptions:
    """The structure of a ResNeXt (Xie et al. 2017).

    `layers`: the number of blocks of each stage. `cardinality`: the paper's C. `base_width`: the paper's d. `width`:
    the number of channels of the stem; d is multiplied by width / 64. `stem`: the cifar stem is for small images.
    """

    layers: Annotated[tuple[Count, ...], Field(min_length=1)]
    cardinality: Count
    base_width: Count
    width: Count = 64
    stem: Literal["imagenet", "cifar"] = "imagenet"

    @model_validator(mode="after")
    def _check_cardinality_divides(self) -> Self:
        """The first 3×3 has width · base_width / 64 · cardinality channels in `cardinality` groups."""
        channels = self.width * self.base_width * self.cardinality / 64
        if channels % self.cardinality:
            raise ValueError(
                f"model.options.cardinality={self.cardinality} does not divide the {channels:g} channels of the first "
                f"3×3 (width {self.width} · base_width {self.base_width} / 64 · cardinality); "
                "model.options.width · model.options.base_width must be a multiple of 64"
            )
        return self


def _variant(name: str) -> ResNeXtOptions:
    """The options of resnextDEPTH_CxDd, named as in the paper. Depth 29 is the paper's network for CIFAR."""
    depth, cardinality, base_width = map(int, re.findall(r"\d+", name))
    layers = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 29: (3, 3, 3)}[depth]
    stem = "cifar" if depth == 29 else "imagenet"
    return ResNeXtOptions(layers=layers, cardinality=cardinality, base_width=base_width, stem=stem)


VARIANTS = {
    name: _variant(name)
    for name in (
        *(f"resnext50_{size}" for size in ("1x64d", "2x40d", "4x24d", "8x14d", "32x4d")),
        *(f"resnext101_{size}" for size in ("1x64d", "2x40d", "4x24d", "8x14d", "32x4d")),
        *(f"resnext101_{size}" for size in ("1x100d", "2x64d", "64x4d", "32x8d")),
        *(f"resnext29_{size}" for size in ("8x64d", "16x64d")),
    )
}
# The functions that build them are in models/resnext.py: this file must not import torch.
register_resnext = register_network("resnext", options=ResNeXtOptions)
register_variant = {name: register_network(name) for name in VARIANTS}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """A network by its registered name, or `timm/NAME`.

    `name`: a registered network or timm/NAME. `weights`: a file, a folder of `export --format timm`, torchvision:NAME
    or timm:NAME; null: random values. `freeze`: names of parts of the network, such as layer1, that are not trained.
    `options`: those registered with the name; for a network of timm, scalars that its constructor takes.
    """

    name: Name
    weights: Name | None = None
    freeze: Annotated[tuple[Name, ...], Field(strict=False)] = ()  # `_move_structure` passes on a list
    options: Options = None

    @model_validator(mode="before")
    @classmethod
    def _move_structure(cls, given: Any) -> Any:
        fields = getattr(given, "kwargs", given)  # a call in Python arrives as pydantic's ArgsKwargs
        return move_structure(fields) if isinstance(fields, dict) else given

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        if self.name.startswith(TIMM_PREFIX):
            options = _check_scalars(self.name, self.options)
        else:
            options = parse_options("network", self.name, self.options, name_key="model.name", key="model.options")
        object.__setattr__(self, "options", options)
        return self

    @property
    def network(self) -> Self:
        """The network alone: its name and options."""
        return replace(self, weights=None, freeze=())


def move_structure(model: dict[str, Any]) -> dict[str, Any]:
    """`model` with its old keys (model.layers …) moved into `options`; null was their default, and is dropped."""
    if not model.keys() & set(STRUCTURE):
        return model
    options: Any = model.get("options") or {}
    options = asdict(options) if is_dataclass(options) and not isinstance(options, type) else options
    moved = {key: model[key] for key in STRUCTURE if model.get(key) is not None}
    return {**{key: value for key, value in model.items() if key not in STRUCTURE}, "options": {**options, **moved}}


def move_override(override: str) -> str:
    """`model.options.layers=…` for `model.layers=…`; any other override is unchanged."""
    return OLD_OVERRIDE.sub(r"\1model.options.", override) if OLD_OVERRIDE.match(override) else override


def _check_scalars(name: str, options: Any) -> dict[str, Any]:
    """Checks only the types: models/timm_options.py imports timm and checks the names."""
    options = options or {}
    if not isinstance(options, dict):
        raise ValueError(f"model.options must be a mapping of the options of model.name={name} to values")
    for key, value in options.items():
        if not isinstance(value, bool | int | float | str | None):
            raise ValueError(
                f"model.options.{key}={value} is not a scalar, and model.name={name} takes no other options; "
                f"begin with a model file without options: model=resnext50_32x4d model.name={name}"
            )
    return dict(options)
