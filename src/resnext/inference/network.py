"""The trained network of a run, a checkpoint or an exported file, with its class names and its preprocessing."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from resnext.config.checkpoint_metadata import METADATA, CheckpointMetadata, parse_metadata
from resnext.data.index import printable
from resnext.errors import UserError
from resnext.files import check_regular
from resnext.models.factory import build_model, load_into
from resnext.models.weights import EMA_KEY, NETWORK_PREFIX, network_weights
from resnext.run.directory import Run
from resnext.run.identity import check_mark
from resnext.run.run_files import find_checkpoint
from resnext.runtime.checkpoint import load_checkpoint

Weights = Literal["ema", "raw"]
Choice = Literal["ema", "raw", "both"]


class TrainedNetwork(NamedTuple):
    """`network` is in evaluation mode, on the CPU; `metadata` describes its input images and its logits.

    `is_ema`: whether these are EMA weights. `step`: after how many optimizer steps; None if the file does not say.
    """

    network: nn.Module
    metadata: CheckpointMetadata
    is_ema: bool = False
    step: int | None = None


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
    content = read_weights(path)
    check_mark(path, content, run.mark, required=False)
    # an earlier release wrote no metadata
    known = METADATA in content
    metadata = parse_metadata(path, content) if known else CheckpointMetadata.of(run.config, run.data_identity.classes)
    return _trained(build_networks(path, content, metadata, weights), metadata, content)


def load_network(path: Path, weights: Weights = "ema") -> TrainedNetwork:
    """The network in the file at `path`: a checkpoint of a run, or an export as safetensors or torch.

    Takes the EMA weights of a checkpoint that has them; with `raw`, the trained weights.

    Raises:
        UserError: if the file is damaged, is another kind of file, or has no metadata.
    """
    content = read_weights(path)
    metadata = parse_metadata(path, content)
    return _trained(build_networks(path, content, metadata, weights), metadata, content)


def read_weights(path: Path) -> dict[str, Any]:
    """The content of a checkpoint or an export, with `state_dict` and all that is beside it. Every byte is checked.

    Raises:
        UserError: if the file is damaged or of another kind.
    """
    check_regular(path)
    with open(path, "rb") as file:
        is_zip = file.read(2) == b"PK"  # not zipfile.is_zipfile, which reads the end: it may be cut off
    content = load_checkpoint(path) if is_zip or path.suffix == ".ckpt" else _read_safetensors(path)
    if not isinstance(content, dict) or not _is_state_dict(content.get("state_dict")):
        raise UserError(f"{path} is not a checkpoint: it has no state_dict of tensors")
    return content


def build_networks(
    path: Path, content: dict[str, Any], metadata: CheckpointMetadata, choice: Choice
) -> dict[str, nn.Module]:
    """The networks with the weights in `content` of the file at `path`: `ema`, `raw`, or both, in this order.

    Without EMA weights, only `raw`. Raises UserError if the weights do not fit.
    """
    states = {"ema": content.get(EMA_KEY), "raw": content["state_dict"]}
    chosen = [name for name in states if choice in (name, "both") and states[name]] or ["raw"]
    networks = {}
    for name in chosen:
        networks[name] = build_model(metadata.model, len(metadata.classes)).eval()
        own_path = replace(metadata.model, weights=printable(os.fsencode(path)))  # for messages
        load_into(networks[name], _own_names(states[name]), own_path, new_head=False)
    return networks


def _trained(networks: dict[str, nn.Module], metadata: CheckpointMetadata, content: dict[str, Any]) -> TrainedNetwork:
    (name, network), *_ = networks.items()
    return TrainedNetwork(network, metadata, name == "ema", find_step(content))


def find_step(content: dict[str, Any]) -> int | None:
    """The optimizer steps done; None in an export."""
    step = content.get("global_step")
    return step if isinstance(step, int) else None


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
