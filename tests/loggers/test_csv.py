"""metrics.csv and perf.csv: every step appears once, with exact values."""

import math
from pathlib import Path
from typing import Any

import pytest

from resnext.loggers import csv as csv_logger
from resnext.loggers.csv import CsvLogger
from resnext.run.metrics import read_rows


def test_values_are_read_back_with_the_same_bits(tmp_path: Path):
    logger = CsvLogger(tmp_path, resume_step=0, validated=True, average=False)
    logger.log_metrics({"epoch": 1, "lr": 0.1, "train/loss": math.pi / 7}, step=3)
    logger.log_metrics({"epoch": 1, "perf/images_per_sec": 12.5, "perf/data_wait_percent": 1.0}, step=3)
    (row,) = read_rows(tmp_path / "metrics.csv")
    assert (row["step"], float(row["train/loss"]), row["val/top1"]) == ("3", math.pi / 7, "")
    assert [row["perf/images_per_sec"] for row in read_rows(tmp_path / "perf.csv")] == ["12.5"]


def test_a_later_start_appends_and_drops_rows_that_it_computes_again(tmp_path: Path):
    first = CsvLogger(tmp_path, resume_step=0, validated=True, average=False)
    for step in range(1, 6):
        first.log_metrics({"epoch": 1, "lr": 0.1, "train/loss": 1 / step}, step=step)
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("1,6,0.1,0.16")  # killed in the middle of a line
    second = CsvLogger(tmp_path, resume_step=3, validated=True, average=False)
    for step in range(4, 7):
        second.log_metrics({"epoch": 1, "lr": 0.1, "train/loss": 1 / step}, step=step)
    rows = read_rows(tmp_path / "metrics.csv")
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [float(row["train/loss"]) for row in rows] == [1 / step for step in range(1, 7)]


def test_a_missing_file_has_no_rows(tmp_path: Path):
    assert read_rows(tmp_path / "metrics.csv") == []


def test_lines_wait_while_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    """No line is lost and no line appears twice, although half a line was written before the error."""
    logger = CsvLogger(tmp_path, resume_step=0, validated=True, average=False)

    def full(path: Path, mode: str = "r", **options: Any) -> Any:
        file = open(path, mode, **options)
        if mode == "a":
            file.write("1,2")
            file.close()
            raise OSError(28, "No space left on device")
        return file

    def log_step(step: int) -> None:
        logger.log_metrics({"epoch": 1, "lr": 0.1, "train/loss": 1 / step}, step=step)

    log_step(1)
    with monkeypatch.context() as patch:
        patch.setattr(csv_logger, "open", full, raising=False)
        for step in (2, 3):
            log_step(step)
            assert [row["step"] for row in read_rows(tmp_path / "metrics.csv")] == ["1"]
    assert caplog.text.count("metrics.csv cannot be written: No space left on device; its lines are kept") == 1
    log_step(4)
    assert [float(row["train/loss"]) for row in read_rows(tmp_path / "metrics.csv")] == [1, 1 / 2, 1 / 3, 1 / 4]


@pytest.mark.parametrize("damage", ["removed", "cut", "overwritten"])
def test_a_file_that_is_damaged_during_the_training_is_written_again(tmp_path: Path, damage: str, caplog):
    logger, path = CsvLogger(tmp_path, resume_step=0, validated=True, average=False), tmp_path / "metrics.csv"
    for step in (1, 2):
        logger.log_metrics({"epoch": 1, "train/loss": 1 / step}, step=step)
    text = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(text[:-9] if damage == "cut" else b"")
    logger.log_metrics({"epoch": 1, "train/loss": 1 / 3}, step=3)
    assert path.read_bytes() == text + b"1,3,,0.3333333333333333,,,,\r\n"
    assert caplog.text.count("metrics.csv was changed by another program: the training rewrites it") == 1
