"""A new run is made completely or not at all, under a free name."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from resnext.run.directory import RUNS, Run
from resnext.run.identity import DataIdentity
from resnext.run.new_run import free_name
from support.kills import kill_at_file_operation
from support.small_run import small_config

DATA = DataIdentity(("cat", "dog"), "0123")
COMMAND = ["resnext", "train"]
FILES = {"config.yaml", "starts", "checkpoints", "run.json", "summary.json"}


def test_a_kill_between_any_two_file_operations_leaves_no_partial_run(tmp_path: Path):
    """A child is killed at its n-th file operation, for every n, until a child finishes."""
    config = small_config(tmp_path)
    for operation in range(1, 200):
        child = os.fork()
        if child == 0:
            kill_at_file_operation(operation)
            Run.create(replace(config, run=f"run{operation}"), DATA, COMMAND)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        path = RUNS / f"run{operation}"
        if path.exists():
            assert {file.name for file in path.iterdir()} >= FILES
            assert Run.open(path).config.run == path.name
            json.loads((path / "run.json").read_text())
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            assert operation > 15
            assert path.exists()
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
    pytest.fail("the child was always killed")


def test_an_error_in_make_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("resnext.run.new_run.write_diff", full)
    with pytest.raises(OSError, match="No space left on device"):
        Run.create(small_config(tmp_path), DATA, COMMAND)
    assert list(RUNS.iterdir()) == []


def test_free_names_have_experiment_and_time(tmp_path: Path):
    name = free_name(tmp_path, "digits")
    assert time.strptime(name.removeprefix("digits-"), "%Y%m%d-%H%M%S")
    for each in (name, f"{name}-2"):
        (tmp_path / each).mkdir()
    assert free_name(tmp_path, "digits") not in {name, f"{name}-2"}
