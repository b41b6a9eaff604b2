"""load_network(path): the network of a checkpoint, from the file alone, without its run directory."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import nn

from resnext.config.checkpoint_metadata import CheckpointMetadata, parse_metadata
from resnext.models.factory import build_model, load_into
from resnext.models.weights import EMA_KEY, network_weights
from resnext.runtime.checkpoint import load_checkpoint, parse_checkpoint


class TrainedNetwork(NamedTuple):
    """`network` is in evaluation mode; `metadata` describes its input images and its logits."""

    network: nn.Module
    metadata: CheckpointMetadata


def load_network(path: Path) -> TrainedNetwork:
    """The network in the checkpoint at `path`, on the CPU. Takes the averaged weights (EMA) if the checkpoint has them.

    Raises:
        UserError: if the file is damaged, or an earlier release wrote it without metadata.
    """
    content = load_checkpoint(path)
    parse_checkpoint(path, content)  # only for the errors that it raises
    metadata = parse_metadata(path, content)
    network = build_model(metadata.model, len(metadata.classes))
    weights = network_weights(content.get(EMA_KEY) or content["state_dict"])
    load_into(network, weights, replace(metadata.model, weights=str(path)), new_head=False)
    return TrainedNetwork(network.eval(), metadata)
