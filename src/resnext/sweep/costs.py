"""What the networks of a sweep cost: parameters, multiply-accumulates, and the measured time of a training step."""

import statistics
import time
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from resnext.config.pretrained import without_weights
from resnext.config.schema import Config
from resnext.models.complexity import count_macs
from resnext.models.factory import build_model

ROUNDS = 15  # of all networks in turn, so that other work on the machine slows them alike
WARMUP = 3
SECONDS = 120.0  # after this time, no further round
BATCH = 16


class Cost(NamedTuple):
    """`step_ms`: forward and backward of `BATCH` images in float32, the median; None if it was not measured."""

    parameters: int
    macs: int | None
    step_ms: float | None = None


def count_costs(configs: Mapping[str, Config], num_classes: int) -> dict[str, Cost]:
    """The costs without times. The networks are built, but compute nothing."""
    return {name: _count(_build(config, num_classes), _image_size(config)) for name, config in configs.items()}


def measure_costs(configs: Mapping[str, Config], num_classes: int) -> dict[str, Cost]:
    """The costs of each network at the image size of its recipe, with times on this machine's GPU or CPU."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    steps = {name: _Step(config, num_classes, device) for name, config in configs.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    began = time.monotonic()
    for number in range(WARMUP + ROUNDS):
        if number > WARMUP and time.monotonic() - began > SECONDS:
            break
        for name, step in steps.items():
            seconds = step.run()
            if number >= WARMUP:
                times[name].append(seconds)
    medians = {name: 1000 * statistics.median(each) for name, each in times.items()}
    return {name: step.cost._replace(step_ms=medians[name]) for name, step in steps.items()}


def _build(config: Config, num_classes: int) -> nn.Module:
    return build_model(without_weights(config).model, num_classes)


def _image_size(config: Config) -> int:
    return max(config.recipe.train_image_sizes())


def _count(network: nn.Module, image_size: int) -> Cost:
    return Cost(sum(parameter.numel() for parameter in network.parameters()), count_macs(network, image_size))


class _Step:
    def __init__(self, config: Config, num_classes: int, device: torch.device) -> None:
        network, size = _build(config, num_classes), _image_size(config)
        self.cost = _count(network, size)
        self.network = network.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        images = torch.randn(BATCH, 3, size, size, device=device)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.targets = torch.zeros(BATCH, dtype=torch.long, device=device)

    def run(self) -> float:
        """The seconds of one step."""
        began = time.perf_counter()
        nn.functional.cross_entropy(self.network(self.images), self.targets).backward()
        if self.images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - began
