"""Which offline folders of W&B remain after many starts. wandb itself writes the folders of these tests."""

import os
from pathlib import Path
from typing import Any

import pytest
import wandb

from resnext.loggers.csv import CsvLogger
from resnext.loggers.wandb import build_wandb_logger
from resnext.loggers.wandb_folders import _read_steps
from support.small_run import small_config

FOLDERS = "wandb/offline-run-*-abcd1234*"


pytestmark = pytest.mark.usefixtures("wandb_stopped")


def start(first: int, last: int, **added: Any) -> Path:
    """The offline folder of a start that computes these steps and ends. `added` is content that a user logs."""
    rows = CsvLogger(Path.cwd(), first - 1, validated=True, average=False)
    logger = build_wandb_logger(small_config(Path.cwd(), logger__mode="offline"), Path.cwd(), "abcd1234")
    for step in range(first, last + 1):
        for each in (rows, logger):
            each.log_metrics({"epoch": 1, "train/loss": 1 / step, "perf/images_per_sec": 9.0}, step=step)
    if added:
        logger.log_metrics(added, step=last)
    wandb.finish()
    wandb.teardown()  # waits until the file is closed, which finish does not
    return newest()


def newest() -> Path:
    return Path("wandb/latest-run").resolve()


def left() -> set[Path]:
    return {path.resolve() for path in Path().glob(FOLDERS)}


def test_redundant_folders_of_earlier_starts_are_removed():
    """The folder of the current start does not count yet. Of the earlier folders, the most complete one remains."""
    for first in (1, 81, 161, 241):  # enough steps for more than one block of the file
        before, last = newest(), start(first, first + 89)
        assert left() == {last, before} if first > 1 else {last}
    assert _read_steps(last)["train/loss"] == set(range(1, 331))


def test_the_folder_of_a_start_that_was_killed_early_replaces_no_other():
    whole, cut = start(1, 200), start(201, 210)
    os.truncate(cut / "run-abcd1234.wandb", 2 * 32768)
    assert 1 < max(_read_steps(cut)["train/loss"]) < 200
    assert left() == {whole, cut}
    last = start(201, 202)
    assert left() == {whole, last}


@pytest.mark.parametrize("kept", ["a value", "a file", "a damaged file"])
def test_a_folder_with_unique_content_remains(kept: str):
    folder = start(1, 2, **({"mine": 1.0} if kept == "a value" else {}))
    if kept == "a file":
        (folder / "files/notes.txt").write_text("mine")
    if kept == "a damaged file":
        (folder / "run-abcd1234.wandb").write_bytes(b":W&B" + bytes(range(256)) * 9)
    others = [start(step, step) for step in (3, 4)]
    assert left() == {folder, *others}
    assert start(5, 5) in left()
    assert left() >= {folder, others[1]}
    assert len(left()) == 3


def test_the_same_first_and_last_step_do_not_make_a_folder_redundant():
    """The newer folder lacks the steps in between, because metrics.csv was lost."""
    whole = start(1, 30)
    for path in Path().glob("*.csv"):
        path.unlink()
    start(1, 1)
    gaps = start(30, 30)
    assert _read_steps(gaps)["train/loss"] == {1, 30}
    last = start(31, 31)
    assert left() == {whole, last}
