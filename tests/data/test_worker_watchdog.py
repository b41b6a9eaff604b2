"""The reasons that the watchdog gives when a wait for a batch fails."""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from pathlib import Path

import pytest

from resnext.data.dataset import EvalImages
from resnext.data.decode import UnreadableImage
from resnext.data.loader import ImageLoader, prepare_worker
from resnext.data.scan import scan_splits
from resnext.data.worker_watchdog import LoaderFailed, WorkerWatchdog
from resnext.errors import RunFailed, UserError
from resnext.runtime.signals import SIGNALS


def test_a_connection_may_break_before_the_death_of_a_worker_is_known():
    watchdog = WorkerWatchdog(timeout=60.0)
    with watchdog.watching():
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        process.start()
        watchdog.watch_children()
        killer = threading.Timer(0.3, process.kill)
        killer.start()
        with pytest.raises(LoaderFailed, match="a DataLoader worker was killed by SIGKILL"), watchdog.waiting():
            raise ConnectionResetError(104, "Connection reset by peer")
        killer.join()
        process.join()


def test_a_broken_connection_of_living_workers_is_raised_unchanged(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("resnext.data.worker_watchdog.SECONDS_TO_DIE", 0.1)
    with pytest.raises(ConnectionResetError), WorkerWatchdog(timeout=60.0).waiting():
        raise ConnectionResetError(104, "Connection reset by peer")


@pytest.mark.parametrize(
    ("raised", "text"),
    [
        (UserError("data.root=/images is wrong\nand this says why"), "data.root=/images is wrong and this says why"),
        (RunFailed("lost\neverything", exit_code=7), "lost everything"),
        (ValueError("no axis\n  for it"), "a DataLoader worker failed: ValueError: no axis"),
        (MemoryError(), "a DataLoader worker failed: MemoryError"),
        (UnreadableImage("a.png", "Stale file handle", is_damaged=False), "a.png cannot be read as an image (Stale"),
    ],
)
def test_an_error_in_a_worker_is_raised_in_the_rank(raised: Exception, text: str, image_folder: Path):
    """Our own errors keep their type and fields. Every error has the worker's traceback as a note."""

    class Broken(EvalImages):
        def __getitem__(self, sample: object):
            raise raised

    images = Broken(scan_splits(image_folder).train, None, lambda pixels: pixels)
    with pytest.raises(Exception) as error:  # noqa: PT011
        next(iter(ImageLoader(images, worker_timeout=30.0, num_workers=1, batch_size=2)))
    assert type(error.value) is (type(raised) if isinstance(raised, UserError | RunFailed) else LoaderFailed)
    assert str(error.value).startswith(text)
    assert "\n" not in str(error.value)
    assert vars(error.value).items() >= vars(raised).items()
    assert "in __getitem__" in "".join(traceback.format_exception(error.value))


def test_a_signal_to_the_whole_process_group_leaves_the_workers_alive(image_folder: Path):
    """The rank needs batches until it has saved; without its workers it would end with an error about memory."""

    class Counted(EvalImages):
        def __getitems__(self, samples: list):
            return len(samples)

    images = Counted(scan_splits(image_folder).train, None, lambda pixels: pixels)
    loader = ImageLoader(images, worker_timeout=30.0, num_workers=1, batch_size=2, worker_init_fn=prepare_worker)
    batches = iter(loader)
    next(batches)
    for process in multiprocessing.active_children():
        for signum in SIGNALS:
            os.kill(process.pid or 0, signum)
    assert list(batches) == [2] * 5


def test_a_signal_to_a_worker_does_not_reach_the_rank():
    """A forked worker inherits the descriptor from which its rank reads its own signals."""
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    before = signal.set_wakeup_fd(writer)
    try:
        process = multiprocessing.get_context("fork").Process(target=signal_itself)
        process.start()
        process.join(60)
    finally:
        signal.set_wakeup_fd(before)
    os.close(writer)
    with open(reader, "rb") as received:
        assert (process.exitcode, received.read()) == (0, b"")


def signal_itself() -> None:
    prepare_worker(0)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    os.kill(os.getpid(), signal.SIGUSR1)
