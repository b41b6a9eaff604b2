"""Paths that are not regular files: how to make each, and the words of its message."""

import os
from pathlib import Path

NOT_REGULAR = [
    (Path.mkdir, "is a folder"),
    (os.mkfifo, "is a FIFO"),
    (lambda path: path.symlink_to("/dev/zero"), "is a device"),
    (lambda path: path.symlink_to("nowhere"), "is a link to a file that does not exist"),
]
