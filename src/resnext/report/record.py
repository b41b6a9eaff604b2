"""RunRecord: what a report reads of a run. Each part is read when a section first needs it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from resnext.config.data import register_ours
from resnext.config.schema import Config
from resnext.data.images import load_images
from resnext.data.index import ImageIndex, identify_data
from resnext.data.sampler import steps_per_epoch
from resnext.errors import UserError
from resnext.run.directory import Run
from resnext.run.metrics import Row, find_best, read_rows

SPEED, WAIT = "perf/images_per_sec", "perf/data_wait_percent"


class Images(NamedTuple):
    train: ImageIndex
    val: ImageIndex


@dataclass(frozen=True)
class RunRecord:
    """Each part raises UserError or OSError if its file is damaged or missing."""

    run: Run

    @property
    def name(self) -> str:
        return self.run.path.absolute().name

    @cached_property
    def config(self) -> Config:
        return self.run.config

    @cached_property
    def summary(self) -> dict[str, Any]:
        return self.run.summary

    @cached_property
    def info(self) -> dict[str, Any]:
        return self.run.info

    @property
    def starts(self) -> list[dict[str, Any]]:
        return self.info["starts"]

    @cached_property
    def metrics(self) -> list[Row]:
        return read_rows(self.run.path / "metrics.csv")

    @cached_property
    def speeds(self) -> list[Row]:
        return read_rows(self.run.path / "perf.csv")

    @property
    def validations(self) -> list[Row]:
        return [row for row in self.metrics if row.get("val/top1")]

    @property
    def state(self) -> str:
        """The status; `died` if it is running, but its process has stopped without writing another status."""
        status = self.summary["status"]
        return "died" if status == "running" and not self.run.lock().is_beating() else status

    @cached_property
    def images(self) -> Images:
        """The images of the run. Raises UserError if they are missing or have changed."""
        data = self.config.data
        if data.name in register_ours and not Path(data.root).is_dir():  # else loading would write the digits
            raise UserError(f"the images are not in data.root={data.root}")
        images = Images(*load_images(data))
        if identify_data(*images) != self.run.data_identity:
            raise UserError(f"the images in data.root={data.root} are not those of this run any more")
        return images

    @cached_property
    def steps_per_epoch(self) -> float:
        """Exact from the second epoch on, or with the images; else from the planned steps."""
        rows = [(int(row["step"]), int(row["epoch"])) for row in self.metrics if row["epoch"] not in ("", "0")]
        if rows and rows[-1][1] > 1:  # the last step of an epoch is always logged
            return max(step / epoch for step, epoch in rows)
        try:
            return steps_per_epoch(len(self.images.train), self.config.recipe.batch_size)
        except (UserError, OSError):
            return max(1.0, (self.run.planned_steps or 1) / self.config.recipe.epochs)

    @property
    def start_epochs(self) -> list[float]:
        """Where each start began, in epochs."""
        return [start.get("from_step", 0) / self.steps_per_epoch for start in self.starts]

    def speed_of_starts(self) -> Iterator[float | None]:
        """The median of the measured images per second of each start; None if there is no measurement."""
        edges = [*(start.get("from_step", 0) for start in self.starts), math.inf]
        for first, end in pairwise(edges):
            found = [float(row[SPEED]) for row in self.speeds if first < int(row["step"]) <= end and row.get(SPEED)]
            yield median(found) if found else None

    @property
    def images_per_sec(self) -> float | None:
        """Of the last epoch if summary.json has it, else of the newest start that has a measurement."""
        measured = [speed for speed in self.speed_of_starts() if speed is not None]
        return self.summary.get("images_per_sec") or next(reversed(measured), None)

    @property
    def best(self) -> Row | None:
        """The best validation by the metric that chooses best.ckpt."""
        by = self.config.recipe.best_by
        return find_best([row for row in self.validations if row.get(by)], by)

    def trained_seconds(self) -> float | None:
        """The time of the measured steps and of the saves, without validations; None without a measurement."""
        rows = [{"step": 0}, *(row for row in self.speeds if float(row.get(SPEED) or 0) > 0)]
        batch = self.config.recipe.batch_size
        seconds = [(int(b["step"]) - int(a["step"])) * batch / float(b[SPEED]) for a, b in pairwise(rows)]
        return sum(seconds) if seconds else None
