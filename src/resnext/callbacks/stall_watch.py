"""StallWatch: reports a training that hangs. It does not end the training."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

log = logging.getLogger(__name__)


class StallWatch(Callback):
    """Warns once per start, on rank 0, if no batch ends within `minutes`, and calls `report` with the message.

    A thread watches: the main thread may hang in a library.
    """

    def __init__(self, minutes: float, report: Callable[[str], None]) -> None:
        self.minutes, self.report = minutes, report
        self._last_batch = 0.0
        self._over = threading.Event()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_batch = time.monotonic()
        if trainer.is_global_zero:
            threading.Thread(target=self._watch, daemon=True).start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._last_batch = time.monotonic()

    def on_validation_batch_end(self, *_arguments: Any, **_named: Any) -> None:
        self._last_batch = time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._over.set()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(min(self.minutes * 6, 30)):  # a tenth of the time
            if time.monotonic() - self._last_batch > self.minutes * 60:
                message = f"no batch has ended within trainer.timeout_minutes={self.minutes:g}: the training hangs"
                log.warning("%s, or is very slow", message)
                self.report(message)
                return
