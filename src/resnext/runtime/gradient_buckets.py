"""Gradient buckets with one layout from the first step of every start, so that a resumed run sums in the same order."""

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel


class FixedBucketsDDP(DDPStrategy):
    """DDP that calls `fix_buckets` before the training."""

    def setup(self, trainer: Trainer) -> None:
        super().setup(trainer)
        if isinstance(self.model, DistributedDataParallel):  # not in an evaluation
            fix_buckets(self.model)


def fix_buckets(model: DistributedDataParallel) -> None:
    """Gives `model` its final buckets: its parameters in reverse order, 1 MiB first, then 25 MiB each.

    DDP builds its buckets twice: once when it is made, and again after its first backward, in the order in which the
    gradients became ready. The first step of a start would sum in the first layout and the other steps in the second.
    With three or more ranks, a sum depends on its order, and so on the layout.

    This function runs a backward before the first step. It does not run the network, but only sums each parameter. So
    it works in the same way with torch.compile, mixed precision and accumulation, draws no random numbers and changes
    no buffer. Autograd processes the last computed values first, so the gradients are ready in the reverse order of the
    parameters, and this order depends only on the network. This costs one all-reduce per start, and nothing per step
    (docs/performance.md).
    """
    module = model.module
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.forward = lambda: torch.stack([parameter.sum() for parameter in parameters]).sum()
    try:
        model().backward()  # through the wrapper, which expects a forward before each backward
    finally:
        del module.forward
    for parameter in parameters:
        parameter.grad = None
