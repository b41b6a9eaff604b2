"""Compares two runs: whether they are bit-identical, and if not, where they first differ and by how much."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from resnext.models.weights import EMA_KEY
from resnext.run.directory import Run
from resnext.run.identity import check_mark
from resnext.run.metrics import Row, describe_lost, find_lost, read_rows
from resnext.run.run_files import find_checkpoint
from resnext.runtime.checkpoint import BEST, load_checkpoint, parse_checkpoint
from resnext.terminal import pluralize


class Part(NamedTuple):
    """One compared part of two runs: its name, whether it is the same, and a text for the user."""

    name: str
    same: bool
    text: str


def compare(one: Run, other: Run) -> list[Part]:
    """Compares metrics.csv, best.ckpt, and the position, weights, EMA and optimizer in last.ckpt.

    Raises:
        UserError: if a run has no last.ckpt, or a file is damaged or belongs to another run. A checkpoint that does not
            name its run only causes a warning.
    """
    checkpoints = [_load_last(run) for run in (one, other)]
    bests = [_load_best(run) for run in (one, other)]
    parts = {
        "position": [{"step": each["global_step"], "validated": each["validated"]} for each in checkpoints],
        "weights": [each["state_dict"] for each in checkpoints],
        "EMA": [each.get(EMA_KEY, {}) for each in checkpoints],
        "optimizer": [each["optimizer_states"] for each in checkpoints],
        BEST: [{name: each[name] for name in ("best", "state_dict", EMA_KEY) if name in each} for each in bests],
    }
    metrics = _compare_rows(*(read_rows(run.path / "metrics.csv") for run in (one, other)))
    if metrics.same:
        metrics = _find_damage(one, checkpoints[0]) or metrics
    return [metrics, *(_compare_trees(name, *trees) for name, trees in parts.items())]


def _load_last(run: Run) -> dict[str, Any]:
    return _load(run, find_checkpoint(run.path, "last"))


def _load_best(run: Run) -> dict[str, Any]:
    """The content of best.ckpt; empty before the first validation."""
    path = run.checkpoints / BEST
    return _load(run, path) if path.exists() else {}


def _load(run: Run, path: Path) -> dict[str, Any]:
    content = load_checkpoint(path)
    parse_checkpoint(path, content)  # raises if the content is wrong
    check_mark(path, content, run.mark, required=False)
    return content


def _find_damage(run: Run, last: dict[str, Any]) -> Part | None:
    """A difference if metrics.csv lacks rows that `last` has, even if both runs have lost the same rows."""
    path = run.path / "metrics.csv"
    if not (lost := find_lost(path, last.get("metrics", ""))):
        return None
    return Part("metrics.csv", False, f"{path} has lost or changed rows of its last.ckpt: {describe_lost(lost)}")


def _compare_rows(ours: list[Row], theirs: list[Row]) -> Part:
    """Compares the values as text: CsvLogger writes equal text only for equal bits."""
    for one, other in zip(ours, theirs, strict=False):
        for column in one | other:
            text, other_text = one.get(column, ""), other.get(column, "")
            if text != other_text:
                where = f"step {one['step']} (epoch {one['epoch']}), {column}"
                return Part("metrics.csv", False, f"first at {where}: {_describe(_number(text), _number(other_text))}")
    if len(ours) != len(theirs):
        counts = f"{pluralize(len(ours), 'row')} and {pluralize(len(theirs), 'row')}"
        return Part("metrics.csv", False, f"{counts}; the common rows are the same")
    return Part("metrics.csv", True, pluralize(len(ours), "row"))


def _compare_trees(name: str, ours: Any, theirs: Any) -> Part:
    one, other = dict(_leaves(ours)), dict(_leaves(theirs))
    differ = [key for key in one | other if not _is_same(one.get(key), other.get(key))]
    if not differ:
        return Part(name, True, f"{len(one)} values" if one else "none")
    first = differ[0]
    text = f"{len(differ)} of {len(one | other)}, the first {first}: {_describe(one.get(first), other.get(first))}"
    return Part(name, False, text)


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in nested dicts and lists, with its dotted name."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else None
    if items is None:
        yield path, tree
        return
    for key, value in items:
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(_bits(one), _bits(other))
    return type(one) is type(other) and bool(one == other or (one != one and other != other))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _describe(one: Any, other: Any) -> str:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.shape != other.shape:
            return f"{list(one.shape)} and {list(other.shape)}"
        return f"by {float((one.double() - other.double()).abs().max()):.2g} at most"
    if isinstance(one, float) and isinstance(other, float) and math.isfinite(one - other):
        return f"{one:.9g} and {other:.9g}, by {abs(one - other):.2g}"
    shown = [
        "missing" if value is None else "a tensor" if isinstance(value, Tensor) else value for value in (one, other)
    ]
    return f"{shown[0]} and {shown[1]}"


def _number(text: str) -> float | None:
    return float(text) if text else None
