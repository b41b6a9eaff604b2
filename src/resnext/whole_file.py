"""Text files that are whole at any time."""

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """A reader, or a kill, finds the old file or the new one. Raises OSError."""
    aside = path.with_name(f".{path.name}.partial")
    aside.unlink(missing_ok=True)  # a FIFO would be waited for, a link followed
    with open(aside, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
