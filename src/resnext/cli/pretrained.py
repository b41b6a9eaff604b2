"""The weights of a new run: checks their files, and takes the network of a checkpoint. Imports no torch."""

import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

from resnext.config.schema import Config, ModelConfig, to_dict
from resnext.errors import UserError
from resnext.runtime.checkpoint_metadata import peek_metadata

ZIP_START = b"PK\x03\x04"


def check_weights(config: Config) -> None:
    """Raises UserError for weights of the network or of the teacher that cannot be read; reads only their ends."""
    teacher = config.recipe.teacher
    for key, weights in (
        ("model.weights", config.model.weights),
        ("recipe.teacher.weights", teacher.weights if teacher.name else None),
    ):
        if weights is not None and not weights.startswith(("torchvision:", "timm:")):
            _check_file(f"{key}={weights}", Path(weights))


def _check_file(asked: str, path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{asked} is not a file, and neither torchvision:NAME nor timm:NAME")
    try:
        with path.open("rb") as file:
            start = file.read(len(ZIP_START))
    except OSError as error:
        raise UserError(f"{asked} cannot be read: {error.strerror}") from error
    if not start or (start == ZIP_START and not zipfile.is_zipfile(path)):  # torch.save writes a zip archive
        raise UserError(f"{asked} is {'incomplete' if start else 'empty'}: copy or download the file again")


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
    print(f"network   {_describe(metadata.model)}: from model.weights, instead of {config.model.name}")
    return replace(config, model=replace(metadata.model, weights=weights))


def _describe(model: ModelConfig) -> str:
    """`resnext (layers=[1,1] cardinality=2)`."""
    given = {key: value for key, value in to_dict(model)["options"].items() if value}
    structure = " ".join(f"{key}={json.dumps(value, separators=(',', ':'))}" for key, value in given.items())
    return f"{model.name} ({structure})" if structure else model.name
