"""W&B: all starts have one id, and without a server the training neither fails nor waits."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from resnext.config.schema import to_dict
from resnext.loggers.wandb import build_wandb_logger, find_obstacle, is_wanted
from support.fake_wandb import Server, serving
from support.small_run import small_config

KEY = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A server that accepts connections and never answers."""
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
def with_key(wandb_stopped: None, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    return monkeypatch


START = """
import sys; from pathlib import Path; import wandb
from resnext.run.directory import read_config
from resnext.loggers.wandb import build_wandb_logger
logger = build_wandb_logger(read_config(Path("config.yaml")), Path.cwd(), "abcd1234")
logger.log_metrics({"loss": 1.0}, step=1)
assert logger.experiment.offline and logger.experiment.id == "abcd1234"
wandb.finish()
"""


@pytest.mark.processes
def test_two_offline_starts_have_one_id(tmp_path: Path):
    (tmp_path / "config.yaml").write_text(json.dumps(to_dict(small_config(tmp_path, logger__mode="offline"))))
    for _ in range(2):
        subprocess.run([sys.executable, "-c", START], check=True)
    folders = [path.name for path in (tmp_path / "wandb").glob("offline-run-*")]
    assert len(folders) == 2
    assert all(name.endswith("-abcd1234") for name in folders)


def test_without_a_key_a_start_does_not_wait(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    wandb.teardown()
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    began = time.monotonic()
    assert find_obstacle("auto") == "no API key"
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_without_a_working_server_wandb_is_offline(
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


def test_a_malformed_key_is_not_an_error(with_key: pytest.MonkeyPatch):
    with_key.setenv("WANDB_API_KEY", "short")
    assert find_obstacle("auto") is not None


def test_a_password_in_the_servers_address_is_not_logged(with_key: pytest.MonkeyPatch, refused_port: int):
    with_key.setenv("WANDB_BASE_URL", f"http://user:hunter2@127.0.0.1:{refused_port}")
    obstacle = find_obstacle("auto")
    assert obstacle is not None
    assert obstacle.startswith(f"http://127.0.0.1:{refused_port}: ")


def test_wandbs_own_mode_variable_is_respected(monkeypatch: pytest.MonkeyPatch):
    assert is_wanted("auto")
    assert not is_wanted("disabled")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert not is_wanted("auto")


RESUMED = """
import os, signal, sys
from pathlib import Path
import wandb
from resnext.loggers.csv import CsvLogger
from resnext.run.directory import read_config
from resnext.loggers.wandb import build_wandb_logger
first, last, how = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
rows = CsvLogger(Path.cwd(), first - 1, validated=True, average=False)
logger = build_wandb_logger(read_config(Path("config.yaml")), Path.cwd(), "abcd1234")
for step in range(first, last + 1):
    for each in (rows, logger):
        each.log_metrics({"epoch": 1, "train/loss": 1 / step}, step=step)
        if step % 4 == 0:
            each.log_metrics({"epoch": 1, "val/top1": step / 100}, step=step)
if how == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
wandb.finish()
"""


def start(first: int, last: int, how: str, **environment: str) -> None:
    """A start that continues after step first - 1, and ends with step `last` or is killed after it."""
    command = [sys.executable, "-c", RESUMED, str(first), str(last), how]
    result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == (-signal.SIGKILL if how == "killed" else 0), result.stderr


def assert_no_gap(server: Server, last: int) -> None:
    """Asserts that the server has each step at least once, and always with the same values."""
    assert set(server.steps("train/loss")) == set(range(1, last + 1))
    assert set(server.steps("val/top1")) == set(range(4, last + 1, 4))
    for row in server.rows:
        step = row["trainer/global_step"]
        assert row.get("train/loss", 1 / step) == 1 / step
        assert row.get("val/top1", step / 100) == step / 100


@pytest.mark.processes
def test_a_killed_start_leaves_no_gap_on_the_server(with_key: pytest.MonkeyPatch, tmp_path: Path):
    """The killed start has not sent its last steps. The steps after the checkpoint are computed again."""
    (tmp_path / "config.yaml").write_text(json.dumps(to_dict(small_config(tmp_path, logger__mode="auto"))))
    with serving() as server:
        start(1, 5, "finished", WANDB_BASE_URL=server.url)
        start(6, 13, "killed", WANDB_BASE_URL=server.url)
        assert set(server.steps("train/loss")) < set(range(1, 14))
        start(11, 16, "finished", WANDB_BASE_URL=server.url)
        assert_no_gap(server, 16)


@pytest.mark.processes
def test_the_last_offline_folder_holds_the_whole_run(with_key: pytest.MonkeyPatch, tmp_path: Path):
    """So the one command in the log sends the whole run."""
    (tmp_path / "config.yaml").write_text(json.dumps(to_dict(small_config(tmp_path, logger__mode="offline"))))
    start(1, 13, "killed")
    start(11, 16, "finished")
    with serving() as server:
        command = [str(Path(sys.executable).with_name("wandb")), "sync", "wandb/latest-run"]
        subprocess.run(command, env=os.environ | {"WANDB_BASE_URL": server.url}, check=True, capture_output=True)
        assert_no_gap(server, 16)
