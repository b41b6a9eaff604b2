"""Builds a registered network or any of timm's by its name, and loads its weights."""

import inspect
import logging

import timm
from torch import Tensor, nn

from resnext.config.errors import as_typed, nearest
from resnext.config.model import TIMM_PREFIX, ModelConfig
from resnext.config.recipe import InitConfig
from resnext.errors import UserError, describe_error
from resnext.models import resnext  # noqa: F401 - registers our networks
from resnext.models.initialization import initialize
from resnext.models.timm_options import check_timm_options
from resnext.models.weights import load_weights
from resnext.registry import build_part, find_part

log = logging.getLogger(__name__)

DEFAULT_INIT = InitConfig()


def build_model(
    config: ModelConfig, num_classes: int, *, drop_path_rate: float = 0.0, init: InitConfig = DEFAULT_INIT
) -> nn.Module:
    """The network that `config` names, [N, 3, H, W] → [N, num_classes], with `config.weights` if given.

    `drop_path_rate` is the stochastic depth of the last block; it rises linearly from 0 at the first. `init`
    initialises the parameters that `config.weights` does not provide.

    Raises:
        UserError: if the name is unknown, `init` does not apply to the network, or the weights cannot be loaded or do
            not fit.
    """
    check_model_name(config.name)
    build = _build_timm if config.name.startswith(TIMM_PREFIX) else _build_registered
    network = build(config, num_classes, drop_path_rate)
    initialize(network, _head_names(network), init, config.name)
    if config.weights is not None:
        load_into(network, load_weights(config.weights), config)
    return network


def check_model_name(name: str, section: str = "model") -> None:
    """Raises UserError if `name` is timm/NAME and timm does not have NAME. The schema checks other names.

    `section` is the section of the configuration that holds the name.
    """
    if name.startswith(TIMM_PREFIX) and not timm.is_model(name.removeprefix(TIMM_PREFIX)):
        known = [TIMM_PREFIX + each for each in timm.list_models()]
        raise UserError(f"{section}.name={name} is not a network of timm {timm.__version__}{nearest(name, known)}")


def load_into(
    network: nn.Module,
    weights: dict[str, Tensor],
    config: ModelConfig,
    *,
    new_head: bool = True,
    section: str = "model",
) -> None:
    """Copies `weights` into `network`. All names and shapes must match, except for a head of another size.

    Such a head keeps its initial values, and a log line says so. Without `new_head`, the head must match too.
    `section` is the section of the configuration that holds `config`.

    Raises:
        UserError: if a weight is missing, unexpected, or of another shape.
    """
    own = network.state_dict()
    prefixes = tuple(f"{name}." for name in _head_names(network))
    head = [key for key in own if key.startswith(prefixes)]
    fresh_head = new_head and any(key not in weights or weights[key].shape != own[key].shape for key in head)
    if fresh_head:
        weights = {key: value for key, value in weights.items() if not key.startswith(prefixes)}
        weights |= {key: own[key] for key in head}
    differences = {
        "missing": [key for key in own if key not in weights],
        "unknown": [key for key in weights if key not in own],
        "of another shape": [key for key in own if key in weights and weights[key].shape != own[key].shape],
    }
    if any(differences.values()):
        listed = "; ".join(f"{len(keys)} {word} (such as {keys[0]})" for word, keys in differences.items() if keys)
        raise UserError(f"{section}.weights={config.weights} does not fit {section}.name={config.name}: {listed}")
    network.load_state_dict(weights)
    if fresh_head:
        log.info("head      new, for %d classes: the head in the weights has another size", len(own[head[0]]))


def _build_registered(config: ModelConfig, num_classes: int, drop_path_rate: float) -> nn.Module:
    part = find_part("network", config.name)
    assert part is not None
    assert part.build is not None
    arguments = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
    if arguments and "drop_path_rate" not in inspect.signature(part.build).parameters:
        raise UserError(f"model.name={config.name} takes no drop_path_rate: set recipe.drop_path_rate=0")
    network = build_part("network", config.name, config.options, num_classes, **arguments)
    if not isinstance(network, nn.Module):
        raise UserError(f"model.name={config.name}: {part.module} returns a {type(network).__name__}, not an nn.Module")
    return network


def _build_timm(config: ModelConfig, num_classes: int, drop_path_rate: float) -> nn.Module:
    name, arguments = config.name.removeprefix(TIMM_PREFIX), dict(config.options)
    if arguments:
        check_timm_options(name, arguments)
    if drop_path_rate:
        arguments["drop_path_rate"] = drop_path_rate
    try:
        return timm.create_model(name, num_classes=num_classes, **arguments)
    except Exception as error:  # timm passes them to the constructor, which may not take them
        if not arguments:
            raise
        if not config.options:
            raise UserError(f"model.name={config.name} takes no {' or '.join(arguments)}: {error}") from error
        given = ", ".join(f"{key}={as_typed(value)}" for key, value in arguments.items())
        raise UserError(f"model.name={config.name} cannot be built with {given}: {describe_error(error)}") from error


def _head_names(network: nn.Module) -> tuple[str, ...]:
    """The names of the classifiers, by timm's `pretrained_cfg`, else `fc`. A distilled network has several."""
    pretrained = getattr(network, "pretrained_cfg", None) or {}
    classifier = pretrained.get("classifier", "fc")
    return (classifier,) if isinstance(classifier, str) else tuple(classifier)
