"""The network of a run that starts from the weights of a checkpoint. Imports no torch."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from resnext.config.checkpoint_metadata import peek_metadata
from resnext.config.parts import select
from resnext.config.schema import Config, ModelConfig, to_dict


def use_network_of_weights(tree: DictConfig, overrides: Sequence[Override]) -> None:
    """Puts the network of the checkpoint in model.weights into `tree`, unless `overrides` choose a network.

    The metadata of our checkpoints has their network. This network replaces the network of the experiment's file.
    """
    weights = select(tree, "model.weights")
    chosen = {each.key_or_group for each in overrides} - {"model.weights"}
    if not isinstance(weights, str) or any(key == "model" or key.startswith("model.") for key in chosen):
        return
    if (metadata := peek_metadata(Path(weights).expanduser())) is not None:
        OmegaConf.update(tree, "model", to_dict(metadata.model) | {"weights": weights}, merge=False, force_add=True)


def describe_network_of_weights(config: Config) -> str | None:
    """A line if the network of `config` is that of the checkpoint in model.weights."""
    weights = config.model.weights
    metadata = peek_metadata(Path(weights)) if weights is not None else None
    if metadata is None or metadata.model != replace(config.model, weights=None):
        return None
    return f"network   {_describe(metadata.model)}, as in model.weights={weights}"


def _describe(model: ModelConfig) -> str:
    """`resnext (layers=[1,1] cardinality=2)`."""
    options = {key: value for key, value in (to_dict(model)["options"] or {}).items() if value}
    structure = " ".join(f"{key}={json.dumps(value, separators=(',', ':'))}" for key, value in options.items())
    return f"{model.name} ({structure})" if structure else model.name
