"""The plots: the points that they draw, their colours, and names with a meaning in mathematics or XML."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from resnext.report.plots import POINTS, Line, plot_bars, plot_lines, thin


def points_of(svg: str, number: int) -> np.ndarray:
    """The points [N, 2] of the line with the colour of this series."""
    path = re.search(rf'<path d="([^"]+)"[^>]*stroke: var\(--series-{number}\)', svg)
    assert path is not None
    return np.array(re.findall(r"[ML] (\S+) (\S+)", path[1]), float)


def test_a_line_goes_through_its_values_and_lines_share_their_axes():
    """A plot is an affine map of the values; y grows downwards."""
    x, one, other = [0, 1, 2, 5, 6], [3, 1, 4, 1, 5], [9, 2, 6, 5, 3]
    svg = plot_lines("Loss", [Line("one", x, one), Line("other", x, other, 1)], "epoch")
    drawn = np.concatenate([points_of(svg, 1), points_of(svg, 2)])
    for column, values in enumerate((x + x, one + other)):
        slope, start = np.polyfit(values, drawn[:, column], 1)
        assert np.abs(slope * np.array(values) + start - drawn[:, column]).max() < 1e-3
        assert (slope > 0) == (column == 0)


def test_a_long_line_keeps_its_ends_and_its_extremes_and_has_few_points():
    random = np.random.default_rng(0)
    y = random.normal(size=100_000)
    y[12_345], y[54_321], y[777] = 50, -50, np.nan
    x, kept = thin(np.arange(len(y)), y)
    assert len(x) <= POINTS
    assert (x[0], x[-1], kept.max(), kept.min()) == (0, 99_999, 50, -50)
    assert np.array_equal(kept, y[x.astype(int)])


def test_values_that_are_not_finite_leave_the_others():
    svg = plot_lines("Loss", [Line("", [1, 2, 3, 4, 5], [1, np.nan, np.inf, 2, 3])], "epoch")
    assert len(points_of(svg, 1)) == 3


@pytest.mark.parametrize("values", [[], [np.nan], [1.0]])
def test_a_line_with_few_points_or_none_is_drawn(values: list[float]):
    assert "<svg" in plot_lines("Loss", [Line("", list(range(len(values))), values)], "epoch")


def test_names_are_drawn_as_they_are_and_colours_are_the_pages():
    names = ["$x^2$", "<b>&</b>", "$", "\udc80漢字"]
    svg = plot_bars("Images", names, [1, 2, 3, 4], "images").partition("<svg")[2].partition("</figure>")[0]
    texts = [each.text for each in ElementTree.fromstring(f"<svg{svg}".replace("xlink:", "")).iter("text")]
    assert [each for each in texts if each in {*names, "\\udc80漢字"}] == ["$x^2$", "<b>&</b>", "$", "\\udc80漢字"]
    assert "#" not in re.sub(r'"#\w+"|url\(#\w+\)', "", svg)
