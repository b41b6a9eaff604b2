"""SlurmWorkers: each run of a sweep as a SLURM job, by the batch script of `resnext slurm`.

A job lives on without this process: the next start finds it in the queue, by its run's jobs.txt.
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from resnext.config.sweep import SweepConfig
from resnext.errors import RunFailed, UserError
from resnext.launch.slurm import list_own_states, read_jobs
from resnext.run.directory import Run
from resnext.run.run_files import is_run
from resnext.sweep.command import last_line, output_file, start_command
from resnext.sweep.local import Ended
from resnext.sweep.schedule import Job
from resnext.sweep.trial import TrialRun, read_run

SECONDS_BETWEEN_QUERIES = 5.0
QUERIES_WITHOUT_ANSWER = 12
SECONDS_UNTIL_FAILED = 65.0  # NFS may show a file as it was a minute ago


class SlurmWorkers:
    """`sweep.parallel` jobs in the queue. `waits`: whether this process stays until they have ended.

    Raises:
        UserError: if SLURM's commands are not installed here.
    """

    def __init__(self, config: SweepConfig, folder: Path, lock: int, *, waits: bool) -> None:
        self.config, self.folder, self.lock, self.waits = config, folder, lock, waits
        self._jobs: dict[str, _Queued] = {}
        self._failed: list[Ended] = []
        if shutil.which("squeue") is None:
            raise UserError(
                "sweep.launcher=slurm needs squeue and sbatch, which are not installed here: use a login node"
            )

    @property
    def training(self) -> set[str]:
        return {*self._jobs, *(ended.job.run.name for ended in self._failed)}

    def has_place(self) -> bool:
        return len(self._jobs) < self.config.places

    def start(self, job: Job) -> None:
        """Submits the run, unless an earlier start has submitted it.

        Raises:
            RunFailed: if squeue does not answer: a job could be submitted twice.
        """
        queued = _Queued(job, time.time(), is_for_job=was_submitted(job))
        if not queued.is_for_job and not is_queued(job.run, ask_states()):
            code = start_command(self.config, self.folder, job, self.lock).wait()
            if code:
                error = last_line(output_file(self.folder, job)) or f"exit code {code}"
                self._failed.append(Ended(job, -1, queued.began, error))
                return
            queued.is_for_job = True
        self._jobs[job.run.name] = queued

    def wait(self, seconds: float) -> list[Ended]:
        """The jobs that have left the queue, after at most `seconds`, or a minute later if one looks unfinished."""
        deadline = time.monotonic() + seconds
        while not (ended := self._find_ended()) and self._jobs:
            is_leaving = any(each.left is not None for each in self._jobs.values())
            if not is_leaving and (not self.waits or time.monotonic() >= deadline):
                break
            time.sleep(SECONDS_BETWEEN_QUERIES)
        return ended

    def stop(self) -> None:
        """Leaves the jobs in the queue: they need no controller."""
        self._jobs.clear()

    def _find_ended(self) -> list[Ended]:
        failed, self._failed = self._failed, []
        states = list_own_states() if self._jobs else {}
        if states is None:  # no answer: nothing is known
            return failed
        for name, queued in [*self._jobs.items()]:
            if is_queued(queued.job.run, states):
                queued.left = None
            elif not queued.is_for_job:  # of an earlier rung: now the run can be submitted
                del self._jobs[name]
            elif ended := self._end(queued):
                failed.append(ended)
                del self._jobs[name]
        return failed

    def _end(self, queued: "_Queued") -> Ended | None:
        """None while the files may be older than the end of the job: a network file system shows them late."""
        job, now = queued.job, time.monotonic()
        try:
            is_done = job.trial.has_reached_target(read_run(job.run.name, job.run.seed, self.config.metric))
            error = "" if is_done else _describe(job)
        except UserError as damage:
            is_done, error = False, str(damage)
        queued.left = queued.left or now
        if not is_done and now - queued.left < SECONDS_UNTIL_FAILED:
            return None
        return Ended(job, -1, queued.began, error)


@dataclass
class _Queued:
    """A job. `is_for_job`: false for one of an earlier rung. `left`: when it was first seen to be gone."""

    job: Job
    began: float
    is_for_job: bool
    left: float | None = None


def ask_states() -> dict[str, str]:
    """The state of each of this user's jobs. Raises RunFailed if squeue does not answer for a minute."""
    for _ in range(QUERIES_WITHOUT_ANSWER):
        if (states := list_own_states()) is not None:
            return states
        time.sleep(SECONDS_BETWEEN_QUERIES)
    raise RunFailed("squeue does not answer: the jobs stay in the queue; repeat the command later")


def was_submitted(job: Job) -> bool:
    """Whether the run has a job, and its newest start is for this rung."""
    if not is_run(job.run.path):
        return False
    run = Run(job.run.path)
    try:
        return read_jobs(run) is not None and run.config.trainer.pause_after_epochs == job.pause_after_epochs
    except UserError:  # damaged: its submission says so
        return False


def is_queued(run: TrialRun, states: dict[str, str]) -> bool:
    """Whether the newest job of a run is still in the queue, with these states of all jobs."""
    jobs = read_jobs(Run(run.path)) if is_run(run.path) else None
    return jobs is not None and jobs.id in states


def _describe(job: Job) -> str:
    """Why the run of a job that has left the queue is not where it should be."""
    run = Run(job.run.path)
    jobs = read_jobs(run)
    number = jobs.id if jobs else ""
    status = run.summary["status"]
    return f"job {number} has left the queue, and the run is {status}: see {run.path}/slurm-{number}.out"
