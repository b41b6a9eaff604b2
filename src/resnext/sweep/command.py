"""The command line of one run of a sweep: what a user would type to train that run alone."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from resnext.config.sweep import SweepConfig
from resnext.sweep.schedule import Job
from resnext.sweep.trial import Trial, TrialRun

EMPTY: Mapping[str, str] = {}
ERRORS = ("resnext train: ", "resnext slurm: ", "resnext fit: ")
SHORTENED = ("recipe.epochs", "recipe.max_steps")  # a sweep may train for less than the whole training


def run_overrides(config: SweepConfig, trial: Trial, run: TrialRun) -> list[str]:
    """The overrides that make this run, without its name."""
    seed = [] if run.seed is None else [f"seed={run.seed}"]
    return [*config.overrides, *trial.overrides, *seed]


def job_command(config: SweepConfig, job: Job) -> list[str]:
    """`resnext train` or `resnext slurm` for this run up to the next rung. Repeated, it resumes the run."""
    overrides = run_overrides(config, job.trial, job.run)
    keys = {each.partition("=")[0] for each in overrides}
    pause = "null" if job.pause_after_epochs is None else job.pause_after_epochs
    quiet = [] if "logger.report" in keys else ["logger.report=false"]  # the sweep has a page of all runs
    own = [f"trainer.pause_after_epochs={pause}", *quiet, f'run="{job.run.name}"']
    folder = [] if config.config_dir is None else ["--config-dir", config.config_dir]
    verb = "slurm" if config.launcher == "slurm" else "train"
    return [sys.executable, "-m", "resnext", verb, *overrides, *own, *folder]


def start_command(
    config: SweepConfig,
    folder: Path,
    job: Job,
    lock: int,
    environment: Mapping[str, str] = EMPTY,
    prepare: Callable[[], None] | None = None,
) -> subprocess.Popen[bytes]:
    """Starts the job's command in the background. What it prints goes to its file in output/.

    Args:
        lock: a descriptor that the process keeps open until it ends: so long, no other start of the sweep begins.
        prepare: is called in the new process, before its program begins.
    """
    with open(output_file(folder, job), "ab") as output:
        return subprocess.Popen(
            job_command(config, job),
            env={**os.environ, "WANDB_RUN_GROUP": folder.name, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a Ctrl-C reaches only the process of the sweep
            pass_fds=[lock],
            preexec_fn=prepare,
        )


def best_command(config: SweepConfig, trial: Trial) -> tuple[list[str], list[str]]:
    """The arguments of `resnext train` for a trial at full length, and what they leave out of the sweep's."""
    overrides = [*config.overrides, *trial.overrides]
    left_out = [each for each in overrides if each.partition("=")[0] in SHORTENED]
    left_out = [each for each in left_out if each not in trial.overrides]
    return [each for each in overrides if each not in left_out], left_out


def output_file(folder: Path, job: Job) -> Path:
    """The file for what the command of this job prints."""
    until = "end" if job.pause_after_epochs is None else job.pause_after_epochs
    return folder / "output" / f"{job.run.name}-to-{until}.txt"


def last_line(path: Path) -> str:
    """The newest line that a run's command printed as an error; else its newest line."""
    try:
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    errors = [line.partition(": ")[2] for line in lines if line.startswith(ERRORS)]
    return (errors or lines or [""])[-1]
