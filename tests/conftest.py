"""Fixtures for all tests; functions that they share are in tests/support/."""

import gc
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resnext.runtime.signals import SIGNALS
from support.small_run import write_images

os.environ.setdefault("WANDB_MODE", "offline")
# with more threads, tiny networks are slower, especially on a busy machine
os.environ.setdefault("OMP_NUM_THREADS", "1")
# matplotlib lists the fonts of the machine once, which takes seconds
os.environ.setdefault("MPLCONFIGDIR", f"{tempfile.gettempdir()}/resnext-tests-matplotlib-{os.getuid()}")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has its own current folder, which holds its runs/, W&B's own files and the cached indexes."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> None:
    """A fit collects garbage twice. Without the objects of the imported modules, this takes 1 ms instead of 300 ms."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _restored_signal_handlers() -> Iterator[None]:
    """`resnext fit` ignores signals at its end. Processes that a later test starts would ignore them too."""
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture
def wandb_stopped() -> Iterator[None]:
    """No W&B process before and after the test."""
    import wandb

    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded dataset, written once."""
    from resnext.data.digits import prepare_digits

    root = tmp_path_factory.mktemp("data") / "digits"
    prepare_digits(root)
    return root


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Two classes, 12 training and 5 validation images of 20×16 pixels in all."""
    root = tmp_path / "images"
    write_images(root, {"train/cat": 6, "train/dog": 6, "val/cat": 3, "val/dog": 2})
    return root


@pytest.fixture
def resnext(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `resnext ARGUMENTS` as a user does, in the test's folder."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "resnext", *arguments],
            cwd=tmp_path,
            env={**os.environ, "RESNEXT_DATA": str(tmp_path / "data"), **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run
