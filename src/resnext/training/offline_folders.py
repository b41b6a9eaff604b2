"""W&B's offline folders of a run: those that another one makes redundant are removed.

Each offline start keeps the whole run again, so that one `wandb sync` sends it all. If all folders stayed, they would
grow with the square of the number of starts.
"""

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

# What every start writes by itself. Anything else is the user's, and keeps its folder.
FILES = ("config.yaml", "requirements.txt", "conda-environment.yaml", "wandb-*.json", "diff*.patch")
RECORDS = (
    *("header", "run", "environment", "telemetry", "metric", "files"),
    *("config", "history", "summary", "stats", "exit"),
)
STEP = "trainer/global_step"  # as WandbLogger names it

HEADER_BYTES, BLOCK_BYTES = 7, 32768  # of a .wandb file: github.com/google/leveldb/blob/main/doc/log_format.md
PADDING, FULL, LAST = 0, 1, 4

Record: Any = wandb_internal_pb2.Record  # pyright: ignore[reportAttributeAccessIssue] - made by protobuf at import
Spans = dict[str, tuple[int, int]]  # for each value that was logged: its first and its last step


def remove_redundant_folders(current: Path, wandb_id: str) -> None:
    """Removes the offline folders beside `current` whose values another one of them holds too.

    `current` counts as neither: if this start is killed early, it holds less than the start before.
    """
    folders = [path for path in sorted(current.parent.glob(f"offline-run-*-{wandb_id}*")) if path != current]
    found = {path: spans for path in folders if (spans := _read_spans(path)) is not None}
    for path, spans in list(found.items()):  # the oldest first: of two equal ones the newer stays
        if any(_covers(other, spans) for each, other in found.items() if each != path):
            shutil.rmtree(path, ignore_errors=True)
            del found[path]


def _covers(whole: Spans, part: Spans) -> bool:
    return all(key in whole and whole[key][0] <= first and last <= whole[key][1] for key, (first, last) in part.items())


def _read_spans(folder: Path) -> Spans | None:
    """None if the folder holds more than values, or cannot be read."""
    if not all(any(map(path.match, FILES)) for path in (folder / "files").rglob("*")):
        return None
    spans, summary = Spans(), set[str]()
    try:
        for record in (record for path in folder.glob("*.wandb") for record in _read_records(path)):
            if record.WhichOneof("record_type") not in RECORDS:
                return None
            _extend(spans, record.history)
            summary |= {_name(item) for item in record.summary.update}
    except Exception:  # whatever a damaged file brings about, or one of another version of W&B
        return None
    return dict.fromkeys(summary, (0, 0)) | spans  # what was never logged, only set


def _extend(spans: Spans, history: Any) -> None:
    values = {_name(item): item.value_json for item in history.item}
    step = int(values[STEP]) if values else 0
    for key in values:
        first, last = spans.get(key, (step, step))
        spans[key] = (min(first, step), max(last, step))


def _name(item: Any) -> str:
    return item.key or "/".join(item.nested_key)


def _read_records(path: Path) -> Iterator[Any]:
    """The whole records; a killed process leaves half a record at the end.

    Raises:
        ValueError: if this is not such a file.
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
