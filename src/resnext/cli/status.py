"""resnext status [RUN …]: where runs are, for people. Reads only, and imports no torch."""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from resnext.errors import UserError, describe_os_error
from resnext.launch.slurm import JobHistory, find_states, read_jobs
from resnext.run.directory import RUNS, Run, list_runs
from resnext.run.metrics import read_last_row

COLUMNS = "{:24} {:11} {:>13} {:>8} {:>9} {}"

T = TypeVar("T")


@dataclass(frozen=True)
class Status:
    """What a run's files and squeue say of it; `queued` is squeue's word, empty where it does not know the job."""

    run: Run
    state: str
    step: int
    steps: int | None
    left: timedelta | None
    saved_seconds_ago: float | None
    job: JobHistory | None
    queued: str

    @property
    def position(self) -> str:
        return f"{self.step:,}/{self.steps:,}" if self.steps else "-"


@dataclass(frozen=True)
class Damaged:
    """A run whose files do not say where it is, and why."""

    run: Run
    error: UserError


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("resnext status", description="State, position, time left and SLURM job of runs.")
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="runs/NAME; by default all of runs/")
    options = parser.parse_args(arguments)
    runs = [Run.find(path) for path in options.runs] or list_runs()
    found = _read_all(runs)
    if not found:
        print(f"{RUNS} has no run")
    elif len(options.runs) > 1 or not options.runs:
        _print_table(found)
    elif isinstance(found[0], Damaged):
        raise found[0].error
    else:
        _print_one(found[0])
    return 0


def _read_all(runs: list[Run]) -> list[Status | Damaged]:
    """One that is damaged leaves the others as they are."""
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
    starts, last = run.info["starts"], run.checkpoints / "last.ckpt"
    step = int(read_last_row(run.path / "metrics.csv").get("step", 0))
    steps = starts[-1].get("steps") if starts else None
    queued = states.get(job.id, "") if job else ""
    state = _name_state(run, queued)
    return Status(
        run=run,
        state=state,
        step=step,
        steps=steps,
        left=_time_left(run, steps - step) if steps and state == "running" else None,
        saved_seconds_ago=time.time() - last.stat().st_mtime if last.is_file() else None,
        job=job,
        queued=queued,
    )


def _name_state(run: Run, queued: str) -> str:
    """`died`: it says that it runs, but its heart has stopped, and no job will go on with it."""
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


def _print_table(found: list[Status | Damaged]) -> None:
    print(COLUMNS.format("run", "state", "step", "left", "saved", "job"))
    for each in found:
        name = each.run.path.name
        name = name if len(name) <= 24 else f"{name[:11]}…{name[-12:]}"
        if isinstance(each, Damaged):
            print(f"{name:24} {'damaged':11} {each.error}")
            continue
        left = str(each.left) if each.left else "-"
        job = f"{each.job.id} {each.queued.lower()}" if each.job else "-"
        print(
            COLUMNS.format(name, each.state, each.position, left, _describe_age(each.saved_seconds_ago), job).rstrip()
        )


def _print_one(status: Status) -> None:
    summary, job = status.run.summary, status.job
    lines: dict[str, Any] = {
        "run": status.run.path,
        "state": status.state,
        "step": status.position + (f", about {status.left} left" if status.left else ""),
        "best": f"top-1 {100 * summary['val/top1']:.2f} %, epoch {summary['best_epoch']}"
        if "val/top1" in summary
        else "-",
        "saved": _describe_age(status.saved_seconds_ago) + (" ago" if status.saved_seconds_ago else ""),
        "starts": len(status.run.info["starts"]),
    }
    if job:
        lines["job"] = f"{job.id}, {status.queued or 'no longer in the queue'}, {max(0, job.starts - 1)} restarts"
        lines["output"] = status.run.path / f"slurm-{job.id}.out"
    for name, text in lines.items():
        print(f"{name:9} {text}")


def _describe_age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
