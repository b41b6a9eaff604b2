"""The metric of each trial over the value of a key, or over the points of a family."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from resnext.report.html import Html, printable, shorten, tag
from resnext.report.plots import INK, MUTED, SERIES, check_available, figure, grid, render
from resnext.sweep.page_metric import Metric
from resnext.sweep.result import Result
from resnext.sweep.space import POINT
from resnext.sweep.table import short_names, spread
from resnext.sweep.trial import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ALL, BEST = SERIES[0], SERIES[1]
TEXT = 16  # characters of a label on an axis
INCHES = 0.085  # a character of a family's name
CATEGORIES = 24  # with their names on the axis


def plot_slices(result: Result, metric: Metric) -> Html:
    """A plot for each key: its value, and the metric of each trial with this value. Failed trials have none."""
    check_available("a plot")
    recorded = result.study.get_trials(deepcopy=False)
    distributions = {key: each for trial in recorded for key, each in trial.distributions.items()}
    names = short_names([*distributions])
    return grid(*(_slice(result, metric, key, names[key], each) for key, each in distributions.items()))


def _slice(result: Result, metric: Metric, key: str, name: str, distribution: BaseDistribution) -> Html:
    trials = [trial for trial in result.trials if key in trial.params and trial.state != "failed"]
    trials = [trial for trial in trials if trial.value is not None]
    categories = _categories(distribution)

    def draw(axes: "Axes") -> None:
        for trial in trials:
            x = categories.index(str(trial.params[key])) if categories else trial.params[key]
            _point(axes, x, trial, result, metric)
        if categories:
            _name_categories(axes, categories)
        elif getattr(distribution, "log", False):
            _set_log(axes)
        axes.set_xlabel(printable(name))
        axes.set_ylabel(metric.label)

    return figure(key, render(draw, width=4.0, height=2.5))


def _categories(distribution: BaseDistribution) -> list[str]:
    """The choices, numbers in ascending order; none of a distribution of numbers."""
    if not isinstance(distribution, CategoricalDistribution):
        return []
    choices = [str(each) for each in distribution.choices]
    try:
        return sorted(choices, key=float)
    except ValueError:
        return choices


def _point(axes: "Axes", x: float, trial: Trial, result: Result, metric: Metric) -> None:
    """A filled circle; hollow if the trial is not complete. With several seeds, a bar of one standard deviation."""
    is_best, is_complete = trial is result.best, trial.state == "complete"
    color = (BEST if is_best else ALL) if is_complete else MUTED
    std = spread(trial, result.config.direction)
    bar = metric.scale * std if std is not None and math.isfinite(std) else None
    face = color if is_complete else "none"
    dot = {"fmt": "o", "color": color, "markerfacecolor": face, "markersize": 5.5 if is_best else 4.5}
    axes.errorbar(x, metric.scale * (trial.value or 0), yerr=bar, capsize=2.5, elinewidth=1, **dot)


def _name_categories(axes: "Axes", categories: Sequence[str]) -> None:
    step = math.ceil(len(categories) / CATEGORIES)
    names = [shorten(printable(each), TEXT) for each in categories[::step]]
    is_long = sum(len(each) + 2 for each in names) > 44
    axes.set_xticks(range(0, len(categories), step), names, rotation=90 if is_long else 0)
    axes.set_xlim(-0.5, len(categories) - 0.5)


def _set_log(axes: "Axes") -> None:
    """Labels as 0.01: the default ones, powers of ten, need matplotlib's own layout of mathematics."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    if high < 100 * low:
        axes.xaxis.get_major_locator().set_params(subs=(1, 2, 5))  # pyright: ignore[reportCallIssue]
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")


def plot_families(result: Result, metric: Metric) -> Html:
    """The families of sweep.points beside each other on one y axis, each over its labels in the given order."""
    check_available("a plot")
    found = {trial.params.get(POINT): trial for trial in result.trials if trial.value is not None}
    families = result.config.points
    widths = [max(0.42 * len(labels), INCHES * len(family)) + 0.35 for family, labels in families.items()]

    def draw(axes: "Axes") -> None:
        ticks: list[tuple[float, str]] = []
        for at, (family, labels) in enumerate(families.items()):
            left = sum(widths[:at])
            places = [left + widths[at] * (each + 0.5) / len(labels) for each in range(len(labels))]
            ticks += zip(places, labels, strict=True)
            trials = [found.get(f"{family} {label}") for label in labels]
            _family(axes, places, trials, result, metric)
            _name_family(axes, family, left, widths[at])
        _name_labels(axes, ticks)
        axes.set_xlim(0, sum(widths))
        axes.set_ylabel(metric.label)

    return _wide(metric.label, draw, 0.7 + sum(widths))


def _family(
    axes: "Axes", places: Sequence[float], trials: Sequence[Trial | None], result: Result, metric: Metric
) -> None:
    pairs = [(x, trial) for x, trial in zip(places, trials, strict=True) if trial and trial.state != "failed"]
    line = [(x, metric.scale * (trial.value or 0)) for x, trial in pairs if trial.state == "complete"]
    axes.plot([x for x, _ in line], [y for _, y in line], color=ALL, linewidth=1.2)
    for x, trial in pairs:
        _point(axes, x, trial, result, metric)


def _name_family(axes: "Axes", family: str, left: float, width: float) -> None:
    if left:
        axes.axvline(left, color=MUTED, linewidth=0.6)
    place: Any = axes.get_xaxis_transform()
    axes.text(left + width / 2, 1.02, printable(family), transform=place, ha="center", va="bottom", color=INK)


def _name_labels(axes: "Axes", ticks: Sequence[tuple[float, str]]) -> None:
    names = [shorten(printable(name), TEXT) for _, name in ticks]
    axes.set_xticks([x for x, _ in ticks], names, rotation=90 if max(map(len, names), default=0) > 4 else 0)
    axes.grid(visible=False, axis="x")


def _wide(title: str, draw: Callable[["Axes"], None], inches: float) -> Html:
    """A plot that scrolls in its own width on a phone."""
    inches = max(3.0, inches)
    svg = render(draw, width=inches, height=3.0)
    width = f'<svg style="max-width: {100 * inches:.0f}px; min-width: {72 * inches:.0f}px"'  # text as in other plots
    return tag("div", figure(title, Html(svg.replace("<svg", width, 1)), class_="wide"))
