"""compare(one, other): are two runs the same, bit for bit; and if not, where first and by how much."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from resnext.errors import UserError
from resnext.models.weights import EMA_KEY
from resnext.training.checkpoint import LAST, load_checkpoint
from resnext.training.csv_logger import Row, read_rows
from resnext.training.run import Run


class Part(NamedTuple):
    """What was compared, whether it is the same, and what a reader is told."""

    name: str
    same: bool
    text: str


def compare(one: Run, other: Run) -> list[Part]:
    """metrics.csv, and of last.ckpt the position, weights, EMA and optimizer.

    Raises:
        UserError: if a run has no last.ckpt, or a damaged one.
    """
    checkpoints = [_load(run) for run in (one, other)]
    metrics = [read_rows(run.path / "metrics.csv") for run in (one, other)]
    parts = {
        "position": [{"step": each["global_step"], "validated": each["validated"]} for each in checkpoints],
        "weights": [each["state_dict"] for each in checkpoints],
        "EMA": [each.get(EMA_KEY, {}) for each in checkpoints],
        "optimizer": [each["optimizer_states"] for each in checkpoints],
    }
    return [_compare_rows(*metrics), *(_compare_trees(name, *trees) for name, trees in parts.items())]


def _load(run: Run) -> dict[str, Any]:
    path = run.checkpoints / LAST
    if not path.exists():
        raise UserError(f"{path} does not exist: the run is {run.summary['status']} and has not written it")
    return load_checkpoint(path)


def _compare_rows(ours: list[Row], theirs: list[Row]) -> Part:
    """Values are written so that equal text means equal bits."""
    for one, other in zip(ours, theirs, strict=False):
        for column in one | other:
            mine, his = one.get(column, ""), other.get(column, "")
            if mine != his:
                where = f"step {one['step']} (epoch {one['epoch']}), {column}"
                return Part("metrics.csv", False, f"first at {where}: {_describe(_number(mine), _number(his))}")
    if len(ours) != len(theirs):
        return Part("metrics.csv", False, f"{len(ours)} and {len(theirs)} rows, the same as far as both go")
    return Part("metrics.csv", True, f"{len(ours)} rows")


def _compare_trees(name: str, ours: Any, theirs: Any) -> Part:
    one, other = dict(_leaves(ours)), dict(_leaves(theirs))
    differ = [key for key in one | other if not _is_same(one.get(key), other.get(key))]
    if not differ:
        return Part(name, True, f"{len(one)} values" if one else "none")
    first = differ[0]
    text = f"{len(differ)} of {len(one | other)}, the first {first}: {_describe(one.get(first), other.get(first))}"
    return Part(name, False, text)


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in nested dicts and lists, under its dotted name."""
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
