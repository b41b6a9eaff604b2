"""Reads what W&B wrote into an offline folder."""

import json
from pathlib import Path
from typing import Any

import wandb

from resnext.loggers.wandb_folders import _read_records

STEP = "trainer/global_step"


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Name → value of each row; a picture is a dict."""
    wandb.teardown()  # waits until the file is closed
    rows = []
    for record in _read_records(next(folder.glob("*.wandb"))):
        row: dict[str, Any] = {}
        for item in record.history.item:
            name, *field = item.nested_key or [item.key]
            value = json.loads(item.value_json)
            if field:
                row.setdefault(name, {})[field[0]] = value
            else:
                row[name] = value
        if row:
            rows.append(row)
    return rows


def read_pictures(folder: Path) -> list[tuple[str, int, dict[str, Any]]]:
    """(name, step, value) of each picture, by name."""
    found = [(name, row[STEP], each) for row in read_history(folder) for name, each in row.items()]
    return sorted((each for each in found if each[0].startswith("report/")), key=lambda each: each[:2])
