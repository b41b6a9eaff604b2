"""metrics.csv: what the training computes, exact. perf.csv: what the machine took. Later starts append."""

import csv
import io
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from resnext.files import atomic_write
from resnext.run.metrics import AVERAGE, METRICS, PERF, Row, describe_lost, find_lost, read_rows

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

    @property
    def metrics(self) -> str:
        """The text of metrics.csv, for the checkpoint: the file may be damaged before it is needed again."""
        return "".join(self._files[0].lines)

    def write_all(self) -> None:
        """Raises OSError if a line still has to wait."""
        for file in self._files:
            file.write()
            file.sync()


def restore_metrics(path: Path, kept: str, source: str) -> None:
    """Writes metrics.csv again from `kept`, the copy in the checkpoint `source`, if it lacks a row of that."""
    if lost := find_lost(path, kept):
        log.warning("%s has lost or changed %s: it is written again from %s", path, describe_lost(lost), source)
        atomic_write(path, kept)


class _CsvFile:
    """Lines that cannot be written, as on a full disk, wait for the next one: a training does not end for its log."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path, self.columns = path, columns
        self.lines: list[str] = []  # all of them; the last ones may still have to be written
        self._written = 0  # lines
        self._size = 0  # bytes of those

    def rewrite(self, rows: list[Row]) -> None:
        self.lines = [self._format(dict(zip(self.columns, self.columns, strict=True))), *map(self._format, rows)]
        self._replace()

    def sync(self) -> None:
        with open(self.path) as file:
            os.fsync(file.fileno())

    def append(self, row: dict[str, Any]) -> None:
        self.lines.append(self._format(row))
        try:
            self.write()
        except OSError as error:
            if len(self.lines) - self._written == 1:
                log.warning("%s cannot be written: %s; its lines are kept until it can", self.path, error.strerror)

    def write(self) -> None:
        """All that waits; raises OSError, and then the file is as it was."""
        if self._is_damaged():
            log.warning("%s was changed from outside: the training writes it again", self.path)
            self._replace()
        elif self._written < len(self.lines):
            self._append("".join(self.lines[self._written :]))

    def _replace(self) -> None:
        text = "".join(self.lines)
        atomic_write(self.path, text)
        self._written, self._size = len(self.lines), len(text)

    def _append(self, text: str) -> None:
        try:
            with open(self.path, "a", newline="") as file:
                file.write(text)
            self._written, self._size = len(self.lines), self._size + len(text)
        except OSError:
            with suppress(OSError):
                os.truncate(self.path, self._size)  # what went in may end in the middle of a line
            raise

    def _is_damaged(self) -> bool:
        return not self.path.exists() or self.path.stat().st_size != self._size

    def _format(self, row: dict[str, Any]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self.columns).writerow(row)
        return text.getvalue()
