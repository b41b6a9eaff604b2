"""build_page: the whole report of one run, or of several runs beside each other, as one HTML file."""

import functools
import re
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from resnext.config.schema import find_differences, to_dict
from resnext.errors import UserError, describe_error, describe_os_error
from resnext.report import facts, mistakes
from resnext.report.curves import compared_curves, curves, schedule
from resnext.report.evaluation import NoEvaluation, find_evaluation
from resnext.report.html import Html, join, table, tag
from resnext.report.record import RunRecord
from resnext.report.samples import training_sheets, validation_sheet
from resnext.report.style import STYLE
from resnext.run.directory import Run


class Section:
    """A part of the page, of one or more columns. Each raises UserError or OSError if a file is missing or damaged."""

    def __init__(self, title: str, *columns: Callable[[], Html]) -> None:
        self.title, self.columns = title, columns

    @property
    def anchor(self) -> str:
        return re.sub(r"\W+", "-", self.title.lower())


class Page(NamedTuple):
    """The text of a report, and why sections are left out: title → one line."""

    text: str
    left_out: dict[str, str]


def build_page(runs: Sequence[Run]) -> Page:
    records = [RunRecord(run) for run in runs]
    if len(records) == 1:
        return render_page(records[0].name, _state(records[0]), _sections(records[0]))
    return render_page(f"{len(records)} runs", Html(""), _compared_sections(records))


def _sections(record: RunRecord) -> list[Section]:
    def evaluated(build: Callable[..., Html], *arguments: RunRecord) -> Callable[[], Html]:
        return lambda: build(*arguments, find())

    find = functools.cache(lambda: find_evaluation(record))
    return [
        Section("Status", lambda: facts.status(record)),
        Section("Curves", lambda: curves(record)),
        Section("Evaluation", evaluated(mistakes.results)),
        Section("Accuracy by class, calibration", evaluated(mistakes.class_accuracy), evaluated(mistakes.calibration)),
        Section("Confusion", evaluated(mistakes.confusion_matrix)),
        Section("Worst mistakes", evaluated(mistakes.worst_mistakes, record)),
        Section("Most confused pairs", evaluated(mistakes.confused_pairs, record)),
        Section("What the network sees", lambda: training_sheets(record)),
        Section("Validation images", lambda: validation_sheet(record)),
        Section("Data", lambda: facts.data_facts(record)),
        Section("Schedule", lambda: schedule(record)),
        Section("Differences from the experiment", lambda: facts.changed_keys(record)),
        Section("Starts", lambda: facts.starts(record)),
        Section("Identity", lambda: facts.identity(record)),
    ]


def _compared_sections(records: list[RunRecord]) -> list[Section]:
    return [
        Section("Results", lambda: _results(records)),
        Section("Curves", lambda: compared_curves(records)),
        Section("Differences of the configurations", lambda: _differences(records)),
    ]


def render_page(title: str, state: Html, sections: Sequence[Section]) -> Page:
    left_out: dict[str, str] = {}
    parts: list[tuple[Section, Html]] = []
    for section in sections:
        given = set(left_out.values())
        columns = dict.fromkeys(_build(section.title, column, left_out) for column in section.columns)
        if left_out.get(section.title) in given:
            continue
        body = (
            join(columns) if len(columns) == 1 else tag("div", *(tag("div", each) for each in columns), class_="grid")
        )
        parts.append((section, body))
    shown = [
        tag("section", tag("h2", each.title), body, _also_left_out(each.title, left_out), id=each.anchor)
        for each, body in parts
    ]
    links = [tag("a", each.title, href=f"#{each.anchor}") for each, _ in parts]
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{title} - training report"),
        tag("style", Html(STYLE)),
    ]
    foot = tag("footer", f"Written by resnext report, {time.strftime('%Y-%m-%d %H:%M:%S %z')}.")
    body = [tag("header", tag("h1", title, " ", state), tag("nav", *links)), *shown, foot]
    text = f"<!doctype html>\n{tag('html', tag('head', *head), tag('body', *body), lang='en')}\n"
    return Page(text, left_out)


def _build(title: str, build: Callable[[], Html], left_out: dict[str, str]) -> Html:
    """A column of the section `title`, or one line with the reason why it is left out."""
    try:
        return build()
    except UserError as error:
        reason = str(error)
    except OSError as error:
        reason = describe_os_error(error)
    except (
        Exception
    ) as error:  # a file that is damaged in a way that nobody thought of must not cost the other sections
        reason = f"this section could not be made: {describe_error(error)}"
    left_out[title] = reason
    return tag("p", f"Left out: {reason}.", class_="missing")


def _also_left_out(title: str, left_out: dict[str, str]) -> Html:
    """Names the sections that are not on the page for the same reason as `title`, the first of them."""
    same = [each for each, reason in left_out.items() if reason == left_out.get(title)]
    return tag("p", f"For the same reason: {', '.join(same[1:])}.", class_="missing") if same[1:] else Html("")


def _state(record: RunRecord) -> Html:
    try:
        state = record.state
    except (UserError, OSError):
        return Html("")
    return tag("span", state, class_=f"state {state}")


def _results(records: list[RunRecord]) -> Html:
    """A row for each run; a damaged run has its error instead."""
    head = ("run", "state", "steps", "best top-1", "epoch", "images/s", "evaluated top-1", "95 % interval")
    return table(head, [_result(record) for record in records], numbers=True)


def _result(record: RunRecord) -> list[str | Html]:
    name = tag("b", record.name)
    try:
        best, speed = record.best, record.images_per_sec
        top1 = f"{100 * float(best[record.config.recipe.best_by]):.2f} %" if best else ""
        rate = f"{speed:,.0f}" if speed else ""
        cells = [record.state, f"{record.run.step:,}", top1, best["epoch"] if best else "", rate]
        return [name, *cells, *_evaluated(record)]
    except UserError as error:
        return [name, str(error)]
    except OSError as error:
        return [name, describe_os_error(error)]


def _evaluated(record: RunRecord) -> list[str]:
    try:
        return mistakes.cells(find_evaluation(record).metrics)[:2]
    except NoEvaluation:
        return ["", ""]
    except UserError as error:
        return [str(error)]


def _differences(records: list[RunRecord]) -> Html:
    """The keys of the configuration that are not the same in all runs."""
    trees = [to_dict(record.config) for record in records]
    keys = dict.fromkeys(
        key for tree in trees[1:] for key, *_ in find_differences(trees[0], tree) if key not in facts.UNSHOWN
    )
    if not keys:
        return tag("p", "None: the runs have the same configuration.", class_="note")
    rows = [[tag("code", key), *(_at(tree, key) for tree in trees)] for key in keys]
    return table(["key", *(record.name for record in records)], rows)


def _at(tree: dict, key: str) -> str:
    value: object = tree
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return facts.shown(value)
