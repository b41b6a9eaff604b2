"""The plots of a sweep's page: learning curves, the metric over each key, and families of points."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from optuna.distributions import BaseDistribution, CategoricalDistribution

from resnext.report.html import Html, printable, shorten, tag
from resnext.report.plots import INK, MUTED, SERIES, check_available, figure, grid, render, thin, variable
from resnext.run.directory import Run
from resnext.run.run_files import is_run
from resnext.sweep.result import Result
from resnext.sweep.space import POINT
from resnext.sweep.table import short_names, shown_params, spread
from resnext.sweep.trial import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEST, OTHERS, OPEN = 1, 0, 2  # colours, if there are more trials than colours
PERCENT = ("top1", "top5")
TEXT = 16  # characters of a label on an axis
INCHES = 0.085  # a character of a family's name
CATEGORIES = 24  # with their names on the axis


class Metric(NamedTuple):
    """A column of metrics.csv. An accuracy is shown in percent."""

    name: str

    @property
    def scale(self) -> float:
        return 100.0 if self.name.rpartition("/")[2] in PERCENT else 1.0

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


def mean_curve(trial: Trial) -> dict[int, float]:
    """The mean over the seeds, at the epochs that all seeds have."""
    curves = [run.curve for run in trial.runs]
    shared = sorted(set(curves[0]).intersection(*curves[1:])) if curves else []
    return {epoch: sum(curve[epoch] for curve in curves) / len(curves) for epoch in shared}


def plot_curves(result: Result, metric: Metric) -> Html:
    """A line for each trial that has not failed: complete ones solid, pruned ones dashed up to a cross.

    Args:
        result: must have a trial with a curve.
    """
    check_available("a plot")
    best = result.best
    curves = [(trial, mean_curve(trial)) for trial in result.trials if trial.state != "failed"]
    curves = [(trial, curve) for trial, curve in curves if curve]
    colors = _colors([trial for trial, _ in curves if trial.state != "pruned"], best)

    def draw(axes: "Axes") -> None:
        for rung in find_marks(result):
            axes.axvline(rung, color=MUTED, linewidth=0.8, linestyle=":")
        for trial, curve in curves:
            x, y = thin([*curve], [metric.scale * value for value in curve.values()])
            style = _line_style(trial, colors.get(trial.number, OTHERS), trial is best, len(colors) > len(SERIES))
            axes.plot(x, y, markersize=4, **({"marker": "o"} if len(x) == 1 else {}) | style)
        axes.set_xlabel("epoch")

    legend = _legend([trial for trial, _ in curves], colors, best)
    return grid(figure(metric.label, render(draw, height=3.2), legend))


def find_marks(result: Result) -> list[int]:
    """The epochs at which the pruner decides."""
    if result.config.pruner == "none":
        return []
    return sorted({rung for trial in result.trials for rung in trial.rungs[:-1]})


def _colors(trials: Sequence[Trial], best: Trial | None) -> dict[int, int]:
    """Trial → number of its colour: one for each of a few trials; of many, one for each state."""
    if len(trials) <= len(SERIES):
        return {trial.number: style for style, trial in enumerate(trials)}
    return {
        trial.number: BEST if trial is best else OTHERS if trial.state == "complete" else OPEN for trial in trials
    }


def _line_style(trial: Trial, style: int, is_best: bool, is_crowded: bool) -> dict[str, Any]:
    if trial.state == "pruned":
        return {"color": MUTED, "linestyle": "--", "linewidth": 0.9, "marker": "x", "markevery": [-1]}
    if is_best:
        return {"color": SERIES[style], "linewidth": 2.8, "zorder": 3}
    return {"color": SERIES[style], "linewidth": 1.1 if is_crowded else 1.4, "alpha": 0.55 if is_crowded else 1}


def _legend(trials: Sequence[Trial], colors: dict[int, int], best: Trial | None) -> list[tuple[str, str]]:
    pruned = [("pruned", "muted")] if any(trial.state == "pruned" for trial in trials) else []
    if len(colors) > len(SERIES):
        names = {BEST: f"best, trial {best.number}" if best else "", OTHERS: "complete", OPEN: "open"}
        return [(name, variable(style)) for style, name in names.items() if style in colors.values()] + pruned
    shown = [trial for trial in trials if trial.number in colors]
    return [(_name(trial, trial is best), variable(colors[trial.number])) for trial in shown] + pruned


def _name(trial: Trial, is_best: bool) -> str:
    return f"{trial.number}{' (best)' if is_best else ''}: {shorten(shown_params(trial), 40)}"


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


def _point(axes: "Axes", x: float, trial: Trial, result: Result, metric: Metric, *, style: int = OTHERS) -> None:
    """A filled circle; hollow if the trial is not complete. With several seeds, a bar of one standard deviation."""
    is_best, is_complete = trial is result.best, trial.state == "complete"
    color = SERIES[BEST if is_best else style] if is_complete else MUTED
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
    axes.plot([x for x, _ in line], [y for _, y in line], color=SERIES[OTHERS], linewidth=1.2)
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
