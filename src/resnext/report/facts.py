"""What a page says about a run in words and tables: status, identity, data, changed keys, starts."""

import os
import shlex
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import numpy as np

from resnext.config.compose import composer
from resnext.config.describe import describe_image_sizes, describe_recipe
from resnext.config.schema import TEXTS, find_differences, to_dict
from resnext.errors import UserError
from resnext.files import read_text
from resnext.report.html import CLASSES, Html, details, facts, join, name_rows, table, tag
from resnext.report.plots import Line, grid, plot_bars, plot_lines
from resnext.report.record import RunRecord
from resnext.terminal import pluralize

LOG_LINES = 12
BARS = 24  # classes of the plot of counts
# keys that differ between any two runs, may be secret, or only describe
UNSHOWN = ("run", "notify.command", *(f"recipe.{name}" for name in TEXTS))
ENDED_BADLY = ("failed", "died")


def status(record: RunRecord) -> Html:
    """Tiles with the main numbers, and the last lines of the log of a run that failed."""
    step, planned = record.run.step, record.run.planned_steps
    seconds = record.trained_seconds()
    speed = record.images_per_sec
    tiles = [
        *_best_tiles(record),
        ("steps", f"{step:,} of {planned:,}" if planned else f"{step:,}"),
        *([("images per second", f"{speed:,.0f}")] if speed else []),
        *([("without validations", str(timedelta(seconds=round(seconds))))] if seconds else []),
        ("starts" if len(record.starts) != 1 else "start", str(len(record.starts))),
    ]
    shown = tag("div", *(tag("div", tag("b", value), tag("span", name)) for name, value in tiles), class_="tiles")
    parts = [shown]
    if stopped := record.summary.get("stopped"):
        parts.append(tag("p", f"Stopped early: {stopped}."))
    if record.state in ENDED_BADLY:
        parts += [tag("h3", "The last lines of log.txt"), tag("pre", _last_lines(record))]
    return join(parts)


def identity(record: RunRecord) -> Html:
    config, info = record.config, record.info
    words = describe_recipe(config.recipe)
    return facts(
        [
            ("experiment", config.experiment),
            ("network", config.model.name),
            ("options", ", ".join(f"{key}={shown(value)}" for key, value in to_dict(config.model)["options"].items())),
            ("weights", config.model.weights),
            ("data", f"{config.data.name} in {config.data.root}"),
            ("images", f"{describe_image_sizes(config.recipe)} pixels, evaluated at {config.recipe.eval_image_size}"),
            ("batch", f"{config.recipe.batch_size:,} images, {pluralize(config.recipe.epochs, 'epoch')}"),
            ("optimizer", words.pop("recipe", None)),
            *words.items(),
            ("seed", config.seed),
            ("command", tag("code", shlex.join(without_notification(info.get("command", []))))),
            ("created", _time(info, "created")),
            ("code", tag("code", info.get("code") or "unknown")),
            ("W&B id", tag("code", info["wandb_id"])),
            ("fingerprint of the images", tag("code", info["data"]["fingerprint"])),
        ]
    )


def data_facts(record: RunRecord) -> Html:
    """The number of images of each class, of both splits."""
    train, val = record.images
    counts = [np.bincount(each.labels, minlength=len(train.classes)) for each in (train, val)]
    lowest, highest = int(counts[0].min()), int(counts[0].max())
    median = float(np.median(counts[0]))
    words = facts(
        [
            ("training", pluralize(len(train), "image")),
            ("validation", pluralize(len(val), "image")),
            ("classes", f"{len(train.classes):,}"),
            ("images per class", f"{lowest:,} to {highest:,} for training, median {median:,.0f}"),
            ("imbalance", f"{highest / max(1, lowest):.3g} times as many images in the largest class"),
            ("unused", ", ".join(f"{images} {suffix}" for suffix, images in train.unread.items()) or None),
        ]
    )
    order = np.argsort(-counts[0], kind="stable")
    if len(order) <= BARS:
        values = counts[0][order].tolist()
        figure = plot_bars("Training images of each class", [train.classes[each] for each in order], values, "images")
    else:
        line = Line("", range(1, len(order) + 1), counts[0][order].tolist())
        figure = plot_lines("Training images of each class", [line], "class, the largest first", from_zero=True)
    body = [(train.classes[each], f"{counts[0][each]:,}", f"{counts[1][each]:,}") for each in order]
    rows = table(["class", "training", "validation"], body[:CLASSES], numbers=True)
    return join([words, grid(figure), details(name_rows(len(body), "largest"), rows)])


def changed_keys(record: RunRecord) -> Html:
    """The keys whose value is not that of the experiment's files."""
    command = [str(each) for each in record.info.get("command", [])]
    try:
        with composer(_config_dir(command)) as compose:
            composed = compose([f"experiment={record.config.experiment}"])
    except UserError as error:
        raise UserError(f"experiment={record.config.experiment} cannot be composed to compare with: {error}") from None
    found = [
        (tag("code", key), shown(value), shown(ours))
        for key, value, ours in find_differences(to_dict(composed), to_dict(record.config))
        if key not in UNSHOWN
    ]
    if not found:
        return tag("p", f"Nothing: the run is experiment={record.config.experiment} as it is.", class_="note")
    return table(["key", f"experiment={record.config.experiment}", "this run"], found)


def starts(record: RunRecord) -> Html:
    """A row for each start: machine, versions, speed."""
    if not record.starts:
        raise UserError("no start has reached its first step yet")
    head = ("", "time", "from step", "processes", "device", "host", "precision", "images/s", "code", "configuration")
    rows = []
    for number, (start, speed) in enumerate(zip(record.starts, record.speed_of_starts(), strict=True), 1):
        job = f", job {start['slurm_job']}" if start.get("slurm_job") else ""
        device = f"{start.get('device', '')}, {start['cores']} cores" if "cores" in start else start.get("device", "")
        rate = "" if speed is None else f"{speed:,.0f}"
        where, code = f"{start.get('host', '')}{job}", str(start.get("code") or "")[:10]
        facts_of_start = (start.get("world_size", ""), device, where, start.get("precision", ""), rate, code)
        rows.append((number, _time(start), f"{start.get('from_step', 0):,}", *facts_of_start, start["config"]))
    return join([table(head, rows), details("Versions", table(*_versions(record)))])


def _versions(record: RunRecord) -> tuple[list[str], list[list[str]]]:
    """A row for each package, with a column for each start whose versions differ from the start before."""
    every = [
        {"python": str(each.get("python", "")), "platform": str(each.get("platform", ""))} | each.get("versions", {})
        for each in record.starts
    ]
    shown = [at for at, found in enumerate(every) if at == 0 or found != every[at - 1]]
    names = list(dict.fromkeys(name for found in every for name in found))
    head = ["package", *(f"from start {at + 1} on" for at in shown)]
    return head, [[name, *(str(every[at].get(name, "")) for at in shown)] for name in names]


def _best_tiles(record: RunRecord) -> Iterator[tuple[str, str]]:
    by, best = record.config.recipe.best_by, record.best
    if best is None:
        return
    name = "EMA, " if by.startswith("val_ema") else ""
    yield f"top-1 ({name}epoch {best['epoch']})", f"{100 * float(best[by]):.2f} %"
    top5 = by.replace("top1", "top5")
    if float(best.get(top5) or 1) < 1:
        yield "top-5, same epoch", f"{100 * float(best[top5]):.2f} %"


def _last_lines(record: RunRecord) -> str:
    try:
        lines = read_text(record.run.path / "log.txt", errors="replace").splitlines()
    except OSError:
        return "log.txt does not exist"
    return os.linesep.join(line[:300] for line in lines[-LOG_LINES:])


def without_notification(command: Iterable[Any]) -> Iterator[str]:
    """The command without its notify.command, which may hold an address that is a secret."""
    for word in map(str, command):
        key, equals, _ = word.partition("=")
        yield f"{key}=…" if equals and key.lstrip("+").startswith("notify") else word


def _config_dir(command: list[str]) -> str | None:
    """The folder of --config-dir in the command that made the run."""
    for at, word in enumerate(command):
        name, equals, value = word.partition("=")
        if name in ("--config-dir", "-cd"):
            return value if equals else next(iter(command[at + 1 :]), None)
    return None


def _time(content: dict[str, Any], key: str = "time") -> str:
    """`2026-11-28 05:10:09 +0000`."""
    return str(content.get(key) or "").replace("T", " ").replace("+", " +")


def shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
