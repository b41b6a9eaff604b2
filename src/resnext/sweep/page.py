"""The page of a sweep, runs/NAME/report.html: the best trial, all trials, their curves, and what each key changes."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from resnext.config.schema import schema_defaults, to_dict
from resnext.config.sweep import SweepConfig
from resnext.errors import UserError
from resnext.report.facts import shown, without_notification
from resnext.report.html import Html, facts, join, table, tag
from resnext.report.page import Page, Section, render_page
from resnext.report.plots import grid, is_available, plot_bars
from resnext.report.report_file import PAGE, save_page
from resnext.sweep.page_costs import cost_section
from resnext.sweep.page_curves import find_marks, mean_curve, plot_curves
from resnext.sweep.page_metric import Metric, find_metric
from resnext.sweep.page_points import plot_families, plot_slices
from resnext.sweep.result import LEAST_TRIALS, Result
from resnext.sweep.table import cost, rank, short_names, shown_value, spread
from resnext.sweep.trial import Trial
from resnext.terminal import pluralize

SHOWN = 200  # trials of the table
STATES = ("complete", "pruned", "failed", "open")


def write_page(folder: Path, result: Result) -> Path:
    """Raises UserError if FOLDER/report.html is not a regular file; OSError if it cannot be written."""
    path = folder / PAGE
    save_page(build_page(result), path)
    return path


def build_page(result: Result) -> Page:
    """A section that cannot be made is one line. Without matplotlib, the sections of plots are such lines."""
    metric = find_metric(result)
    has_points = bool(result.config.points)
    families = [
        Section("Families", lambda: _families(result, metric)),
        Section("Costs and conclusions", lambda: cost_section(result)),
    ]
    sections = [
        Section("Result", lambda: _result(result, metric)),
        Section("Trials", lambda: _trials(result, metric)),
        Section("Learning curves", lambda: _curves(result, metric)),
        *([] if has_points else [Section("Slices", lambda: _slices(result, metric))]),
        *(families if has_points else [Section("Importance of the keys", lambda: _importances(result))]),
        Section("Settings", lambda: _settings(result.config)),
    ]
    return render_page(result.name, Html(""), sections)


def _result(result: Result, metric: Metric) -> Html:
    """Tiles, the values of the best trial, and the command that trains it."""
    if not result.trials:
        raise UserError("no trial has begun yet")
    states = [trial.state for trial in result.trials]
    counts = [(state, f"{states.count(state):,}") for state in STATES if state in states]
    best = result.best
    tiles = [*([] if best is None else _best_tiles(best, result, metric)), *counts]
    parts = [tag("div", *(tag("div", tag("b", value), tag("span", name)) for name, value in tiles), class_="tiles")]
    if best is None:
        parts.append(tag("p", "No trial is complete yet, so there is no best one.", class_="missing"))
    else:
        parts += [tag("h3", f"Best: trial {best.number}"), _best_facts(best, result, metric), _command(result)]
    return join(parts)


def _best_tiles(best: Trial, result: Result, metric: Metric) -> Iterator[tuple[str, str]]:
    std = spread(best, result.config.direction)
    yield f"best {metric.name}, trial {best.number}", metric.shown(best.value)
    if std is not None:
        yield f"standard deviation of {pluralize(len(best.runs), 'seed')}", metric.shown(std, sign="± ")


def _best_facts(best: Trial, result: Result, metric: Metric) -> Html:
    std = metric.shown(spread(best, result.config.direction), sign=" ± ")
    mean = f"{metric.shown(best.value)}{std}, n = {len(best.runs)}"
    values = [(tag("code", key), shown_value(value)) for key, value in best.params.items()]
    return facts([(metric.name, mean), *values, ("runs", ", ".join(run.name for run in best.runs))])


def _command(result: Result) -> Html:
    found = result.best_command
    assert found is not None
    command, note = found
    safe = shlex.join(without_notification(shlex.split(command)))
    words = f"This command trains it at full length{note and ', ' + note}:"
    return join([tag("p", words), tag("pre", safe, style="white-space: pre-wrap")])


def _trials(result: Result, metric: Metric) -> Html:
    """The best trials first. The row of a trial with a damaged run has no steps and no time; it shows the error."""
    if not result.trials:
        raise UserError("no trial has begun yet")
    ranked = rank(result.trials, result.config.direction)
    names = short_names(list(dict.fromkeys(key for trial in ranked for key in trial.params)))
    head = ["trial", "state", "epochs", metric.name, "std", "n", "steps", "training s", *names.values(), "error"]
    rows = [_row(trial, result, metric, [*names]) for trial in ranked[:SHOWN]]
    used = [at for at, name in enumerate(head) if name not in ("std", "error") or any(row[at] for row in rows)]
    shown_table = table([head[at] for at in used], [[row[at] for at in used] for row in rows], numbers=True)
    left_out = len(ranked) - len(rows)
    note = f"The best {SHOWN} of {len(ranked):,} trials; trials.csv has the other {left_out:,} too."
    return join([tag("p", note, class_="note") if left_out else "", shown_table])


def _row(trial: Trial, result: Result, metric: Metric, keys: Sequence[str]) -> list[str | Html]:
    damages = [f"{run.name}: {run.damage}" for run in trial.runs if run.damage]
    spent, errors = cost(trial) if not damages else {}, [trial.error, *damages]
    return [
        tag("b", trial.number),
        trial.state,
        str(max(trial.values, default=0)),
        metric.shown(trial.value),
        metric.shown(spread(trial, result.config.direction)),
        str(len(trial.runs)),
        f"{spent['steps']:,.0f}" if spent else "",
        f"{spent['training_seconds']:,.0f}" if spent else "",
        *(shown_value(trial.params.get(key, "")) for key in keys),
        _error_cell("; ".join(dict.fromkeys(filter(None, errors)))),
    ]


def _error_cell(error: str) -> Html:
    return tag("div", error, style="white-space: normal; text-align: left; min-width: 18rem") if error else Html("")


def _curves(result: Result, metric: Metric) -> Html:
    if not any(mean_curve(trial) for trial in result.trials if trial.state != "failed"):
        raise UserError("no trial has a validated epoch yet")
    has_pruned = any(trial.state == "pruned" for trial in result.trials)
    words = [
        "Each line is the mean over the seeds of a trial." if result.config.seeds else "",
        "The thick line is the best trial." if result.best is not None else "",
        "Dashed lines are pruned trials, up to the cross." if has_pruned else "",
        f"Dotted lines: the epochs at which sweep.pruner={result.config.pruner} decides." if find_marks(result) else "",
    ]
    return join([tag("p", " ".join(filter(None, words)), class_="note"), plot_curves(result, metric)])


def _slices(result: Result, metric: Metric) -> Html:
    if not any(trial.value is not None for trial in result.trials if trial.state != "failed"):
        raise UserError("no trial has a value yet")
    words = [
        "Each point is a trial; the orange one is the best.",
        "Hollow: trials that are not complete, with their newest value." if _has_hollow(result) else "",
        _bars(result),
    ]
    return join([tag("p", " ".join(filter(None, words)), class_="note"), plot_slices(result, metric)])


def _families(result: Result, metric: Metric) -> Html:
    if not any(trial.value is not None for trial in result.trials if trial.state != "failed"):
        raise UserError("no trial has a value yet")
    words = ["The orange point is the best.", "Hollow: not complete." if _has_hollow(result) else "", _bars(result)]
    return join([tag("p", " ".join(filter(None, words)), class_="note"), plot_families(result, metric)])


def _has_hollow(result: Result) -> bool:
    return any(trial.value is not None for trial in result.trials if trial.state in ("pruned", "open"))


def _bars(result: Result) -> str:
    seeds = len(result.config.seeds)
    return f"The bars are ± one standard deviation of {seeds} seeds." if seeds > 1 else ""


def _importances(result: Result) -> Html:
    shares = result.importances
    if not shares:
        raise UserError(f"this needs at least {LEAST_TRIALS} complete trials with different values")
    words = "The share of the variance of the metric that each key explains, by Optuna's fANOVA over complete trials."
    names = short_names([*shares])
    if is_available():
        values = [round(100 * share, 1) for share in shares.values()]
        body = grid(plot_bars("Importance", [names[key] for key in shares], values, "% of the variance"))
    else:
        body = table(["key", "share"], [(tag("code", key), f"{100 * each:.1f} %") for key, each in shares.items()])
    return join([tag("p", words, class_="note"), body])


def _settings(config: SweepConfig) -> Html:
    """The keys of sweep.yaml that are not the default."""
    defaults = schema_defaults(SweepConfig)
    changed = {key: value for key, value in to_dict(config).items() if value != defaults[key]}
    rows = [(tag("code", name), tag("code", value)) for name, value in _flat(changed)]
    return table(["key", "value"], rows)


def _flat(changed: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, value) of each setting, with a row for each override, key of the space and point."""
    for key, value in changed.items():
        if key == "overrides":
            yield key, shlex.join(without_notification(value))
        elif key == "space":
            yield from ((f"space.{name}", text) for name, text in value.items())
        elif key == "points":
            for family, labels in value.items():
                yield from ((f"points.{family}.{label}", shlex.join(each)) for label, each in labels.items())
        else:
            yield key, shown(value)
