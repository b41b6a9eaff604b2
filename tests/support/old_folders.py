"""Folders that look old, so that their index is kept."""

import os
import time
from pathlib import Path

import pytest

from resnext.data import index_cache

LONG_AGO = 1_600_000_000


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits until new folders count as settled: no program can set a change time back."""
    monkeypatch.setattr(index_cache, "CLOCK_TICK_NS", 20_000_000)
    time.sleep(0.05)


def age(root: Path) -> None:
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        os.utime(folder, (LONG_AGO, LONG_AGO))
