"""metrics.csv: what the training computes, exact. perf.csv: what the machine took. Later starts append."""

import csv
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from resnext.errors import UserError
from resnext.regular_file import read_text

METRICS = ("epoch", "step", "lr", "train/loss", "val/loss", "val/top1", "val/top5")
AVERAGE = ("val_ema/loss", "val_ema/top1", "val_ema/top5")
PERF = ("epoch", "step", "perf/images_per_sec", "perf/data_wait_percent")

Row = dict[str, str]

log = logging.getLogger(__name__)


class CsvLogger(Logger):
    """One line for each call with a step, written through at once, so that a killed run keeps all it logged.

    Values are written by `repr`: reading them gives the same bits.

    Args:
        folder: the run directory.
        resume_step: rows of later steps, which this start computes again, are dropped.
        validated: whether the validation at that step is not computed again.
        average: whether the run also validates an average of its weights.
    """

    def __init__(self, folder: Path, resume_step: int, *, validated: bool, average: bool) -> None:
        super().__init__()
        metrics = METRICS + AVERAGE if average else METRICS
        self._files = [_CsvFile(folder / "metrics.csv", metrics), _CsvFile(folder / "perf.csv", PERF)]
        for file in self._files:
            rows = [row for row in read_rows(file.path) if int(row["step"]) <= resume_step]
            if not validated:
                rows = [row for row in rows if int(row["step"]) < resume_step or not row.get("val/top1")]
            file.rewrite(rows)

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        for file in self._files:
            if metrics.keys() & set(file.columns[2:]):
                file.append({"step": step, **{key: value for key, value in metrics.items() if key in file.columns}})

    def write_all(self) -> None:
        """Raises OSError if a line still has to wait."""
        for file in self._files:
            file.write()
            file.sync()


class _CsvFile:
    """Lines that cannot be written, as on a full disk, wait for the next one: a training does not end for its log."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path, self.columns = path, columns
        self._waiting: list[dict[str, Any]] = []
        self._size = 0

    def rewrite(self, rows: list[Row]) -> None:
        aside = self.path.with_name(f".{self.path.name}")
        aside.unlink(missing_ok=True)  # a FIFO would be waited for, a link followed
        with open(aside, "w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.path)
        self._size = self.path.stat().st_size

    def sync(self) -> None:
        with open(self.path) as file:
            os.fsync(file.fileno())

    def append(self, row: dict[str, Any]) -> None:
        self._waiting.append(row)
        try:
            self.write()
        except OSError as error:
            if len(self._waiting) == 1:
                log.warning("%s cannot be written: %s; its lines are kept until it can", self.path, error.strerror)

    def write(self) -> None:
        """All that waits; raises OSError, and then the file is as it was."""
        if not self._waiting:
            return
        try:
            with open(self.path, "a", newline="") as file:
                csv.DictWriter(file, self.columns).writerows(self._waiting)
        except OSError:
            with suppress(OSError):
                os.truncate(self.path, self._size)  # what went in may end in the middle of a line
            raise
        self._waiting = []
        self._size = self.path.stat().st_size


def read_rows(path: Path) -> list[Row]:
    """The whole lines of a file that may have been cut in the middle of the last one, or may not exist.

    Raises:
        UserError: if it is not a text file of comma-separated values.
    """
    try:
        text = read_text(path)
        lines = text[: text.rfind("\n") + 1].splitlines()
        return list(csv.DictReader(lines))
    except FileNotFoundError:
        return []
    except csv.Error as error:
        raise UserError(f"{path} is damaged ({error}): mend it, or move it away") from error
