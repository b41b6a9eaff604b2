"""The learning curves of a sweep's page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from resnext.report.html import Html, shorten
from resnext.report.plots import MUTED, SERIES, check_available, figure, grid, render, thin, variable
from resnext.sweep.page_metric import Metric
from resnext.sweep.result import Result
from resnext.sweep.table import shown_params
from resnext.sweep.trial import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEST, OTHERS, OPEN = 1, 0, 2  # colours, if there are more trials than colours


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
            marker = style.pop("marker", "o" if len(x) == 1 else None)
            axes.plot(x, y, marker=marker, markersize=4, **style)
        axes.xaxis.get_major_locator().set_params(integer=True)  # pyright: ignore[reportCallIssue]
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
    return {trial.number: BEST if trial is best else OTHERS if trial.state == "complete" else OPEN for trial in trials}


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
