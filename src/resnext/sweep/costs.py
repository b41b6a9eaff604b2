"""What the networks of a sweep cost: parameters, multiply-accumulates, and the measured time of a training step."""

import statistics
import time
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from resnext.config.schema import Config
from resnext.models.complexity import count_macs
from resnext.models.factory import build_model

ROUNDS = 15  # of all networks in turn, so that other work on the machine slows them alike
WARMUP = 3


class Cost(NamedTuple):
    """`step_ms`: forward and backward of one batch in float32, the median of `ROUNDS`."""

    parameters: int
    macs: int | None
    step_ms: float


def measure_costs(configs: Mapping[str, Config], num_classes: int) -> dict[str, Cost]:
    """The costs of each network, with the batch and the image size of its recipe, on this machine's GPU or CPU."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    steps = {name: _Step(config, num_classes, device) for name, config in configs.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(WARMUP + ROUNDS):
        for name, step in steps.items():
            seconds = step.run()
            if number >= WARMUP:
                times[name].append(seconds)
    return {
        name: Cost(step.parameters, step.macs, 1000 * statistics.median(times[name])) for name, step in steps.items()
    }


class _Step:
    def __init__(self, config: Config, num_classes: int, device: torch.device) -> None:
        network, size = build_model(config.model, num_classes), max(config.recipe.train_image_sizes())
        self.parameters = sum(parameter.numel() for parameter in network.parameters())
        self.macs = count_macs(network, size)
        self.network = network.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        images = torch.randn(config.recipe.batch_size, 3, size, size, device=device)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.targets = torch.zeros(config.recipe.batch_size, dtype=torch.long, device=device)

    def run(self) -> float:
        """The seconds of one step."""
        began = time.perf_counter()
        nn.functional.cross_entropy(self.network(self.images), self.targets).backward()
        if self.images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - began
