"""Kills this process at a chosen change of the file system."""

import os
import signal
import sys


def kill_at_file_operation(number: int) -> None:
    """Counts the changes: files opened for writing, folders made, names changed or removed."""
    seen = 0

    def count(event: str, arguments: tuple) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if writes or event in ("os.mkdir", "os.rename", "os.link", "os.remove", "os.chmod", "tempfile.mkdtemp"):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
