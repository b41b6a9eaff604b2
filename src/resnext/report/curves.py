"""The curves of one or several runs, from metrics.csv and perf.csv, and the planned learning rate."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from resnext.errors import UserError
from resnext.report.html import Html, details, join, table, tag
from resnext.report.plots import Line, grid, number, plot_lines
from resnext.report.record import SPEED, WAIT, RunRecord
from resnext.run.metrics import AVERAGE, METRICS, Row
from resnext.task.lr_curve import sample_lr
from resnext.task.optimization import total_steps

MARKS = 100  # starts with a dotted line; of a run with more, the last ones
SHOWN_EPOCHS = 200  # rows of the table; of a longer training, the last ones
STANDARD = (*METRICS, *AVERAGE)
BY_STEP = {"train/epoch_loss": "train/loss"}  # shown instead, until two epochs are over


class Panel(NamedTuple):
    """A plot: its title, and the columns that it shows, each with a name. Values are multiplied by `scale`."""

    title: str
    columns: dict[str, str]
    scale: float = 1.0
    from_zero: bool = False


PANELS = (
    Panel("Loss", {"train/epoch_loss": "training", "val/loss": "validation", "val_ema/loss": "validation, EMA"}),
    Panel("Top-1, %", {"val/top1": "validation", "val_ema/top1": "validation, EMA"}, 100),
    Panel("Top-5, %", {"val/top5": "validation", "val_ema/top5": "validation, EMA"}, 100),
    Panel("Learning rate", {"lr": "learning rate"}, from_zero=True),
    Panel("Images per second", {SPEED: "images/s"}, from_zero=True),
    Panel("Waiting for data, % of the time", {WAIT: "waiting"}, from_zero=True),
)


def curves(record: RunRecord) -> Html:
    """All panels of one run. Raises UserError without any row."""
    rows = record.metrics + record.speeds
    if not rows:
        raise UserError(
            f"{record.run.path}/metrics.csv has no row yet: it gets one every logger.every_steps="
            f"{record.config.logger.every_steps} steps, and at the end of each epoch"
        )
    marks = record.start_epochs[-MARKS:] if len(record.starts) > 1 else []
    figures = []
    for panel in [*PANELS, *_more_panels(record.metrics)]:
        lines = [
            line._replace(style=number)
            for number, (column, name) in enumerate(panel.columns.items())
            if (line := _line(record, column, name, panel.scale)) is not None
        ]
        if lines:
            figures.append(plot_lines(panel.title, lines, "epoch", marks, from_zero=panel.from_zero))
    last = "last " if len(record.starts) > MARKS else ""
    note = tag("p", f"Dotted lines: the {last}{len(marks)} starts of the run.", class_="note") if marks else ""
    return join([note, grid(*figures), _epoch_table(record)])


def compared_curves(records: Sequence[RunRecord]) -> Html:
    """Each panel with a line for each run: of the weights that choose best.ckpt, if there are two."""
    figures = []
    for panel in _split(PANELS):
        lines = []
        for style, record in enumerate(records):
            column = next((each for each in reversed(panel.columns) if _values(record, each)), None)
            line = _line(record, column, record.name, panel.scale) if column is not None else None
            lines += [line._replace(style=style)] if line is not None else []
        if lines:
            figures.append(plot_lines(panel.title, lines, "epoch", from_zero=panel.from_zero))
    if not figures:
        raise UserError("no run has a row in metrics.csv yet")
    return grid(*figures)


def schedule(record: RunRecord) -> Html:
    """The planned learning rate of the whole training, and the epochs at which the image size changes."""
    recipe = record.config.recipe
    per_epoch = max(1, round(record.steps_per_epoch))
    rates = sample_lr(recipe, per_epoch)
    epochs = [step / per_epoch for step in rates]
    figures = [plot_lines("Planned learning rate", [Line("", epochs, list(rates.values()))], "epoch", from_zero=True)]
    if recipe.image_size_schedule:
        every = range(recipe.epochs)
        sizes = [float(recipe.train_image_size(epoch)) for epoch in every]
        figures.append(plot_lines("Training images, pixels", [Line("", list(every), sizes)], "epoch"))
    steps = total_steps(recipe, per_epoch)
    words = f"{steps:,} steps in batches of {recipe.batch_size:,}, {per_epoch:,} in an epoch."
    return join([tag("p", words, class_="note"), grid(*figures)])


def _more_panels(rows: list[Row]) -> Iterator[Panel]:
    """A panel for each metric of recipe.evaluation.metrics."""
    columns = rows[0] if rows else {}
    for column in columns:
        kind, _, name = column.partition("/")
        if kind == "val" and column not in STANDARD:
            yield Panel(name, {column: "validation", f"val_ema/{name}": "validation, EMA"})


def _split(panels: Sequence[Panel]) -> Iterator[Panel]:
    """The panels, with training and validation loss apart."""
    for panel in panels:
        if panel.title == "Loss":
            columns = dict(panel.columns)
            yield panel._replace(title="Training loss", columns={"train/epoch_loss": columns.pop("train/epoch_loss")})
            yield panel._replace(title="Validation loss", columns=columns)
        else:
            yield panel


def _values(record: RunRecord, column: str) -> list[tuple[int, float]]:
    """(step, value) of each row that has a value."""
    rows = record.speeds if column in (SPEED, WAIT) else record.metrics
    found = [(int(row["step"]), number(row[column])) for row in rows if row.get(column)]
    return _values(record, BY_STEP[column]) if column in BY_STEP and len(found) < 2 else found


def _line(record: RunRecord, column: str, name: str, scale: float) -> Line | None:
    found = _values(record, column)
    if not found:
        return None
    return Line(name, [step / record.steps_per_epoch for step, _ in found], [scale * value for _, value in found])


def _epoch_table(record: RunRecord) -> Html:
    """The validations, the newest last."""
    rows = record.validations[-SHOWN_EPOCHS:]
    if not rows:
        return Html("")
    columns = [column for column in rows[0] if column.startswith("val") and any(row.get(column) for row in rows)]
    formats: dict[str, Callable[[str], str]] = {"top1": _percent, "top5": _percent}
    body = [
        (row["epoch"], row["step"], *(formats.get(each.partition("/")[2], _digits)(row[each]) for each in columns))
        for row in rows
    ]
    names = (
        f"All {len(rows)} validations" if len(rows) == len(record.validations) else f"The last {len(rows)} validations"
    )
    return details(names, table(["epoch", "step", *columns], body, numbers=True))


def _percent(text: str) -> str:
    return f"{100 * number(text):.2f} %" if text else ""


def _digits(text: str) -> str:
    return f"{number(text):.4f}" if text else ""
