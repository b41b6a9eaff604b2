"""W&B: one id for all starts, and a training that neither fails nor waits where there is no server."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from conftest import small_config
from resnext.config import to_dict
from resnext.training.wandb_logger import build_wandb_logger, find_obstacle, is_wanted

KEY = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture
def silent_server() -> Iterator[int]:
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        for connection in kept:
            connection.close()


@pytest.fixture
def refused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def with_key(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    wandb.teardown()
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    yield monkeypatch
    wandb.teardown()


START = """
import sys; from pathlib import Path; import wandb
from resnext.training.run import read_config
from resnext.training.wandb_logger import build_wandb_logger
logger = build_wandb_logger(read_config(Path("config.yaml")), Path.cwd(), "abcd1234")
logger.log_metrics({"loss": 1.0}, step=1)
assert logger.experiment.offline and logger.experiment.id == "abcd1234"
wandb.finish()
"""


def test_two_offline_starts_have_one_id(tmp_path: Path):
    (tmp_path / "config.yaml").write_text(json.dumps(to_dict(small_config(tmp_path, logger__mode="offline"))))
    for _ in range(2):
        subprocess.run([sys.executable, "-c", START], check=True)
    folders = [path.name for path in (tmp_path / "wandb").glob("offline-run-*")]
    assert len(folders) == 2
    assert all(name.endswith("-abcd1234") for name in folders)


def test_without_a_key_there_is_no_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    wandb.teardown()
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    began = time.monotonic()
    assert find_obstacle("auto") == "no API key"
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_a_server_that_does_not_serve(
    with_key: pytest.MonkeyPatch, silent_server: int, refused_port: int, kind: str, tmp_path: Path, caplog
):
    port = silent_server if kind == "silent" else refused_port
    with_key.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    began = time.monotonic()
    with caplog.at_level("INFO", logger="resnext"):
        logger = build_wandb_logger(small_config(tmp_path, logger__mode="auto"), tmp_path, "abcd1234")
    assert time.monotonic() - began < 10
    assert logger.experiment.offline
    wandb.finish()
    assert f"offline: http://127.0.0.1:{port}" in caplog.text or "offline: no answer in 3 s" in caplog.text


def test_a_malformed_key_is_no_error(with_key: pytest.MonkeyPatch):
    with_key.setenv("WANDB_API_KEY", "short")
    assert find_obstacle("auto") is not None


def test_wandbs_own_switch_counts(monkeypatch: pytest.MonkeyPatch):
    assert is_wanted("auto")
    assert not is_wanted("disabled")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert not is_wanted("auto")
