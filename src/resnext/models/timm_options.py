"""`model.options` of timm's networks: scalars that the network's constructor takes."""

import inspect
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import timm
import torch

from resnext.config.errors import as_typed, nearest
from resnext.errors import UserError

Scalar = bool | int | float | str
KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "text"}
SET_ELSEWHERE = {
    "num_classes": "the number of classes is data.num_classes, or counted",
    "in_chans": "images have three channels",
    "drop_path_rate": "give recipe.drop_path_rate",
    "pretrained": "give model.weights=timm:NAME",
}


def check_timm_options(name: str, options: dict[str, Any]) -> None:
    """Raises UserError for an option that the constructor of timm's network `name` does not take as a scalar."""
    part = f"model.name=timm/{name}"
    with torch.device("meta"):  # only the class is needed: no memory, no random numbers, 3 to 9 % of a build's time
        network = timm.create_model(name)
    parameters = _parameters(type(network))
    takes = [key for key, parameter in parameters.items() if _scalar_types(parameter) and key not in SET_ELSEWHERE]
    for key, value in options.items():
        if key in SET_ELSEWHERE:
            raise UserError(f"model.options.{key} cannot be given: {SET_ELSEWHERE[key]}")
        if key not in parameters:
            hint = nearest(key, takes) or f"; it takes {', '.join(takes)}"
            raise UserError(f"model.options.{key} is not an option of {part}{hint}")
        _check_type(f"model.options.{key}={as_typed(value)}", value, parameters[key])


def _check_type(given: str, value: Scalar | None, parameter: inspect.Parameter) -> None:
    """Raises UserError if `value` does not have the parameter's type; if no type is known, the constructor decides."""
    types, default = _scalar_types(parameter), parameter.default
    if not types or type(value) in types or (value is None and NoneType in (type(default), *_union(parameter))):
        return
    shown = types - {int} if float in types else types
    kinds = " or ".join(text for kind, text in KINDS.items() if kind in shown)
    like = f", like its default {as_typed(default)}" if isinstance(default, Scalar) else ""
    raise UserError(f"{given} is not allowed: it should be {kinds}{like}")


def _scalar_types(parameter: inspect.Parameter) -> set[type]:
    """By the annotation: timm writes `mlp_ratio: float = 4`. Without one, by the default."""
    annotated = parameter.annotation is not parameter.empty
    types = {*_union(parameter)} if annotated else {type(parameter.default)}
    if float in types or (int in types and not annotated):
        types |= {int, float}
    return types & KINDS.keys()


def _union(parameter: inspect.Parameter) -> tuple[Any, ...]:
    """The members of the annotation's union; the types of the values of a Literal."""
    annotation = parameter.annotation
    if get_origin(annotation) is Literal:
        return tuple(map(type, get_args(annotation)))
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _parameters(network: type) -> dict[str, inspect.Parameter]:
    """The constructor's parameters by name; also of the base classes if the constructor passes **kwargs on."""
    found: dict[str, inspect.Parameter] = {}
    for each in network.__mro__:
        if "__init__" not in vars(each):
            continue
        parameters = inspect.signature(each.__init__).parameters.values()
        found = {
            one.name: one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        } | found
        if all(one.kind is not one.VAR_KEYWORD for one in parameters):
            break
    return found
