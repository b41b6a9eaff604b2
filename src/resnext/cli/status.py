"""resnext status [RUN …]: show the state of runs. Changes nothing, and imports no torch."""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from resnext.cli.arguments import ArgumentParser
from resnext.cli.json_output import add_json, print_json
from resnext.errors import UserError, describe_os_error
from resnext.launch.slurm import JobHistory, find_states, read_jobs
from resnext.run.directory import RUNS, Run, list_runs
from resnext.run.metrics import read_last_row
from resnext.terminal import pluralize

TITLES = ("run", "state", "step", "top-1", "left", "saved", "job")
WATCH_SECONDS = 10  # squeue is asked each time
RIGHT = ("step", "top-1", "left", "saved")

T = TypeVar("T")


@dataclass(frozen=True)
class Status:
    """The state of a run, from its files and squeue; `queued` is the job's state in squeue, or empty."""

    run: Run
    state: str
    step: int
    steps: int | None
    top1: float | None
    left: timedelta | None
    saved_seconds_ago: float | None
    job: JobHistory | None
    queued: str

    @property
    def position(self) -> str:
        return f"{self.step:,}/{self.steps:,}" if self.steps else "-"

    @property
    def accuracy(self) -> str:
        """The best accuracy so far, in percent."""
        return f"{100 * self.top1:.2f}" if self.top1 is not None else "-"

    @property
    def row(self) -> tuple[str, ...]:
        """The cells of the run's row in the table; `-` for no value."""
        left = str(self.left) if self.left else "-"
        job = f"{self.job.id} {self.queued.lower()}".rstrip() if self.job else "-"
        saved = _describe_age(self.saved_seconds_ago)
        return self.run.path.name, self.state, self.position, self.accuracy, left, saved, job

    def to_plain(self) -> dict[str, Any]:
        """For --json; null for no value."""
        summary = self.run.summary
        return {
            "path": self.run.path,
            "state": self.state,
            "step": self.step,
            "steps": self.steps,
            "top1": self.top1,
            **{name: summary.get(name) for name in ("best_epoch", "images_per_sec", "stopped")},
            "left_seconds": self.left and self.left.total_seconds(),
            "saved_seconds_ago": self.saved_seconds_ago,
            "starts": len(self.run.info["starts"]),
            "slurm_job": self.job and {"id": self.job.id, "state": self.queued or None, "starts": self.job.starts},
        }


@dataclass(frozen=True)
class Damaged:
    """A run whose state cannot be read from its files, and the reason."""

    run: Run
    error: UserError

    def to_plain(self) -> dict[str, Any]:
        return {"path": self.run.path, "state": "damaged", "error": str(self.error)}


def main(arguments: list[str]) -> int:
    parser = ArgumentParser("resnext status", description="State, position, time left and SLURM job of runs.")
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="runs/NAME; by default all of runs/")
    parser.add_argument("--watch", action="store_true", help=f"refresh every {WATCH_SECONDS} s until Ctrl-C")
    add_json(parser)
    options = parser.parse_args(arguments)
    if options.json and options.watch:
        raise UserError("--json prints once: leave out --watch")
    if options.json:
        print_json({"runs": [each.to_plain() for each in _find(options.runs)]})
    elif options.watch:
        _watch(lambda: _describe(options.runs))
    else:
        print("\n".join(_describe(options.runs)))
    return 0


def _watch(describe: Callable[[], list[str]]) -> None:
    """Shows the lines on the terminal's second screen. The last ones stay on the first screen after Ctrl-C."""
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        raise UserError("--watch needs a terminal, and the output is not one: leave out --watch")
    lines = describe()  # its errors are raised before the screen changes

    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the first screen comes back
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                rows = max(1, console.height - 2)  # the header, and the latest runs
                shown = "\n".join(lines[:1] + lines[1:][-rows:])
                live.update(Text(shown, no_wrap=True, overflow="ellipsis"), refresh=True)
                time.sleep(WATCH_SECONDS)
                lines = describe()
    except KeyboardInterrupt:
        print("\n".join(lines))


def _describe(paths: list[Path]) -> list[str]:
    """The lines for the terminal: a table, or the facts of one run."""
    found = _find(paths)
    if not found:
        return [f"{RUNS} has no run"]
    if len(paths) == 1 and isinstance(found[0], Status):
        return _describe_one(found[0])
    return _make_table(found)


def _find(paths: list[Path]) -> list[Status | Damaged]:
    """The given runs, or all. Raises UserError if one run is given and it is damaged."""
    found = _read_all([Run.find(path) for path in paths] or list_runs())
    if len(paths) == 1 and isinstance(found[0], Damaged):
        raise found[0].error
    return found


def _read_all(runs: list[Run]) -> list[Status | Damaged]:
    """Reads the state of each run; a damaged run does not hide the others."""
    jobs = {run.path: _unless_damaged(run, _read_jobs) for run in runs}
    queued = find_states([job.id for job in jobs.values() if isinstance(job, JobHistory)])
    found: list[Status | Damaged] = []
    for run in runs:
        job = jobs[run.path]
        found.append(job if isinstance(job, Damaged) else _unless_damaged(run, _read_status, job, queued))
    return found


def _unless_damaged(run: Run, read: Callable[..., T], *arguments: Any) -> T | Damaged:
    try:
        return read(run, *arguments)
    except UserError as error:
        return Damaged(run, error)
    except OSError as error:
        return Damaged(run, UserError(describe_os_error(error)))


def _read_jobs(run: Run) -> JobHistory | None:
    run.check()
    return read_jobs(run)


def _read_status(run: Run, job: JobHistory | None, states: dict[str, str]) -> Status:
    last, step, steps = run.checkpoints / "last.ckpt", run.step, run.planned_steps
    queued = states.get(job.id, "") if job else ""
    state = _name_state(run, queued)
    return Status(
        run=run,
        state=state,
        step=step,
        steps=steps,
        top1=run.summary.get(run.config.recipe.best_by),
        left=_time_left(run, steps - step) if steps and state == "running" else None,
        saved_seconds_ago=time.time() - last.stat().st_mtime if last.is_file() else None,
        job=job,
        queued=queued,
    )


def _name_state(run: Run, queued: str) -> str:
    """The state is `died` if summary.json says running, but the heartbeat has stopped and no job is in the queue."""
    status = run.summary["status"]
    if status == "finished":
        return status
    if run.lock().is_beating():
        return "running"
    if queued:
        return {"PENDING": "queued", "COMPLETING": "stopping"}.get(queued, "starting")
    return "died" if status == "running" else status


def _time_left(run: Run, steps: int) -> timedelta | None:
    speed = float(read_last_row(run.path / "perf.csv").get("perf/images_per_sec") or 0)
    return timedelta(seconds=round(steps * run.config.recipe.batch_size / speed)) if speed else None


def _make_table(found: list[Status | Damaged]) -> list[str]:
    """Names are not shortened, so that they can be pasted. A column without values is left out."""
    rows = [TITLES, *(each.row for each in found if isinstance(each, Status))]
    shown = [at for at, title in enumerate(TITLES) if at < 2 or any(row[at] != "-" for row in rows[1:])]
    widths = [max(len(row[at]) for row in rows) for at in range(len(TITLES))]
    widths[0] = max(widths[0], *(len(each.run.path.name) for each in found))

    def show(row: tuple[str, ...]) -> str:
        cells = (f"{row[at]:{'>' if TITLES[at] in RIGHT else '<'}{widths[at]}}" for at in shown)
        return " ".join(cells).rstrip()

    def show_damage(each: Damaged) -> str:
        return f"{each.run.path.name:{widths[0]}} {'damaged':{widths[1]}} {each.error}"

    return [show(TITLES), *(show(each.row) if isinstance(each, Status) else show_damage(each) for each in found)]


def _describe_one(status: Status) -> list[str]:
    summary, job = status.run.summary, status.job
    lines: dict[str, Any] = {
        "run": status.run.path,
        "state": status.state,
        "step": status.position + (f", about {status.left} left" if status.left else ""),
        "best": f"top-1 {status.accuracy} %, epoch {summary['best_epoch']}" if status.top1 is not None else "-",
        "saved": _describe_age(status.saved_seconds_ago) + (" ago" if status.saved_seconds_ago else ""),
        "starts": len(status.run.info["starts"]),
        **({"stopped": summary["stopped"]} if "stopped" in summary else {}),
    }
    if job:
        restarts = pluralize(max(0, job.starts - 1), "restart")
        lines["job"] = f"{job.id}, {status.queued or 'no longer in the queue'}, {restarts}"
        lines["output"] = status.run.path / f"slurm-{job.id}.out"
    return [f"{name:9} {text}" for name, text in lines.items()]


def _describe_age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
