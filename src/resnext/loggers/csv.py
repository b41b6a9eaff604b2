"""Writes metrics.csv (the exact values that the training computes) and perf.csv (its speed). Later starts append."""

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
from resnext.run.metrics import PERF, Row, describe_lost, find_lost, metric_columns, read_rows

log = logging.getLogger(__name__)


class CsvLogger(Logger):
    """Writes one line per call immediately, so that a killed run keeps everything it logged.

    Values are written by `repr`, so that reading them gives the same bits.

    Args:
        folder: the run directory.
        resume_step: rows of later steps are dropped: this start computes them again.
        validated: whether the validation at `resume_step` is complete. If not, its row is dropped.
        average: whether the run also validates an average of its weights.
        names: recipe.evaluation.metrics.
    """

    def __init__(
        self, folder: Path, resume_step: int, *, validated: bool, average: bool, names: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        metrics = metric_columns(names, average=average)
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
        """Does nothing: config.yaml has the hyperparameters."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        for file in self._files:
            if metrics.keys() & set(file.columns[2:]):
                file.append({"step": step, **{key: value for key, value in metrics.items() if key in file.columns}})

    @property
    def metrics(self) -> str:
        """The text of metrics.csv. Each checkpoint keeps a copy, in case the file is damaged later."""
        return "".join(self._files[0].lines)

    def write_all(self) -> None:
        """Writes all pending lines to disk. Raises OSError if one cannot be written."""
        for file in self._files:
            file.write()
            file.sync()


def restore_metrics(path: Path, kept: str, source: str) -> None:
    """Rewrites metrics.csv from `kept`, the copy in the checkpoint `source`, if it lacks a row of this copy."""
    if lost := find_lost(path, kept):
        log.warning("%s has lost or changed %s: it is rewritten from %s", path, describe_lost(lost), source)
        atomic_write(path, kept)


class _CsvFile:
    """A CSV file. If a line cannot be written, it is written with a later line: a full disk must not end a training."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path, self.columns = path, columns
        self.lines: list[str] = []  # all lines; the last ones may not be written yet
        self._written = 0  # number of lines in the file
        self._size = 0  # bytes of these lines

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
                log.warning("%s cannot be written: %s; its lines are kept and written later", self.path, error.strerror)

    def write(self) -> None:
        """Writes all pending lines. If it raises OSError, the file is unchanged."""
        if self._is_damaged():
            log.warning("%s was changed by another program: the training rewrites it", self.path)
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
                os.truncate(self.path, self._size)  # a partial write may end in the middle of a line
            raise

    def _is_damaged(self) -> bool:
        return not self.path.exists() or self.path.stat().st_size != self._size

    def _format(self, row: dict[str, Any]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self.columns).writerow(row)
        return text.getvalue()
