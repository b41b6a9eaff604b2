"""DataLoaders with a watchdog for their workers. The training's DataLoader can also be saved and resumed."""

import signal
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from resnext.data.corrupt_images import CorruptImageBudget
from resnext.data.dataset import TrainBatch, TrainImages
from resnext.data.image_check import ImageCheck
from resnext.data.sampler import RankBatches
from resnext.data.worker_watchdog import WorkerWatchdog, die_with_rank
from resnext.runtime.signals import SIGNALS

MAX_EVAL_BATCH = 128


class ImageLoader(DataLoader[Any]):
    """A DataLoader that raises LoaderFailed if a worker dies or a batch takes more than `worker_timeout` s."""

    def __init__(self, images: Dataset[Any], *, worker_timeout: float, **loading: Any) -> None:
        super().__init__(images, collate_fn=_unchanged, **loading)
        self._watchdog = WorkerWatchdog(worker_timeout) if self.num_workers else None

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self._watchdog is None:
            yield from super().__iter__()
            return
        with self._watchdog.watching():
            with self._watchdog.waiting():
                batches = super().__iter__()
            self._watchdog.watch_children()
            while True:
                with self._watchdog.waiting():
                    batch = next(batches, None)
                if batch is None:
                    return
                if isinstance(batch, Exception):
                    raise batch
                yield batch


class TrainLoader(ImageLoader):
    """A DataLoader over RankBatches. Lightning saves and restores its position.

    The position counts the batches that the trainer has received, not those that workers have prefetched. It is
    reset at the beginning of an iteration, not at its end: a checkpoint is also written after an epoch's last batch.
    """

    def __init__(
        self,
        images: TrainImages,
        batches: RankBatches,
        skips: CorruptImageBudget,
        check: ImageCheck | None,
        **loading: Any,
    ) -> None:
        super().__init__(images, batch_sampler=batches, **loading)
        self.batches, self.skips, self.check = batches, skips, check
        self.received = 0
        self.seconds_waited = 0.0  # for batches, since this start
        self._resume_at = 0

    def __iter__(self) -> Iterator[TrainBatch]:
        """This is a generator, so that it requests the first batch only after Lightning has set the epoch."""
        self.batches.start = self.received = self._resume_at
        self._resume_at = 0
        batches = super().__iter__()
        while True:
            began = time.perf_counter()
            found = next(batches, None)
            self.seconds_waited += time.perf_counter() - began
            if found is None:
                return
            batch, skipped = found
            self.skips.count(skipped)
            if self.check is not None:
                self.check.start()
                self.check.report()
            self.received += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"step": self.received // self.batches.accumulation}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._resume_at = state["step"] * self.batches.accumulation


def prepare_worker(_worker: int) -> None:
    """DataLoader's worker_init_fn."""
    torch.set_num_threads(1)
    # A forked worker inherits the rank's wake-up descriptor. With it, a signal to the worker would also reach the rank.
    signal.set_wakeup_fd(-1)
    for signum in SIGNALS:  # Ctrl-C signals the workers too, but the rank needs batches until it has saved
        signal.signal(signum, signal.SIG_IGN)
    die_with_rank()


def prepare_reader(worker: int) -> None:
    """Like `prepare_worker`, for a process without a state to save: SIGTERM ends the worker."""
    prepare_worker(worker)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _unchanged(batch: Any) -> Any:
    """Replaces DataLoader's collate_fn: the dataset returns whole batches."""
    return batch
