"""The trained network of a run, a checkpoint or an exported file, with its class names and its preprocessing."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from resnext.config.checkpoint_metadata import METADATA, CheckpointMetadata, parse_metadata
from resnext.errors import UserError
from resnext.files import check_regular
from resnext.models.factory import build_model, load_into
from resnext.models.weights import EMA_KEY, NETWORK_PREFIX, network_weights
from resnext.run.directory import Run
from resnext.run.identity import check_mark
from resnext.run.run_files import find_checkpoint
from resnext.runtime.checkpoint import load_checkpoint

Weights = Literal["ema", "raw"]


class TrainedNetwork(NamedTuple):
    """`network` is in evaluation mode, on the CPU; `metadata` describes its input images and its logits.

    `is_average` tells that its weights are the average (EMA) of a training.
    """

    network: nn.Module
    metadata: CheckpointMetadata
    is_average: bool = False


def open_network(path: Path, weights: Weights = "ema") -> TrainedNetwork:
    """The network of the run directory `path`, from its best.ckpt, or of a file (see `load_network`).

    Raises:
        UserError: if `path` is neither, or for the reasons of `load_network`.
    """
    if path.is_file():
        return load_network(path, weights)
    run = Run.open(path)
    return load_own_network(run, find_checkpoint(run.path, "best"), weights)


def load_own_network(run: Run, path: Path, weights: Weights = "ema") -> TrainedNetwork:
    """Like `load_network`, for a checkpoint that `run` wrote; also raises UserError if another run wrote it."""
    content = load_checkpoint(path)
    check_mark(path, content, run.mark, required=False)
    if METADATA not in content:  # an earlier release wrote it
        content[METADATA] = CheckpointMetadata.of(run.config, run.data_identity.classes).to_plain()
    return _build(path, content, weights)


def load_network(path: Path, weights: Weights = "ema") -> TrainedNetwork:
    """The network in the file at `path`: a checkpoint of a run, or an export as safetensors or torch.

    If a checkpoint has averaged weights (EMA), takes them; `raw` takes those that were trained.

    Raises:
        UserError: if the file is damaged, is another kind of file, or has no metadata.
    """
    check_regular(path)
    if zipfile.is_zipfile(path):
        return _build(path, load_checkpoint(path), weights)
    return _build(path, _read_safetensors(path), weights)


def _build(path: Path, content: dict[str, Any], weights: Weights) -> TrainedNetwork:
    if not isinstance(content, dict) or not _is_state_dict(content.get("state_dict")):
        raise UserError(f"{path} is not a checkpoint: it has no state_dict of tensors")
    metadata = parse_metadata(path, content)
    average = content.get(EMA_KEY) if weights == "ema" else None
    network = build_model(metadata.model, len(metadata.classes))
    state = _own_names(average or content["state_dict"])
    load_into(network, state, replace(metadata.model, weights=str(path)), new_head=False)
    return TrainedNetwork(network.eval(), metadata, is_average=bool(average))


def _is_state_dict(found: Any) -> bool:
    return isinstance(found, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
    )


def _own_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a checkpoint, where a prefix marks the network, or of an export, without a prefix."""
    return network_weights(state) if any(name.startswith(NETWORK_PREFIX) for name in state) else state


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            content: dict[str, Any] = {"state_dict": {name: file.get_tensor(name) for name in file.keys()}}  # noqa: SIM118
        return content | ({METADATA: json.loads(header[METADATA])} if METADATA in header else {})
    except (SafetensorError, ValueError):  # ValueError: the metadata is not JSON
        raise UserError(
            f"{path} is neither a run, a checkpoint nor a safetensors file: give runs/NAME, or a best.ckpt"
        ) from None
