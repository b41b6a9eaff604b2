"""Families of a sweep over named points: accuracy with its spread, cost, and which differences the seeds support."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from scipy import stats

from resnext.config.schema import Config
from resnext.config.sweep import SweepConfig
from resnext.files import read_text
from resnext.run.directory import Run
from resnext.run.run_files import write_json
from resnext.sweep.costs import BATCH, Cost, count_costs, measure_costs
from resnext.sweep.space import POINT
from resnext.sweep.table import plain_table
from resnext.sweep.trial import Trial

COSTS = "costs.json"
CONFIDENCE = 0.95
PERCENT = ("top1", "top5")
NO_DIFFERENCE = "contains 0: the seeds do not show a difference"


@dataclass(frozen=True)
class Member:
    """A complete trial of a family. `values`: the metric of each seed, an accuracy in percent."""

    family: str
    label: str
    values: list[float]
    cost: Cost

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def name(self) -> str:
        return f"{self.family} {self.label}"


class Difference(NamedTuple):
    """The difference of two means and its interval by Welch's t, which does not assume equal variances."""

    points: float
    low: float
    high: float

    @property
    def exceeds_spread(self) -> bool:
        return self.low > 0 or self.high < 0


def find_members(folder: Path, config: SweepConfig, trials: Sequence[Trial]) -> list[Member]:
    """The complete trials in the order of `config.points`, with their costs; a step's time only if it was measured."""
    complete = _find_complete(trials)
    kept = _read_costs(folder)
    missing = {name: trial for name, trial in complete.items() if name not in kept}
    costs = kept | (count_costs(*_networks(missing)) if missing else {})
    scale = find_scale(config.metric)
    return [
        Member(
            family,
            label,
            [scale * run.best(trial.rungs[-1], config.direction) for run in trial.runs],
            costs[trial.params[POINT]],
        )
        for family, labels in config.points.items()
        for label in labels
        if (trial := complete.get(f"{family} {label}")) is not None
    ]


def keep_costs(folder: Path, trials: Sequence[Trial]) -> None:
    """Measures the networks of all complete trials in turn, once, and keeps the result in costs.json."""
    complete = _find_complete(trials)
    if complete and set(complete) != set(_read_costs(folder)):
        measured = measure_costs(*_networks(complete))
        write_json(folder / COSTS, {name: cost._asdict() for name, cost in measured.items()})


def find_scale(metric: str | None) -> float:
    """100 for an accuracy, which is shown in percent; None is the recipe's own, which is one."""
    return 100.0 if metric is None or metric.rpartition("/")[2] in PERCENT else 1.0


def compare(one: Member, other: Member) -> Difference | None:
    """`one` minus `other`; None with fewer than two seeds."""
    if len(one.values) < 2 or len(other.values) < 2:
        return None
    if len({*one.values, *other.values}) == 1:
        return Difference(0.0, 0.0, 0.0)
    interval = stats.ttest_ind(one.values, other.values, equal_var=False).confidence_interval(CONFIDENCE)
    return Difference(one.mean - other.mean, float(interval.low), float(interval.high))


def conclusions(members: Sequence[Member], direction: str = "maximize") -> list[str]:
    """What came out, a sentence each: the best of each family beside the first of all, and the families' best."""
    if not members:
        return []
    families = dict.fromkeys(member.family for member in members)
    pick = max if direction == "maximize" else min
    best = {
        name: pick((each for each in members if each.family == name), key=lambda each: each.mean) for name in families
    }
    first, (leading, *others) = members[0], best.values()
    parameters = [member.cost.parameters for member in members]
    spread = 100 * (max(parameters) / min(parameters) - 1)
    said = [f"The networks have {min(parameters):,} to {max(parameters):,} parameters: they differ by {spread:.2g} %."]
    pairs = [(each, first) for each in best.values() if each is not first] + [(leading, each) for each in others]
    return said + [_say(*pair) for pair in pairs]


def member_rows(members: Sequence[Member]) -> list[list[str]]:
    """A table: the head and a row for each member."""
    head = ["network", "mean", "± std", "n", "parameters", "MACs", f"ms for {BATCH} images"]
    return [head, *(_row(member) for member in members)]


def member_lines(members: Sequence[Member]) -> list[str]:
    return plain_table(member_rows(members))


def _row(member: Member) -> list[str]:
    macs = "-" if member.cost.macs is None else f"{member.cost.macs / 1e6:.1f} M"
    std = "-" if member.std is None else f"{member.std:.2f}"
    count, step = f"{member.cost.parameters:,}", f"{member.cost.step_ms:.1f}" if member.cost.step_ms else "-"
    return [member.name, f"{member.mean:.2f}", std, str(len(member.values)), count, macs, step]


def _say(one: Member, other: Member) -> str:
    difference = compare(one, other)
    said = f"{one.name} ({one.mean:.2f}) and {other.name} ({other.mean:.2f})"
    if difference is None:
        return f"{said} have one seed each: nothing can be said about their difference of {one.mean - other.mean:+.2f}."
    verdict = "does not contain 0: the seeds show a difference" if difference.exceeds_spread else NO_DIFFERENCE
    interval = f"{difference.low:+.2f} to {difference.high:+.2f}"
    return f"{said} differ by {difference.points:+.2f}. The 95 % interval, {interval}, {verdict}."


def _find_complete(trials: Sequence[Trial]) -> dict[str, Trial]:
    """Point → its complete trial; without trials whose runs are damaged or gone."""
    complete = [trial for trial in trials if trial.state == "complete"]
    return {trial.params[POINT]: trial for trial in complete if all(run.curve for run in trial.runs)}


def _networks(complete: Mapping[str, Trial]) -> tuple[dict[str, Config], int]:
    """Point → its configuration, and the number of classes."""
    runs = {name: Run(trial.runs[0].path) for name, trial in complete.items()}
    return {name: run.made for name, run in runs.items()}, len(next(iter(runs.values())).data_identity.classes)


def _read_costs(folder: Path) -> dict[str, Cost]:
    path = folder / COSTS
    return {name: Cost(**each) for name, each in json.loads(read_text(path)).items()} if path.is_file() else {}
