"""Why a wait for a batch ended."""

import multiprocessing
import threading
import time

import pytest

from resnext.data.loader_guard import LoaderFailed, LoaderGuard


def test_a_connection_that_breaks_before_the_death_is_known():
    guard = LoaderGuard(timeout=60.0)
    with guard.watching():
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        process.start()
        guard.watch_children()
        killer = threading.Timer(0.3, process.kill)
        killer.start()
        with pytest.raises(LoaderFailed, match="a loader process was killed by SIGKILL"), guard.waiting():
            raise ConnectionResetError(104, "Connection reset by peer")
        killer.join()
        process.join()


def test_a_broken_connection_of_living_processes_is_what_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("resnext.data.loader_guard.SECONDS_TO_DIE", 0.1)
    with pytest.raises(ConnectionResetError), LoaderGuard(timeout=60.0).waiting():
        raise ConnectionResetError(104, "Connection reset by peer")
