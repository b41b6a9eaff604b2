"""Describes a network in one line: its structure, parameters, and multiply-accumulates (MACs) of one image."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from resnext.models.resnext import Bottleneck, ResNeXt


def describe_network(network: nn.Module, image_size: int) -> str:
    """`blocks 3-4-6-3, 32×4d, 25.03 M parameters, 4.23 GMACs at 224 px`."""
    macs = count_macs(network, image_size)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    cost = [f"{_short(macs)}MACs at {image_size} px"] if macs is not None else []
    return ", ".join([_structure(network), f"{_short(parameters)} parameters", *cost])


def count_macs(network: nn.Module, image_size: int) -> int | None:
    """The MACs of one image, by torch's counter; None for a network that cannot run without data.

    Runs on the meta device: it computes nothing, draws no random number, and changes neither weights nor statistics.
    """
    inner = _Uncompiled(network)
    state = {name: tensor.to("meta") for name, tensor in inner.state_dict(keep_vars=True).items()}
    images = torch.empty(2, 3, image_size, image_size, device="meta")  # batch norm may need two values per channel
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            functional_call(inner, state, (images,))
    except Exception:  # an unknown network may read values; the training does not need the count
        return None
    return counter.get_total_flops() // 2 // len(images)


def count_activations(network: nn.Module, image_size: int) -> int:
    """The output values of all convolutions and linear layers for one image: fvcore's count, which timm publishes.

    `network` is on the meta device.
    """
    counts: list[int] = []
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, output: counts.append(output.numel())) for layer in layers
    ]
    with torch.no_grad():
        network(torch.empty(1, 3, image_size, image_size, device="meta"))
    for hook in hooks:
        hook.remove()
    return sum(counts)


class _Uncompiled(nn.Module):
    """Calls the original `forward` of a network that was compiled in place."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.forward(images)


def _structure(network: nn.Module) -> str:
    """Blocks of each stage, and cardinality × group width of the first stage, in the paper's notation."""
    if not isinstance(network, ResNeXt):
        return type(network).__name__
    stages = [list(network.get_submodule(name).children()) for name in network.stages]
    first = stages[0][0]
    assert isinstance(first, Bottleneck)
    groups = first.conv2.groups
    return f"blocks {'-'.join(str(len(stage)) for stage in stages)}, {groups}×{first.conv2.in_channels // groups}d"


def _short(count: int) -> str:
    """`25.03 M`."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return str(count)
