"""Weights by name, as a flat dict of tensors: a file, `torchvision:NAME` or `timm:NAME`. Runs no code from a file."""

import logging
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor

from resnext.config_errors import nearest
from resnext.errors import UserError

log = logging.getLogger(__name__)

NETWORK_PREFIX = "network."  # where ClassificationTask holds the network in our checkpoints
EMA_KEY = "state_dict_ema"  # their average in our checkpoints, and in timm's


def load_weights(name: str) -> dict[str, Tensor]:
    """The weights that `name` names, on the CPU.

    `torchvision:resnext50_32x4d` is its default weights, `torchvision:ResNeXt50_32X4D_Weights.IMAGENET1K_V1` a
    certain one; `timm:resnext50_32x4d.a1_in1k` is a timm network with its tag.

    Raises:
        UserError: if they are unknown, cannot be reached, or cannot be read.
    """
    hub, _, hub_name = name.partition(":")
    if hub == "torchvision":
        return _fetch(name, lambda: _torchvision_weights(name, hub_name).get_state_dict(progress=True, check_hash=True))
    if hub == "timm":
        if not timm.is_model(hub_name):
            known = [f"timm:{each}" for each in timm.list_pretrained()]
            raise UserError(f"model.weights={name} is not a network of timm {timm.__version__}{nearest(name, known)}")
        return _fetch(name, lambda: timm.create_model(hub_name, pretrained=True).state_dict())
    return _read_file(name)


def _torchvision_weights(name: str, hub_name: str) -> Any:
    try:
        if "." in hub_name:
            return torchvision.models.get_weight(hub_name)
        return torchvision.models.get_model_weights(hub_name).DEFAULT  # pyright: ignore[reportAttributeAccessIssue]
    except (ValueError, KeyError):
        known = [f"torchvision:{each}" for each in torchvision.models.list_models(module=torchvision.models)]
        raise UserError(f"model.weights={name} is unknown to torchvision{nearest(name, known)}") from None


def _fetch(name: str, get: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """From the hub's cache, or over the network: that may take a minute to fail."""
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # it announces every retry
    log.info("weights   %s", name)
    try:
        return get()
    except UserError:
        raise
    except Exception as error:  # whatever a hub's client raises
        reason = str(error).strip().splitlines() or [""]
        raise UserError(
            f"model.weights={name} could not be had ({type(error).__name__}: {reason[0][:120]}); "
            "check the network, or download them elsewhere and give the file as model.weights=PATH"
        ) from error


def _read_file(name: str) -> dict[str, Tensor]:
    path = Path(name)
    if not path.is_file():
        raise UserError(f"model.weights={name} is no file, and neither torchvision:NAME nor timm:NAME")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on how to read what it refuses
            content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(f"model.weights={name} holds more than tensors and is not read: it could run code") from None
    except Exception as error:  # truncated, empty, or no checkpoint at all: torch raises many types
        raise UserError(f"model.weights={name} cannot be read as weights ({type(error).__name__})") from error
    return _network_weights(name, content)


def network_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's part of a task's state, by its own names."""
    own = {key: value for key, value in state.items() if str(key).startswith(NETWORK_PREFIX)}
    return {key.removeprefix(NETWORK_PREFIX): value for key, value in own.items()}


def _network_weights(name: str, content: Any) -> dict[str, Tensor]:
    """The network's own tensors: out of a checkpoint of ours, of timm or torchvision, or as they are.

    Where one of ours or timm's holds an average of the weights, that is taken: it was validated as the best.
    """
    if isinstance(content, dict):
        if isinstance(content.get(EMA_KEY), dict):
            log.info("weights   the average (EMA) in %s", name)
        for key in (EMA_KEY, "state_dict", "model"):
            content = content.get(key, content) if isinstance(content.get(key), dict) else content
        if any(str(key).startswith(NETWORK_PREFIX) for key in content):
            content = network_weights(content)
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return content
    raise UserError(f"model.weights={name} holds no weights: expected a dict of tensors, or one under state_dict")
