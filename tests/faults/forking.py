"""Runs `resnext ARGUMENTS` in forked child processes, so that all of them share one import.

A line on stdin starts a command, and the answer is its process id. The next line waits for the command, and the answer
is its exit code.
"""

import json
import os
import sys
from typing import Any

from resnext.__main__ import main

MOST_RANKS = 3


def serve() -> None:
    os.cpu_count = lambda: MOST_RANKS  # the limit of trainer.devices; the tests have more ranks than cores
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            detach(**request)
            main(request["arguments"])
        print(child, flush=True)
        sys.stdin.readline()  # before the wait below, no other process gets this id
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def detach(folder: str, environment: dict[str, str], log: str, **_rest: Any) -> None:
    """Gives this process its own session, folder, environment and output."""
    os.setsid()
    os.chdir(folder)
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


if __name__ == "__main__":
    serve()
