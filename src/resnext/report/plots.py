"""Plots as SVG, by matplotlib. The only module that imports it.

A plot of a page has the page's colours: each colour here is a placeholder, which becomes a CSS variable. So a plot
follows a dark theme. Its text stays text, in the page's font.
"""

import importlib.util
import io
import logging
import math
import re
import warnings
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from resnext.errors import UserError
from resnext.report.html import Html, join, printable, shorten, tag

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID = "#010201", "#010202", "#010203"  # placeholders, which no other colour of a plot has
SERIES = tuple(f"#0103{number:02x}" for number in range(1, 7))
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid"} | {each: f"series-{at}" for at, each in enumerate(SERIES, 1)}
PRINTED = {INK: "#222222", MUTED: "#666666", GRID: "#dddddd", SERIES[0]: "#1f6fb4"}  # in a file of its own
DASHES = ("-", "--", "-.", ":")
SIZE = (4.3, 2.5)  # inches: 310 × 180 units, about the width of a phone
POINTS = 400  # of a line
NEEDED = "needs matplotlib, which is not installed: pip install -e '.[report]' installs it"
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "resnext",
    "text.parse_math": False,
    "font.size": 9,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.linewidth": 1.6,
    "lines.solid_joinstyle": "round",
}


class Line(NamedTuple):
    """One line of a plot. `style` is its number: it selects the colour, and the dashes of the seventh and later."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    style: int = 0


def is_available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def check_available(what: str) -> None:
    """Raises UserError if matplotlib is not installed. `what` is the subject of the message."""
    if not is_available():
        raise UserError(f"{what} {NEEDED}")


def plot_lines(
    title: str, lines: Sequence[Line], x_label: str, marks: Sequence[float] = (), *, from_zero: bool = False
) -> Html:
    """A figure with one or several lines over a common axis, and a dotted vertical line at each of `marks`."""

    def draw(axes: "Axes") -> None:
        for mark in marks:
            axes.axvline(mark, color=MUTED, linewidth=0.8, linestyle=":")
        for line in lines:
            x, y = thin(line.x, line.y)
            few = "o" if len(x) < 3 else None
            dashes = DASHES[line.style // len(SERIES) % len(DASHES)]
            axes.plot(x, y, color=color(line.style), marker=few, markersize=3, linestyle=dashes)
        axes.set_xlabel(x_label)
        if from_zero:
            axes.set_ylim(bottom=0)

    legend = [(line.label, variable(line.style)) for line in lines] if len(lines) > 1 else []
    return figure(title, render(draw), legend)


def plot_bars(title: str, labels: Sequence[str], values: Sequence[float], x_label: str) -> Html:
    """Horizontal bars, the first on top, each with its value."""

    def draw(axes: "Axes") -> None:
        places = range(len(values), 0, -1)
        axes.barh(places, values, color=SERIES[0], height=0.7)
        for place, value in zip(places, values, strict=True):
            text = f"{value:,.0f}" if value == round(value) else f"{value:.1f}"
            axes.annotate(text, (value, place), (3, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_yticks(places, [shorten(printable(label), 20) for label in labels])
        axes.set_ylim(0.4, len(values) + 0.6)
        axes.set_xlim(0, 1.18 * (max(values, default=0) or 1))
        axes.set_xlabel(x_label)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelcolor=INK)

    return figure(title, render(draw, height=0.6 + 0.2 * len(values)))


def plot_matrix(title: str, labels: Sequence[str], counts: np.ndarray) -> Html:
    """Cells with their counts, int [N, N]. Their colour is the share of the row, in steps of a tenth."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = len(labels)

    def draw(axes: "Axes") -> None:
        from matplotlib.patches import Rectangle

        for row, column in zip(*np.nonzero(counts), strict=True):
            share = float(shares[row, column])
            paint = SERIES[0] if row == column else SERIES[1]
            axes.add_patch(Rectangle((column, row), 1, 1, color=paint, alpha=0.1 + 0.7 * round(share, 1), linewidth=0))
            axes.text(column + 0.5, row + 0.5, f"{counts[row, column]}", ha="center", va="center", fontsize=8)
        names = [shorten(printable(label), 16) for label in labels]
        places = np.arange(size) + 0.5
        axes.set_xticks(places, names, rotation=90)
        axes.set_yticks(places, names)
        axes.tick_params(length=0, labelcolor=INK)
        axes.set(xlim=(0, size), ylim=(size, 0))
        axes.set_aspect("equal")
        axes.set_xticks(range(size + 1), minor=True)
        axes.set_yticks(range(size + 1), minor=True)
        axes.grid(visible=False)
        axes.grid(visible=True, which="minor")
        axes.tick_params(which="minor", length=0)

    side = 1.4 + 0.3 * size
    svg = render(draw, width=side, height=side)
    width = f'<svg style="max-width: {94 * side:.0f}px; min-width: {68 * side:.0f}px"'  # text as in the other plots
    return figure(title, Html(svg.replace("<svg", width, 1)), class_="wide")


def plot_calibration(title: str, centres: np.ndarray, accuracies: np.ndarray, images: np.ndarray) -> Html:
    """Accuracy over confidence; the area of a point is its number of images."""

    def draw(axes: "Axes") -> None:
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=0.9, linestyle="--")
        areas = 12 + 160 * images / max(1, int(images.max(initial=0)))
        axes.plot(centres, accuracies, color=SERIES[0], linewidth=1)
        axes.scatter(centres, accuracies, s=areas, color=SERIES[0], alpha=0.75, linewidths=0)
        axes.set(xlim=(0, 102), ylim=(0, 102), xlabel="confidence, %", ylabel="accuracy, %")

    return figure(title, render(draw, height=3.0))


def draw_lr_file(steps: Sequence[float], rates: Sequence[float], title: str, x_label: str) -> str:
    """An SVG file of the learning rate, with colours of its own on white."""

    def draw(axes: "Axes") -> None:
        axes.plot(steps, rates, color=SERIES[0])
        axes.set(title=printable(title), xlabel=x_label, ylim=(0, None))

    return _replace(_draw(draw, 7.5, 3.4, facecolor="white"), PRINTED.__getitem__)


def thin(x: Sequence[float], y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """At most POINTS of the finite points, with the lowest and the highest of each part, the first and the last."""
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    finite = np.isfinite(xs) & np.isfinite(ys)
    xs, ys = xs[finite], ys[finite]
    if len(xs) <= POINTS:
        return xs, ys
    parts = np.array_split(np.arange(len(xs)), POINTS // 2 - 1)
    ends = {part[at] for part in parts for at in (int(ys[part].argmin()), int(ys[part].argmax()))}
    kept = sorted({0, len(xs) - 1, *map(int, ends)})
    return xs[kept], ys[kept]


def render(draw: Callable[["Axes"], None], width: float = SIZE[0], height: float = SIZE[1]) -> Html:
    """An SVG element for a page."""
    text = _draw(draw, width, height, facecolor="none")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[a-zA-Z]+[\w.]*_\d+"| xmlns(:\w+)?="[^"]*"| version="[^"]*"', "", text)
    text = re.sub(r'^<svg([^>]*?) height="[^"]*"', r"<svg\1", text)
    text = re.sub(r'^<svg([^>]*?) width="[^"]*"', r"<svg\1", text)
    text = re.sub(r"font: ([^\";']*?px)[^\";]*", r"font: \1 var(--font)", text)
    text = re.sub(r"\s*\n\s*", "\n", text)
    return Html(_replace(text, lambda found: f"var(--{VARIABLES[found]})"))


def _draw(draw: Callable[["Axes"], None], width: float, height: float, facecolor: str) -> str:
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it reports a cache that it cannot write
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    text = io.StringIO()
    with rc_context(SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that its own font lacks: the page's font has it
        drawn = Figure((width, height), layout="constrained", facecolor=facecolor)
        axes = drawn.add_subplot()
        axes.patch.set_visible(False)
        draw(axes)
        drawn.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _replace(svg: str, name: Callable[[str], str]) -> str:
    return re.sub("|".join(VARIABLES), lambda found: name(found[0]), svg)


def figure(title: str, svg: Html, legend: Sequence[tuple[str, str]] = (), class_: str | None = None) -> Html:
    """A figure of a page. `legend`: the name of each colour, and the CSS variable of the colour."""
    label = f'<svg role="img" aria-label="{escape(printable(title))}"'
    keys = [tag("span", label, class_="key", style=f"--key: var(--{name})") for label, name in legend]
    head = tag("figcaption", tag("b", title), *([tag("span", *keys, class_="keys")] if keys else []))
    return tag("figure", head, Html(svg.replace("<svg", label, 1)), class_=" ".join(filter(None, ["plot", class_])))


def color(style: int) -> str:
    return SERIES[style % len(SERIES)]


def variable(style: int) -> str:
    """The CSS variable of this colour."""
    return VARIABLES[color(style)]


def number(text: str | None) -> float:
    """A value of a CSV file; NaN if it is empty."""
    return float(text) if text else math.nan


def grid(*figures: Html) -> Html:
    return tag("div", join(figures), class_="grid")
