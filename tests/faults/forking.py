"""Runs `resnext ARGUMENTS` in processes of their own and pays for imports once: they are its children.

A line of stdin starts one, and its process id is the answer; the next waits for it, and the answer is its exit code.
"""

import json
import os
import sys
from typing import Any

from resnext.__main__ import main

MOST_RANKS = 8


def serve() -> None:
    os.cpu_count = lambda: MOST_RANKS  # trainer.devices may not exceed it, and the tests have more ranks than cores
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            become(**request)
            main(request["arguments"])
        print(child, flush=True)
        sys.stdin.readline()  # until then its number is not given away
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def become(folder: str, environment: dict[str, str], log: str, **_rest: Any) -> None:
    """A process in a session, a folder and an environment of its own."""
    os.setsid()
    os.chdir(folder)
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


if __name__ == "__main__":
    serve()
