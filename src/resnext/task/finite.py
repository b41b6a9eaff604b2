"""Detects losses and weights that are not finite, without waiting for the device at every step; can skip such steps."""

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from resnext.errors import RunFailed
from resnext.runtime.collectives import min_over_ranks

NO_STEP = 2**53  # later than any step
MAX_SKIPPED = 100  # steps in a row; after that, the training ends

log = logging.getLogger(__name__)


class NonFiniteLoss(RunFailed):
    """A loss or a weight is not finite, or too many steps in a row were skipped. Raised on every rank."""


class FiniteGuard:
    """Keeps the losses on the device. Checks them when the program waits for the device anyway: for a log or a save.

    With `skip`, checks each step before it is taken. A step that is not finite changes nothing, not even the batch
    statistics. All ranks get the same result.
    """

    def __init__(self, network: nn.Module, *, skip: bool) -> None:
        self.network, self.skip = network, skip
        self._unseen: list[tuple[int, Tensor]] = []
        self._buffers: list[tuple[Tensor, Tensor]] = []  # with a copy from before this step
        self._skipped = 0

    def begin_step(self) -> None:
        if self.skip:
            self._buffers = [(buffer, buffer.clone()) for buffer in self.network.buffers()]

    def add(self, step: int, loss: Tensor) -> None:
        """Adds the loss of a micro-step of `step`, counted from 1."""
        self._unseen.append((step, loss.detach()))

    def check(self, step: int) -> None:
        """Raises NonFiniteLoss if a loss up to `step` or a current weight is not finite. A collective."""
        first = self._first_nonfinite()
        if first == NO_STEP and not _are_finite([p.detach() for p in self.network.parameters()]):
            first = step
        first = self._smallest(first)
        if first != NO_STEP:
            raise NonFiniteLoss(
                f"the loss of step {first} is not finite, and no later state is saved; lower recipe.optimizer.lr, "
                "set trainer.precision=32-true, or resume with trainer.on_nonfinite=skip"
            )

    def take_step(self, step: int, optimizer: Any, closure: Callable[[], Any], *, scaled: bool) -> None:
        """Takes or skips `step`. The scaler of `scaled` gradients checks them itself, skips and lowers the scale."""
        loss = closure()
        finite = self._first_nonfinite() == NO_STEP and (scaled or _are_finite(_gradients(optimizer)))
        if self._smallest(int(finite)) == 1:
            optimizer.step(closure=lambda: loss)
            self._skipped = 0
            return
        for buffer, before in self._buffers:
            buffer.copy_(before)
        self._skipped += 1
        if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
            log.warning("step %d is skipped: its loss is not finite (trainer.on_nonfinite=skip)", step)
        if self._skipped >= MAX_SKIPPED:
            raise NonFiniteLoss(f"{self._skipped} steps in a row were skipped, up to step {step}: nothing is learned")

    def _first_nonfinite(self) -> int:
        unseen, self._unseen = self._unseen, []
        if not unseen:
            return NO_STEP
        finite = torch.stack([loss for _, loss in unseen]).isfinite().tolist()
        return next((step for (step, _), good in zip(unseen, finite, strict=True) if not good), NO_STEP)

    def _smallest(self, value: int) -> int:
        """The minimum over all ranks. Uses the device: the losses have just been read from it, so there is no wait."""
        return min_over_ranks(value, next(self.network.parameters()).device)


def _gradients(optimizer: Any) -> list[Tensor]:
    return [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def _are_finite(tensors: list[Tensor]) -> bool:
    """Checks the largest magnitude of each tensor, which takes a quarter of the time of `isfinite` on all values."""
    return not tensors or bool(torch.stack(torch._foreach_norm(tensors, math.inf)).isfinite().all())
