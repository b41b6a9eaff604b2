"""Training images that cannot be read: counted over all ranks and starts, and never more than allowed."""

import logging
from pathlib import Path
from typing import NamedTuple

from resnext.errors import UserError
from resnext.files import read_text

log = logging.getLogger(__name__)


class CorruptImage(NamedTuple):
    """In place of a training image that cannot be read: its path below train/, and why."""

    path: str
    reason: str


class CorruptImageBudget:
    """Each image counts once. The count is a file in the run, a line an image, so that ranks and restarts share it.

    Args:
        path: of the file; it is made with the first image that is skipped.
        limit: `data.max_skipped`.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.limit = path, limit

    def count(self, skipped: list[CorruptImage]) -> None:
        """Raises UserError where there are more than the limit."""
        if not skipped:
            return
        known = self._read()
        fresh = {path: reason for path, reason in skipped if path not in known}
        for path in fresh:
            log.warning("left out, as it cannot be read: train/%s (%s)", path, self.path)
        with self.path.open("a") as file:
            file.write("".join(f"{path}\t{reason}\n" for path, reason in fresh.items()))  # once: other ranks append too
        found = len(self._read())
        if found > self.limit:
            raise UserError(
                f"{found} training images cannot be read, more than data.max_skipped={self.limit}: replace those that "
                f"{self.path} lists, or allow more"
            )

    def _read(self) -> set[str]:
        """The paths."""
        lines = read_text(self.path).splitlines() if self.path.exists() else []
        return {line.partition("\t")[0] for line in lines}
