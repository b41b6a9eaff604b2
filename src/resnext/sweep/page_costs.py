"""The results of a sweep's page over their cost, and which differences the seeds support."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from resnext.errors import UserError
from resnext.report.html import Html, join, table, tag
from resnext.report.plots import SERIES, figure, grid, is_available, render, variable
from resnext.sweep.costs import BATCH
from resnext.sweep.families import Member, conclusions, member_rows
from resnext.sweep.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOTE = (
    f"MACs of one image; ms: forward and backward of {BATCH} images in float32, the median, all networks in turn on "
    "the machine that ended this sweep. An accuracy is in percent."
)


def cost_section(result: Result) -> Html:
    """The metric over MACs and over the time of a step, a table, and the conclusions.

    Raises:
        UserError: if no trial is complete.
    """
    members = result.members
    if not members:
        raise UserError("no trial is complete yet")
    said = tag("ul", *(tag("li", each) for each in conclusions(members, result.config.direction)))
    head, *rows = member_rows(members)
    plots = [
        _plot("MACs of one image, millions", members, lambda member: (member.cost.macs or 0) / 1e6),
        _plot(f"forward and backward of {BATCH} images, ms", members, lambda member: member.cost.step_ms or 0),
    ]
    drawn = [grid(*plots)] if is_available() else []
    return join([said, *drawn, tag("p", NOTE, class_="note"), table(head, rows, numbers=True)])


def _plot(label: str, members: Sequence[Member], cost: Callable[[Member], float]) -> Html:
    families = list(dict.fromkeys(member.family for member in members))
    styles = {family: at % len(SERIES) for at, family in enumerate(families)}

    def draw(axes: "Axes") -> None:
        for member in members:
            color = SERIES[styles[member.family]]
            axes.errorbar(cost(member), member.mean, yerr=member.std, fmt="o", color=color, markersize=4.5, capsize=2.5)
        axes.set_xlabel(label)
        axes.set_ylabel("mean over the seeds")

    return figure(f"Result over {label}", render(draw), [(family, variable(styles[family])) for family in families])
