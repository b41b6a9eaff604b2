"""The network of a new run that starts from the weights of a checkpoint. Imports no torch."""

import json
import re
from dataclasses import replace
from pathlib import Path

from resnext.config.schema import Config, ModelConfig, to_dict
from resnext.runtime.checkpoint_metadata import peek_metadata


def with_network_of_weights(config: Config, command: list[str]) -> Config:
    """`config` with the network of the checkpoint in model.weights, unless `command` itself chooses a network.

    The metadata of our checkpoints has their network. This network replaces the network of the experiment's file.
    """
    weights = config.model.weights
    keys = {re.split("[@=]", each.lstrip("+"))[0] for each in command if "=" in each} - {"model.weights"}
    if weights is None or any(key == "model" or key.startswith("model.") for key in keys):
        return config
    metadata = peek_metadata(Path(weights))
    if metadata is None or metadata.model == replace(config.model, weights=None):
        return config
    print(f"network   {_describe(metadata.model)}, as in model.weights={weights}, instead of {_describe(config.model)}")
    return replace(config, model=replace(metadata.model, weights=weights))


def _describe(model: ModelConfig) -> str:
    """`resnext (layers=[1,1] cardinality=2)`."""
    given = {key: value for key, value in to_dict(model).items() if value and key not in ("name", "weights")}
    structure = " ".join(f"{key}={json.dumps(value, separators=(',', ':'))}" for key, value in given.items())
    return f"{model.name} ({structure})" if structure else model.name
