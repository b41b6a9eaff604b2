"""Counts the training images that cannot be read, over all ranks and starts, up to a limit."""

import logging
from pathlib import Path
from typing import NamedTuple

from resnext.errors import UserError
from resnext.files import read_text

log = logging.getLogger(__name__)


class CorruptImage(NamedTuple):
    """Replaces a training image that cannot be read: its path below train/, and the reason."""

    path: str
    reason: str


class CorruptImageBudget:
    """Counts each image once, in a file with one line per image. All ranks and starts of a run share the file.

    Args:
        path: the file; the first skipped image creates it.
        limit: `data.max_skipped`.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.limit = path, limit

    def count(self, skipped: list[CorruptImage]) -> None:
        """Adds `skipped`. Raises UserError if more images than the limit are counted."""
        if not skipped:
            return
        known = self._read()
        fresh = {path: reason for path, reason in skipped if path not in known}
        for path in fresh:
            log.warning("skipped, because it cannot be read: train/%s (%s)", path, self.path)
        with self.path.open("a") as file:
            # one write call, because other ranks append to the same file
            file.write("".join(f"{path}\t{reason}\n" for path, reason in fresh.items()))
        found = len(self._read())
        if found > self.limit:
            raise UserError(
                f"{found} training images cannot be read, more than data.max_skipped={self.limit}: replace the "
                f"images that {self.path} lists, or allow more"
            )

    def _read(self) -> set[str]:
        """The paths in the file."""
        lines = read_text(self.path).splitlines() if self.path.exists() else []
        return {line.partition("\t")[0] for line in lines}
