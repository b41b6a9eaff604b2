"""A run as a SLURM job: its batch script, its submission, and its state in squeue. Imports no torch."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from resnext.config.paths import PROJECT
from resnext.config.schema import Config, SlurmConfig
from resnext.errors import UserError
from resnext.files import atomic_write, read_text
from resnext.run.directory import Run

TEMPLATE = PROJECT / "scripts/train.sbatch"
SQUEUE_SECONDS = 10.0
JOBS = "jobs.txt"  # in a run: its jobs and their starts; scripts/train.sbatch appends to it


def write_script(run: Run) -> Path:
    """runs/NAME/job.sbatch: scripts/train.sbatch with this run's options, name and prologue."""
    config = run.config.slurm
    text = TEMPLATE.read_text()
    text = re.sub(r"^# .*?(?=^#SBATCH)", _header(run), text, count=1, flags=re.MULTILINE | re.DOTALL)
    options = "".join(f"#SBATCH {option}\n" for option in _sbatch_options(run, config))
    text = re.sub(r"(^#SBATCH .*\n)+", lambda _: options, text, count=1, flags=re.MULTILINE)
    for name, value in (("run", str(run.path)), ("python", sys.executable), ("max_requeues", config.max_requeues)):
        line = f"{name}={shlex.quote(str(value))}"
        text = re.sub(rf"^{name}=.*$", lambda _, line=line: line, text, count=1, flags=re.MULTILINE)
    text = text.replace("# prologue\n", "".join(f"{line}\n" for line in config.prologue), 1)
    path = run.path / "job.sbatch"
    if path.exists() and path.read_text() != text:
        path.replace(run.path / "job.sbatch.old")  # the user may have edited it
    atomic_write(path, text)
    return path


def submit(script: Path) -> str:
    """Submits `script` and returns the job's id.

    Raises:
        UserError: if sbatch is missing or fails; the message quotes sbatch.
    """
    try:
        result = subprocess.run(["sbatch", "--parsable", str(script)], capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(
            f"sbatch is not installed here: run this on a login node, or run `sbatch {script}` there"
        ) from None
    if result.returncode:
        raise UserError(f"sbatch failed for {script}: {' '.join(result.stderr.split())}")
    job = result.stdout.strip().partition(";")[0]  # JOB;CLUSTER
    with open(script.parent / JOBS, "a") as file:
        file.write(f"{job} submitted\n")
    return job


def check_not_queued(run: Run) -> None:
    """Raises UserError if a job of the run is pending or running."""
    job = read_jobs(run)
    state = find_states([job.id]).get(job.id) if job else None
    if job and state:
        raise UserError(f"{run.path} is already in the queue: job {job.id} is {state}; wait, or run `scancel {job.id}`")


def check_world(config: Config) -> None:
    """Raises UserError if the number of ranks is not given, or if trainer contradicts slurm."""
    slurm, trainer = config.slurm, config.trainer
    if slurm.gpus_per_node is None and slurm.tasks_per_node is None:
        raise UserError("give slurm.gpus_per_node=8 (GPUS=8), or slurm.tasks_per_node on a cluster without GPUs")
    for name, given, asked, meaning in (
        ("devices", trainer.devices, slurm.tasks, "tasks on each node"),
        ("nodes", trainer.nodes, slurm.nodes, "nodes"),
    ):
        if given not in ("auto", 1, asked):
            raise UserError(f"trainer.{name}={given}, but slurm asks for {asked} {meaning}; leave trainer.{name} out")
    if trainer.accelerator == ("cpu" if slurm.gpus_per_node else "gpu"):
        raise UserError(
            f"trainer.accelerator={trainer.accelerator}, but slurm.gpus_per_node="
            f"{slurm.gpus_per_node or 'null'}; leave one of them out"
        )


def check_paths(config: Config) -> None:
    """Raises UserError for a path that #SBATCH cannot hold. With a backslash, sbatch does not replace the %j in it."""
    key, name = ("run", config.run) if config.run is not None else ("experiment", config.experiment)
    if "\\" in name:
        raise UserError(
            f"{key}={name}: SLURM does not accept a backslash in the path of its output; choose another run=NAME"
        )
    folder = os.getcwd()  # noqa: PTH109 - as in _sbatch_options
    if folder.splitlines() != [folder]:
        raise UserError(f"the path of this folder has more than one line, which sbatch does not accept: {folder!r}")


class JobHistory:
    """The newest job of a run, and how many times it was started."""

    def __init__(self, lines: list[list[str]]) -> None:
        self.id = lines[-1][0]
        self.starts = sum(words[:2] == [self.id, "start"] for words in lines)


def read_jobs(run: Run) -> JobHistory | None:
    """The jobs of a run; None if there are none."""
    try:
        lines = [line.split() for line in read_text(run.path / JOBS).splitlines()]
    except FileNotFoundError:
        return None
    # squeue refuses the whole list for one malformed id
    lines = [words for words in lines if words and re.fullmatch(r"[0-9]+", words[0])]
    return JobHistory(lines) if lines else None


def list_own_states() -> dict[str, str] | None:
    """The state of each of this user's jobs in the queue; None if squeue does not answer."""
    result = _query("--me")
    return _parse_states(result.stdout) if result is not None and result.returncode == 0 else None


def find_states(jobs: list[str]) -> dict[str, str]:
    """The state of each job that squeue still lists. Empty if squeue is missing or does not answer in time."""
    if not jobs:
        return {}
    result = _query(f"--jobs={','.join(jobs)}")
    return _parse_states(result.stdout) if result is not None else {}


def _query(which: str) -> subprocess.CompletedProcess[str] | None:
    """What squeue says of these jobs; None if squeue is missing or does not answer in time."""
    command = ["squeue", "--noheader", "--format=%i %T", which]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=SQUEUE_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None


def _parse_states(lines: str) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in lines.splitlines() if " " in line)


def _header(run: Run) -> str:
    return (
        f"# Written by `resnext slurm` for {run.path}; edit it as you like, and submit it with: "
        f"sbatch {shlex.quote(f'{run.path}/job.sbatch')}\n"
    ).replace("\\", "\\\\")


def _sbatch_options(run: Run, config: SlurmConfig) -> list[str]:
    """The options of the #SBATCH lines. The job's name has only letters, digits and `_`, `.`, `-`.

    sbatch replaces patterns such as %j in --output; `%%` stands for %.
    """
    given = {
        "job-name": re.sub(r"[^\w.-]", "_", run.path.name),
        "chdir": os.getcwd(),  # noqa: PTH109 - runs/ is relative to it
        "output": f"{str(run.path).replace('%', '%%')}/slurm-%j.out",
        "open-mode": "append",
        "nodes": config.nodes,
        "ntasks-per-node": config.tasks,
        "gres": config.gpus_per_node and f"gpu:{config.gpus_per_node}",
        "cpus-per-task": config.cpus_per_task,
        "mem": config.mem,
        "time": config.time,
        "partition": config.partition,
        "account": config.account,
        "qos": config.qos,
        "constraint": config.constraint,
        "exclude": config.exclude,
        "signal": f"USR1@{config.signal_seconds_before_end}",
    }
    options = [f"--{name}={_quote(str(value))}" for name, value in given.items() if value is not None]
    return [*options, "--requeue", *config.sbatch]


def _quote(value: str) -> str:
    return value if re.fullmatch(r"[\w./:@%,+=-]+", value) else '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
