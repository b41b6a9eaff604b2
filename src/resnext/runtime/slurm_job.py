"""The SLURM job of this process, read from its environment. Imports no torch."""

import os
from contextlib import suppress
from dataclasses import dataclass

EXIT_CODE_FILE = "RESNEXT_EXIT_CODE_FILE"  # set by scripts/train.sbatch


@dataclass(frozen=True)
class SlurmJob:
    """One start of a job; `restarts` counts its requeues."""

    id: str
    nodes: str
    restarts: int

    @classmethod
    def current(cls) -> "SlurmJob | None":
        """The job of this process; None outside a job."""
        environment = os.environ
        if "SLURM_JOB_ID" not in environment:
            return None
        nodes = environment.get("SLURM_JOB_NODELIST", "?")
        return cls(environment["SLURM_JOB_ID"], nodes, int(environment.get("SLURM_RESTART_COUNT", 0)))


def is_slurm_rank() -> bool:
    """Whether srun started this process as one of several ranks. In an interactive srun shell, torchrun starts them."""
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    return tasks > 1 and "SLURM_PROCID" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ


def is_under_batch_script() -> bool:
    """Whether scripts/train.sbatch handles the exit of this process."""
    return EXIT_CODE_FILE in os.environ


def tell_batch_script(exit_code: int) -> None:
    """Writes the exit code of the first rank that fails.

    srun itself may return the exit code of a rank that was killed because of this failure.
    """
    path = os.environ.get(EXIT_CODE_FILE)
    if path and exit_code:
        with suppress(OSError), open(path, "x") as file:  # another rank was first, or the file system fails
            file.write(f"{exit_code}\n")
