"""Training images that cannot be read: counted over all ranks and starts, and never more than allowed."""

from pathlib import Path

from resnext.errors import UserError


class SkipBudget:
    """Each image counts once. The count is a file in the run, a line an image, so that ranks and restarts share it.

    Args:
        path: of the file; it is made with the first image that is skipped.
        limit: `data.max_skipped`.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.limit = path, limit

    def count(self, reasons: list[str]) -> None:
        """Takes the errors of unreadable images. Raises UserError where they are more than the limit."""
        known = self._read()
        fresh = [reason for reason in dict.fromkeys(reasons) if reason not in known]
        if not fresh:
            return
        with self.path.open("a") as file:
            file.write("".join(f"{reason}\n" for reason in fresh))  # one write: other ranks append too
        found = len(self._read())
        if found > self.limit:
            raise UserError(
                f"{found} training images cannot be read, and data.max_skipped={self.limit}: "
                f"{self.path} lists them; the last is {fresh[-1]}"
            )

    def _read(self) -> set[str]:
        return set(self.path.read_text().splitlines()) if self.path.exists() else set()
