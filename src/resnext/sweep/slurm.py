"""SlurmWorkers: each run of a sweep as a SLURM job, by the batch script of `resnext slurm`.

A job lives on without this process: the next start finds it in the queue, by its run's jobs.txt.
"""

import os
import subprocess
import time
from pathlib import Path

from resnext.config.sweep import SweepConfig
from resnext.errors import RunFailed
from resnext.files import read_text
from resnext.launch.slurm import JOBS, list_own_states, read_jobs
from resnext.run.directory import Run
from resnext.run.run_files import is_run
from resnext.sweep.command import job_command, last_line, output_file
from resnext.sweep.local import Ended
from resnext.sweep.schedule import Job
from resnext.sweep.trial import TrialRun, read_run

SECONDS_BETWEEN_QUERIES = 5.0
QUERIES_WITHOUT_ANSWER = 12


class SlurmWorkers:
    """`sweep.parallel` jobs in the queue. `waits`: whether this process stays until they have ended."""

    def __init__(self, config: SweepConfig, folder: Path, lock: int, *, waits: bool) -> None:
        self.config, self.folder, self.lock, self.waits = config, folder, lock, waits
        self._jobs: dict[str, tuple[Job, float]] = {}
        self._failed: list[Ended] = []

    @property
    def training(self) -> set[str]:
        return {*self._jobs, *(ended.job.run.name for ended in self._failed)}

    def has_place(self) -> bool:
        return len(self._jobs) < self.config.places

    def start(self, job: Job) -> None:
        """Submits the run, unless an earlier start has submitted it. If that job has left the queue, it has failed.

        Raises:
            RunFailed: if squeue does not answer: a job could be submitted twice.
        """
        began = time.time()
        is_queued_for_job = self._is_queued(job)
        if not is_queued_for_job and count_submissions(job.run) > job.trial.promotions:
            self._failed.append(Ended(job, -1, began, _describe(job, self.config.metric)))
            return
        if not is_queued_for_job:
            output = output_file(self.folder, job.run)
            with open(output, "ab") as file:
                code = subprocess.run(
                    job_command(self.config, job),
                    env={**os.environ, "WANDB_RUN_GROUP": self.folder.name},
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                    pass_fds=[self.lock],  # a submission that outlives this process delays the next start
                ).returncode
            if code:
                self._failed.append(Ended(job, -1, began, last_line(output) or f"exit code {code}"))
                return
        self._jobs[job.run.name] = (job, began)

    def wait(self, seconds: float) -> list[Ended]:
        """The jobs that have left the queue, after at most `seconds`."""
        deadline = time.monotonic() + seconds
        while not (ended := self._find_ended()) and self._jobs and self.waits:
            if time.monotonic() >= deadline:
                break
            time.sleep(SECONDS_BETWEEN_QUERIES)
        return ended

    def stop(self) -> None:
        """Leaves the jobs in the queue: they need no controller."""
        self._jobs.clear()

    def _is_queued(self, job: Job) -> bool:
        """Waits for the job of an earlier rung to leave the queue: it has reached its epoch, and ends soon."""
        silent = 0
        while True:
            states = list_own_states()
            silent = silent + 1 if states is None else 0
            if silent > QUERIES_WITHOUT_ANSWER:
                raise RunFailed("squeue does not answer: the jobs stay in the queue; repeat the command later")
            if states is not None and not is_queued(job.run, states):
                return False
            if states is not None and Run(job.run.path).config.trainer.pause_after_epochs == job.pause_after_epochs:
                return True
            time.sleep(SECONDS_BETWEEN_QUERIES)

    def _find_ended(self) -> list[Ended]:
        failed, self._failed = self._failed, []
        states = list_own_states() if self._jobs else {}
        if states is None:  # no answer: nothing is known
            return failed
        left = [name for name, (job, _) in self._jobs.items() if not is_queued(job.run, states)]
        ended = [self._jobs.pop(name) for name in left]
        return failed + [Ended(job, -1, began, _describe(job, self.config.metric)) for job, began in ended]


def count_submissions(run: TrialRun) -> int:
    """How many jobs the run has had: each rung has one."""
    try:
        return sum(line.split()[1:2] == ["submitted"] for line in read_text(run.path / JOBS).splitlines())
    except FileNotFoundError:
        return 0


def is_queued(run: TrialRun, states: dict[str, str]) -> bool:
    """Whether the newest job of a run is still in the queue, with these states of all jobs."""
    if not is_run(run.path):
        return False
    jobs = read_jobs(Run(run.path))
    return jobs is not None and jobs.id in states


def _describe(job: Job, metric: str | None) -> str:
    """Why a job has left the queue; empty if its run has reached what it was asked to."""
    if read_run(job.run.name, job.run.seed, metric).has_reached(job.trial.target):
        return ""
    run = Run(job.run.path)
    status = run.summary["status"]
    jobs = read_jobs(run)
    number = jobs.id if jobs else ""
    return f"job {number} has left the queue, and the run is {status}: see {run.path}/slurm-{number}.out"
