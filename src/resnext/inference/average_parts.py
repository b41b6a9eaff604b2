"""Finds the checkpoints to average: kept ones of one run, or the best one of several runs. Imports no torch."""

from pathlib import Path
from typing import NamedTuple

from resnext.errors import UserError
from resnext.run.directory import Run
from resnext.run.kept_checkpoints import find_kept
from resnext.run.metrics import read_rows
from resnext.run.run_files import find_checkpoint
from resnext.terminal import pluralize


class Part(NamedTuple):
    """A checkpoint of `run`; `name` is short, for messages."""

    name: str
    run: Run
    path: Path


def find_parts(runs: list[Run], *, last: int | None = None, best: int | None = None, raw: bool = False) -> list[Part]:
    """The best.ckpt of several runs, in their order, or kept checkpoints of one run, in the order of the epochs.

    Args:
        last: take only this number of kept checkpoints, the newest.
        best: take only this number, those with the highest validation accuracy in metrics.csv.
        raw: for `best`, compare the accuracy of the trained weights even if the run has an EMA.

    Raises:
        UserError: if there are fewer than two, or fewer than `last` or `best`.
    """
    if len(runs) > 1:
        return _find_best_of(runs, chosen=last or best)
    (run,) = runs
    kept = find_kept(run.checkpoints)
    if not kept:
        raise UserError(
            f"{run.path} has no kept checkpoints: train with checkpoint.keep_every_epochs=1, or give several runs"
        )
    wanted = last or best or max(2, len(kept))
    if wanted < 2:
        raise UserError("an average needs at least two checkpoints: give 2 or more")
    if wanted > len(kept):
        raise UserError(
            f"{run.path} has {pluralize(len(kept), 'kept checkpoint')}, and {wanted} are needed: choose a smaller "
            "number, or train more epochs"
        )
    epochs = _best_epochs(run, list(kept), raw=raw)[:wanted] if best else list(kept)[-wanted:]
    return [Part(kept[epoch].stem, run, kept[epoch]) for epoch in sorted(epochs)]


def _find_best_of(runs: list[Run], chosen: int | None) -> list[Part]:
    if chosen is not None:
        raise UserError("--last and --best choose checkpoints of one run; of several runs, best.ckpt is taken")
    places = [run.path.resolve() for run in runs]
    for run, place in zip(runs, places, strict=True):
        if places.count(place) > 1:
            raise UserError(f"{run.path} is given twice: give each run once")
    return [Part(str(run.path), run, find_checkpoint(run.path, "best")) for run in runs]


def _best_epochs(run: Run, epochs: list[int], *, raw: bool) -> list[int]:
    """`epochs` by their accuracy in metrics.csv, the highest first; of equal ones, the first."""
    metric, path = "val/top1" if raw else run.config.recipe.best_by, run.path / "metrics.csv"
    scores = {int(row["epoch"]): float(row[metric]) for row in read_rows(path) if row.get(metric)}
    if missing := [epoch for epoch in epochs if epoch not in scores]:
        raise UserError(f"{path} has no {metric} of epoch {missing[0]}: give --last N instead of --best N")
    return sorted(epochs, key=lambda epoch: -scores[epoch])
