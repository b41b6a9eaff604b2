"""Losses and gradients that are not finite: found without waiting for the device at every step, or stepped over."""

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
MAX_SKIPPED = 100  # steps in a row: nothing is being learned any more

log = logging.getLogger(__name__)


class NonFiniteLoss(RunFailed):
    """The training has broken numerically; raised on every rank."""


class FiniteGuard:
    """Keeps the losses on the device, and looks at them where it is waited for anyway: when one is logged or saved.

    With `skip`, it looks at each step before it is taken, and one that is not finite changes nothing, not even the
    batch statistics. All ranks find the same.
    """

    def __init__(self, network: nn.Module, *, skip: bool) -> None:
        self.network, self.skip = network, skip
        self._unseen: list[tuple[int, Tensor]] = []
        self._buffers: list[tuple[Tensor, Tensor]] = []  # and what they were before this step
        self._skipped = 0

    def begin_step(self) -> None:
        if self.skip:
            self._buffers = [(buffer, buffer.clone()) for buffer in self.network.buffers()]

    def add(self, step: int, loss: Tensor) -> None:
        """Takes the loss of a micro-step of `step`, counted from 1."""
        self._unseen.append((step, loss.detach()))

    def check(self, step: int) -> None:
        """Raises NonFiniteLoss if a loss up to `step` or a weight now is not finite. A collective."""
        first = self._first_nonfinite()
        if first == NO_STEP and not _are_finite([p.detach() for p in self.network.parameters()]):
            first = step
        first = self._smallest(first)
        if first != NO_STEP:
            raise NonFiniteLoss(
                f"the loss of step {first} is not finite, and nothing after it is saved; lower recipe.optimizer.lr, "
                "take trainer.precision=32-true, or resume with trainer.on_nonfinite=skip"
            )

    def take_step(self, step: int, optimizer: Any, closure: Callable[[], Any], *, scaled: bool) -> None:
        """Takes or skips `step`. `scaled` gradients are the scaler's: it looks at them, skips, and scales less."""
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
        """Of all ranks, over the training's own group: the losses have just been waited for on the device."""
        return min_over_ranks(value, next(self.network.parameters()).device)


def _gradients(optimizer: Any) -> list[Tensor]:
    return [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def _are_finite(tensors: list[Tensor]) -> bool:
    """By their largest magnitudes, which are not finite if any value is not: a quarter of the time of `isfinite`."""
    return not tensors or bool(torch.stack(torch._foreach_norm(tensors, math.inf)).isfinite().all())
