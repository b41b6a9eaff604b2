"""Reads the complete rows of metrics.csv and perf.csv, even if the file is damaged. Imports no torch."""

from pathlib import Path
from typing import Any

from resnext.files import read_text
from resnext.terminal import pluralize

METRICS = ("epoch", "step", "lr", "train/loss", "train/epoch_loss", "val/loss", "val/top1", "val/top5")
AVERAGE = ("val_ema/loss", "val_ema/top1", "val_ema/top5")
PERF = ("epoch", "step", "perf/images_per_sec", "perf/data_wait_percent")

Row = dict[str, str]


def metric_columns(names: tuple[str, ...], *, average: bool) -> tuple[str, ...]:
    """The columns of metrics.csv. `names`: recipe.evaluation.metrics; `average`: whether the run has an EMA."""
    columns = METRICS + tuple(f"val/{name}" for name in names)
    return columns + AVERAGE + tuple(f"val_ema/{name}" for name in names) if average else columns


def read_rows(path: Path) -> list[Row]:
    """The complete rows of a file; none if it does not exist. Skips incomplete lines and lines with text."""
    return parse_rows(_read_text(path))


def parse_rows(text: str) -> list[Row]:
    header, *lines = _whole_lines(text) or [""]
    columns = header.split(",")
    return [row for line in lines if (row := _parse(line, columns)) is not None]


def read_last_row(path: Path) -> Row:
    """The last complete row; empty if there is none. Parses lines from the end until one is complete."""
    header, *lines = _whole_lines(_read_text(path)) or [""]
    columns = header.split(",")
    return next((row for line in reversed(lines) if (row := _parse(line, columns)) is not None), {})


def find_lost(path: Path, kept: str) -> list[Row]:
    """The rows in `kept`, a checkpoint's copy of the file at `path`, that are missing there or have other values.

    A column that one of them lacks is empty: a later release may have added it to the file.
    """
    found = {_values(row) for row in read_rows(path)}
    return [row for row in parse_rows(kept) if _values(row) not in found]


def describe_lost(lost: list[Row]) -> str:
    """The number of rows, and their steps."""
    first, last = lost[0]["step"], lost[-1]["step"]
    steps = f"step {first}" if first == last else f"steps {first} to {last}"
    return f"{pluralize(len(lost), 'row')}, {steps}"


def find_best(rows: list[Row], best_by: str) -> Row | None:
    """The first validation with the highest `best_by`."""
    return max((row for row in rows if row["val/top1"]), key=lambda row: float(row[best_by]), default=None)


def _values(row: Row) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in row.items() if value))


def _read_text(path: Path) -> str:
    """The text; empty if there is no file. Raises UserError like files.read_text, but not for invalid UTF-8."""
    try:
        return read_text(path, errors="replace")
    except FileNotFoundError:
        return ""


def _whole_lines(text: str) -> list[str]:
    return text.rpartition("\n")[0].splitlines()


def _parse(line: str, columns: list[str]) -> Row | None:
    row = dict(zip(columns, line.split(","), strict=False))
    try:
        is_whole = len(row) == len(columns) == line.count(",") + 1 and int(row["step"]) >= 0 and int(row["epoch"]) >= 0
        _check_numbers(row)
    except (KeyError, ValueError):
        return None
    return row if is_whole else None


def _check_numbers(row: dict[str, Any]) -> None:
    """Raises ValueError for a value that is neither a number nor empty."""
    for value in row.values():
        float(value or 0)
