"""Fixtures that start the real command (see forking.py). `make test-faults` runs these tests; `make test` does not."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.commands import OPTIONS, RANKS, Command


@pytest.fixture(scope="session")
def server() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(Path(__file__).with_name("forking.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


@pytest.fixture(scope="session")
def start_in(server: subprocess.Popen[str], digits: Path) -> Callable[..., Command]:
    """Starts `resnext ARGUMENTS` in a folder and returns while the command runs; one command at a time."""

    def start_in(folder: Path, *arguments: str, **environment: str) -> Command:
        log = folder / f"output-{len(list(folder.glob('output-*')))}"
        environment = {"RESNEXT_DATA": str(digits.parent), **environment}
        request = {"arguments": arguments, "folder": str(folder), "environment": environment, "log": str(log)}
        print(json.dumps(request), file=server.stdin, flush=True)
        return Command(server, log)

    return start_in


@pytest.fixture
def start(start_in: Callable[..., Command], tmp_path: Path) -> Iterator[Callable[..., Command]]:
    commands = []

    def start(*arguments: str, **environment: str) -> Command:
        commands.append(start_in(tmp_path, *arguments, **environment))
        return commands[-1]

    yield start
    for command in commands:  # still running if the test failed
        if command.code is None:
            command.kill(signal.SIGKILL)
            command.wait()


@pytest.fixture
def resnext(start: Callable[..., Command]) -> Callable[..., Command]:
    """Runs `resnext ARGUMENTS` to its end, and asserts that its exit code is 0."""

    def run(*arguments: str) -> Command:
        command = start(*arguments)
        assert command.wait() == 0, command.output
        return command

    return run


@pytest.fixture(scope="session")
def whole(start_in: Callable[..., Command], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run. Its folder holds its duration in the file `seconds`."""
    folder = tmp_path_factory.mktemp("whole")
    command = start_in(folder, "train", *OPTIONS, "run=whole")
    assert command.wait() == 0, command.output
    (folder / "runs/whole/seconds").write_text(str(time.monotonic() - command.started))
    return folder / "runs/whole"


@pytest.fixture(scope="session")
def whole_pair(start_in: Callable[..., Command], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run on two ranks."""
    folder = tmp_path_factory.mktemp("whole")
    command = start_in(folder, "train", *OPTIONS, *RANKS, "run=whole")
    assert command.wait() == 0, command.output
    return folder / "runs/whole"


@pytest.fixture
def instants(capsys: pytest.CaptureFixture[str]) -> random.Random:
    """The random generator of the faults. FAULT_SEED=N repeats a test."""
    seed = int(os.environ.get("FAULT_SEED", time.time_ns() % 1_000_000))
    with capsys.disabled():
        print(f"\nFAULT_SEED={seed}")
    return random.Random(seed)
