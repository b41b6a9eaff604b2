"""Removes W&B's offline folders of a run that another folder makes redundant.

Each offline start stores the whole run again, so that one `wandb sync` sends the whole run. If all folders stayed,
their size would grow with the square of the number of starts. Only the system metrics (`stats` records) of a removed
folder are lost: no other folder holds them.
"""

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

# Files that W&B writes at every start. Any other file is the user's, and its folder is kept.
# The pictures of an evaluation are in one folder only (report/sent_pictures.py).
FILES = (
    *("config.yaml", "requirements.txt", "conda-environment.yaml", "wandb-*.json", "diff*.patch"),
    *("report/first_batch_*", "report/validation_*"),
)
RECORDS = (
    *("header", "run", "environment", "telemetry", "metric", "files"),
    *("config", "history", "summary", "stats", "exit"),
)
STEP = "trainer/global_step"  # as WandbLogger names it

HEADER_BYTES, BLOCK_BYTES = 7, 32768  # of a .wandb file: github.com/google/leveldb/blob/main/doc/log_format.md
PADDING, FULL, LAST = 0, 1, 4

Record: Any = wandb_internal_pb2.Record  # pyright: ignore[reportAttributeAccessIssue] - made by protobuf at import
Steps = dict[str, set[int]]  # for each logged value: its steps


def remove_redundant_folders(current: Path, wandb_id: str) -> None:
    """Removes each offline folder beside `current` if another one holds the same values at every step.

    System metrics are not compared: older offline starts lose them. `current` is neither removed nor compared:
    if this start is killed early, it holds less than the previous start.
    """
    folders = [path for path in sorted(current.parent.glob(f"offline-run-*-{wandb_id}*")) if path != current]
    found = {path: steps for path in folders if (steps := _read_steps(path)) is not None}
    for path, steps in list(found.items()):  # the oldest first: of two equal folders the newer stays
        if any(_covers(other, steps) for each, other in found.items() if each != path):
            shutil.rmtree(path, ignore_errors=True)
            del found[path]


def _covers(whole: Steps, part: Steps) -> bool:
    return all(key in whole and steps <= whole[key] for key, steps in part.items())


def _read_steps(folder: Path) -> Steps | None:
    """The steps of each value in `folder`. None if it holds other content or cannot be read."""
    files = (path for path in (folder / "files").rglob("*") if not path.is_dir())
    if not all(any(map(path.match, FILES)) for path in files):
        return None
    steps, summary = Steps(), set[str]()
    try:
        for record in (record for path in folder.glob("*.wandb") for record in _read_records(path)):
            if record.WhichOneof("record_type") not in RECORDS:
                return None
            _extend(steps, record.history)
            summary |= {_name(item) for item in record.summary.update}
    except Exception:  # any error of a file that is damaged or from another W&B version
        return None
    return {key: {0} for key in summary} | steps  # values that are only in the summary


def _extend(steps: Steps, history: Any) -> None:
    values = {_name(item): item.value_json for item in history.item}
    step = int(values[STEP]) if values else 0
    for key in values:
        steps.setdefault(key, set()).add(step)


def _name(item: Any) -> str:
    return item.key or "/".join(item.nested_key)


def _read_records(path: Path) -> Iterator[Any]:
    """The complete records of a .wandb file; a killed process leaves half a record at the end.

    Raises:
        ValueError: if the file is damaged.
    """
    content, position, parts = path.read_bytes(), HEADER_BYTES, b""
    while position + HEADER_BYTES <= len(content):
        room = BLOCK_BYTES - position % BLOCK_BYTES
        length, kind = struct.unpack_from("<HB", content, position + 4)
        if room < HEADER_BYTES or kind == PADDING:
            position += room
            continue
        if kind > LAST:
            raise ValueError(f"{path} is damaged")
        position += HEADER_BYTES
        parts += content[position : position + length]
        position += length
        if kind in (FULL, LAST):
            yield Record.FromString(parts)
            parts = b""
