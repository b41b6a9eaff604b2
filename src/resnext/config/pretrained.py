"""The weights of a new run: checks their files, and takes the network of a checkpoint. Imports no torch."""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from resnext.config.checkpoint_metadata import peek_metadata
from resnext.config.parts import select
from resnext.config.schema import Config, ModelConfig, to_dict
from resnext.config.weights_file import find_weights_file
from resnext.errors import UserError

ZIP_START = b"PK\x03\x04"


def check_weights(config: Config) -> None:
    """Raises UserError for weights of the network or of the teacher that cannot be read; reads only their ends."""
    teacher = config.recipe.teacher
    for key, weights in (
        ("model.weights", config.model.weights),
        ("recipe.teacher.weights", teacher.weights if teacher.name else None),
    ):
        if weights is not None and not weights.startswith(("torchvision:", "timm:")):
            _check_file(f"{key}={weights}", find_weights_file(f"{key}={weights}", Path(weights)))


def without_weights(config: Config) -> Config:
    """The configuration to check a resume with: its checkpoint has the weights, and their file may be gone."""
    return replace(config, model=replace(config.model, weights=None))


def use_network_of_weights(tree: DictConfig, overrides: Sequence[Override]) -> None:
    """Puts the network of the checkpoint in model.weights into `tree`, unless `overrides` choose a network.

    The metadata of our checkpoints has their network. This network replaces the network of the experiment's file.
    """
    weights = select(tree, "model.weights")
    chosen = {each.key_or_group for each in overrides} - {"model.weights", "model.freeze"}
    if not isinstance(weights, str) or any(key == "model" or key.startswith("model.") for key in chosen):
        return
    if (metadata := peek_metadata(Path(weights).expanduser())) is not None:
        kept = {"weights": weights, "freeze": select(tree, "model.freeze") or []}
        OmegaConf.update(tree, "model", to_dict(metadata.model) | kept, merge=False, force_add=True)


def describe_network_of_weights(config: Config) -> str | None:
    """A line if the network of `config` is that of the checkpoint in model.weights."""
    weights = config.model.weights
    metadata = peek_metadata(Path(weights)) if weights is not None else None
    if metadata is None or metadata.model != config.model.network:
        return None
    return f"network   {_describe(metadata.model)}: from model.weights"


def normalization_warning(config: Config) -> str | None:
    """A warning if data.mean or data.std differs from the metadata of model.weights."""
    weights, data = config.model.weights, config.data
    metadata = peek_metadata(Path(weights)) if weights is not None else None
    if metadata is None or (metadata.mean, metadata.std) == (data.mean, data.std):
        return None
    mean, std = (",".join(f"{value:g}" for value in values) for values in (metadata.mean, metadata.std))
    return f"model.weights was trained with another normalisation: to use it, set data.mean=[{mean}] data.std=[{std}]"


def _describe(model: ModelConfig) -> str:
    """`resnext (layers=[1,1] cardinality=2)`."""
    options = {key: value for key, value in (to_dict(model)["options"] or {}).items() if value}
    structure = " ".join(f"{key}={json.dumps(value, separators=(',', ':'))}" for key, value in options.items())
    return f"{model.name} ({structure})" if structure else model.name


def _check_file(asked: str, path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(len(ZIP_START))
            if start == ZIP_START:  # torch.save writes a zip archive
                zipfile.ZipFile(file).close()
    except zipfile.BadZipFile as error:
        if isinstance(error.__context__, OSError):  # zipfile replaces it by its own error
            raise UserError(f"{asked} cannot be read: {error.__context__.strerror}") from error
        raise UserError(f"{asked} is incomplete: copy or download the file again") from error
    except OSError as error:
        raise UserError(f"{asked} cannot be read: {error.strerror}") from error
    if not start:
        raise UserError(f"{asked} is empty: copy or download the file again")
