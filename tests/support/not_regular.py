"""What may be at a path in place of a regular file, and what the message says about it."""

import os
from pathlib import Path

NOT_REGULAR = [
    (Path.mkdir, "is a folder"),
    (os.mkfifo, "is a FIFO"),
    (lambda path: path.symlink_to("/dev/zero"), "is a device"),
    (lambda path: path.symlink_to("nowhere"), "is a link to a file that does not exist"),
]
