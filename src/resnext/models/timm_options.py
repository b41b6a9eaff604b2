"""`model.options` of timm's networks: scalars that the network's constructor takes."""

import inspect
from typing import Any

import timm
import torch

from resnext.config.errors import as_typed, nearest
from resnext.errors import UserError

Scalar = bool | int | float | str
SET_ELSEWHERE = {
    "num_classes": "the number of classes is data.num_classes, or counted",
    "in_chans": "images have three channels",
    "drop_path_rate": "give recipe.drop_path_rate",
    "pretrained": "give model.weights=timm:NAME",
}


def check_timm_options(name: str, options: dict[str, Any]) -> None:
    """Raises UserError for an option that the constructor of timm's network `name` does not take as a scalar."""
    part = f"model.name=timm/{name}"
    with torch.device("meta"):  # uses no memory and no random numbers: only the class is needed
        network = timm.create_model(name)
    parameters = _parameters(type(network))
    takes = [key for key, default in parameters.items() if isinstance(default, Scalar) and key not in SET_ELSEWHERE]
    for key, value in options.items():
        if key in SET_ELSEWHERE:
            raise UserError(f"model.options.{key} cannot be given: {SET_ELSEWHERE[key]}")
        if key not in parameters:
            hint = nearest(key, takes) or f"; it takes {', '.join(takes)}"
            raise UserError(f"model.options.{key} is not an option of {part}{hint}")
        _check_type(f"model.options.{key}={as_typed(value)}", value, parameters[key])


def _check_type(given: str, value: Scalar | None, default: Any) -> None:
    """Raises UserError if `value` does not have the type of `default`; with the default None, any scalar is valid."""
    kind = type(default)
    if kind is float and type(value) is int:
        return
    if kind in (bool, int, float, str) and type(value) is not kind:
        names = {bool: "true or false", int: "an integer", float: "a number", str: "text"}
        raise UserError(f"{given} is not allowed: it should be {names[kind]}, like its default {as_typed(default)}")


def _parameters(network: type) -> dict[str, Any]:
    """Name → default of each constructor parameter; also of the base classes if the constructor passes **kwargs on."""
    found: dict[str, Any] = {}
    for each in network.__mro__:
        if "__init__" not in vars(each):
            continue
        parameters = inspect.signature(each.__init__).parameters.values()
        found = {
            one.name: one.default for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        } | found
        if all(one.kind is not one.VAR_KEYWORD for one in parameters):
            break
    return found
