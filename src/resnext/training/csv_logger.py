"""metrics.csv: what the training computes, exact. perf.csv: what the machine took. Later starts append."""

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

METRICS = ("epoch", "step", "lr", "train/loss", "val/loss", "val/top1", "val/top5")
AVERAGE = ("val_ema/loss", "val_ema/top1", "val_ema/top5")
PERF = ("epoch", "step", "perf/images_per_sec", "perf/data_wait_percent")

Row = dict[str, str]


class CsvLogger(Logger):
    """One line for each call with a step, written through at once, so that a killed run keeps all it logged.

    Values are written by `repr`: reading them gives the same bits.

    Args:
        folder: the run directory.
        resume_step: rows of later steps, which this start computes again, are dropped.
        average: whether the run also validates an average of its weights.
    """

    def __init__(self, folder: Path, resume_step: int, *, average: bool) -> None:
        super().__init__()
        metrics = METRICS + AVERAGE if average else METRICS
        self._files = {metrics: folder / "metrics.csv", PERF: folder / "perf.csv"}
        for columns, path in self._files.items():
            rows = [row for row in read_rows(path) if int(row["step"]) <= resume_step]
            _write_rows(path, columns, rows)

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
        for columns, path in self._files.items():
            if metrics.keys() & set(columns[2:]):
                with open(path, "a", newline="") as file:
                    row = {"step": step, **{key: value for key, value in metrics.items() if key in columns}}
                    csv.DictWriter(file, columns).writerow(row)


def read_rows(path: Path) -> list[Row]:
    """The whole lines of a file that may have been cut in the middle of the last one, or may not exist."""
    if not path.is_file():
        return []
    text = path.read_text()
    lines = text[: text.rfind("\n") + 1].splitlines()
    return list(csv.DictReader(lines))


def _write_rows(path: Path, columns: tuple[str, ...], rows: list[Row]) -> None:
    aside = path.with_name(f".{path.name}")
    with open(aside, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    aside.replace(path)
