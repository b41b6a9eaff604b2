"""The table of a sweep: for the terminal, as trials.csv and as JSON; and jobs.csv, when each job had its place."""

import csv
import io
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnext.files import atomic_write
from resnext.sweep.local import Ended
from resnext.sweep.trial import Trial

BEST = 10  # trials that the terminal shows
JOB_COLUMNS = ("run", "to_epoch", "place", "began", "ended", "error")


def spread(trial: Trial, direction: str) -> float | None:
    """The standard deviation of the seeds (n - 1 in the denominator); None for one seed, or without a value of each."""
    epochs = max(trial.values, default=0)
    values = [run.best(epochs, direction) for run in trial.runs]
    if len(values) < 2 or not epochs or not all(map(math.isfinite, values)):
        return None
    return statistics.stdev(values)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Each key's last word, or the whole key if another key has the same."""
    last = {key: key.rpartition(".")[2] for key in keys}
    return {key: name if list(last.values()).count(name) == 1 else key for key, name in last.items()}


def shown_value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shown_params(trial: Trial) -> str:
    names = short_names([*trial.params])
    return " ".join(f"{names[key]}={shown_value(value)}" for key, value in trial.params.items())


def describe(trial: Trial) -> str:
    """The line that the terminal shows when a trial reaches a rung or its end."""
    reached = max(trial.values, default=0)
    if trial.state == "failed":
        return f"{time.strftime('%H:%M:%S')}  trial {trial.number:<3} failed    {trial.error}"
    state = {"complete": "complete", "pruned": "pruned"}.get(trial.state, "waits")
    value = f"{trial.value:.4f}" if trial.value is not None else "-"
    epoch = f"epoch {reached}/{trial.rungs[-1]}"
    return f"{time.strftime('%H:%M:%S')}  trial {trial.number:<3} {state:9} {epoch:11} {value}  {shown_params(trial)}"


def rank(trials: Sequence[Trial], direction: str) -> list[Trial]:
    """The best first: complete trials, then the others by how far they came."""
    sign = -1 if direction == "maximize" else 1

    def key(trial: Trial) -> tuple[float, ...]:
        done = trial.state == "complete"
        value = math.inf if trial.value is None else sign * trial.value
        return not done, 0 if done else -max(trial.values, default=0), value, trial.number

    return sorted(trials, key=key)


def cost(trial: Trial) -> dict[str, float]:
    """What its runs have taken."""
    seconds = sum(run.seconds for run in trial.runs)
    return {"steps": sum(run.steps for run in trial.runs), "training_seconds": round(seconds, 1)}


def to_plain(trial: Trial, direction: str) -> dict[str, Any]:
    """A trial as a row of trials.csv and of --json."""
    return {
        "trial": trial.number,
        "state": trial.state,
        "epochs": max(trial.values, default=0),
        "value": trial.value,
        "std": spread(trial, direction),
        "n": len(trial.runs),
        **cost(trial),
        "runs": " ".join(run.name for run in trial.runs),
        "error": trial.error,
        **trial.params,
    }


def write_csv(folder: Path, trials: Sequence[Trial], direction: str) -> None:
    rows = [to_plain(trial, direction) for trial in trials]
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(folder / "trials.csv", text.getvalue())


def append_job(folder: Path, ended: Ended) -> None:
    path = folder / "jobs.csv"
    is_new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(JOB_COLUMNS)
        target = ended.job.trial.target
        row = (ended.job.run.name, target, ended.place, f"{ended.began:.2f}", f"{time.time():.2f}", ended.error)
        writer.writerow(row)


def show_table(trials: Sequence[Trial], direction: str) -> list[str]:
    """The best trials with their values, spread and cost."""
    shown = rank(trials, direction)[:BEST]
    if not shown:
        return ["no trial yet"]
    names = short_names(list(dict.fromkeys(key for trial in shown for key in trial.params)))
    head = ["trial", "state", "epochs", "value", "± std", "n", "steps", "s", *names.values()]
    return plain_table([head, *([*_cells(trial, direction), *_values(trial, names)] for trial in shown)])


def plain_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with aligned columns; the first row is the head. A column without values is left out."""
    used = [at for at in range(len(rows[0])) if any(row[at] for row in rows[1:])]
    widths = {at: max(len(row[at]) for row in rows) for at in used}
    return ["  ".join(f"{row[at]:>{widths[at]}}" for at in used).rstrip() for row in rows]


def _cells(trial: Trial, direction: str) -> list[str]:
    std, spent = spread(trial, direction), cost(trial)
    return [
        str(trial.number),
        trial.state,
        str(max(trial.values, default=0)),
        "-" if trial.value is None else f"{trial.value:.4f}",
        "" if std is None else f"{std:.4f}",
        str(len(trial.runs)),
        f"{spent['steps']:.0f}",
        f"{spent['training_seconds']:.0f}",
    ]


def _values(trial: Trial, names: dict[str, str]) -> list[str]:
    return [shown_value(trial.params.get(key, "")) for key in names]
