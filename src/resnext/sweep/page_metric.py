"""The metric of a sweep's page: its name, and its values with their unit."""

import math
from typing import NamedTuple

from resnext.run.directory import Run
from resnext.run.run_files import is_run
from resnext.sweep.families import find_scale
from resnext.sweep.result import Result


class Metric(NamedTuple):
    """A column of metrics.csv. An accuracy is shown in percent."""

    name: str

    @property
    def scale(self) -> float:
        return find_scale(self.name)

    @property
    def label(self) -> str:
        return f"{self.name}, %" if self.scale != 1 else self.name

    def shown(self, value: float | None, *, sign: str = "") -> str:
        """The value with its unit; empty if there is none."""
        if value is None or math.isnan(value):
            return ""
        return f"{sign}{100 * value:.2f} %" if self.scale != 1 else f"{sign}{value:.4f}"


def find_metric(result: Result) -> Metric:
    """The metric that the trials are compared by: sweep.metric, else that of the first run that can be read."""
    if result.config.metric is not None:
        return Metric(result.config.metric)
    for run in (run for trial in result.trials for run in trial.runs if is_run(run.path) and not run.damage):
        try:
            return Metric(Run(run.path).config.recipe.best_by)
        except (ValueError, OSError):
            continue
    return Metric("value")
