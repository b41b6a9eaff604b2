"""The SLURM part of the configuration."""

import re
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from resnext.config.types import STRICT, Count

Word = Annotated[str, Field(pattern=r"^\S+$")]
Line = Annotated[str, Field(pattern=r"^[^\n]+$")]
TIME = re.compile(r"(\d+-\d+(:\d+){0,2}|\d+(:\d+){1,2})")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SlurmConfig:
    """The allocation of a SLURM job. The world size is nodes × tasks per node, with one task for each GPU.

    `nodes`: the number of machines. `gpus_per_node`: GPUs of each node; each has one task. `tasks_per_node`: the number
    of tasks on a cluster without GPUs. `cpus_per_task`: cores for a rank and its DataLoader workers. `mem`: memory of
    each node, such as 200G. `time`: the time limit, as D-HH:MM:SS, HH:MM:SS or MM:SS. `partition`, `account`, `qos`,
    `constraint`, `exclude`: sbatch's option of this name. `signal_seconds_before_end`: how long before the time limit
    SLURM signals the ranks to save and exit; it must be enough for two optimizer steps, a save, and up to 60 s for W&B.
    `max_requeues`: how many times the job is requeued after a rank or a node fails; preemption and time limits do not
    count. `prologue`: shell lines before the training, which may set WRAP to a prefix of the python command, as in
    WRAP="apptainer exec --nv torch.sif". `sbatch`: further options of sbatch. `dry_run`: write and show the script, but
    do not submit it.
    """

    nodes: Count = 1
    gpus_per_node: Count | None = None
    tasks_per_node: Count | None = None
    cpus_per_task: Count | None = None
    mem: Word | None = None
    time: Word | None = None
    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    exclude: Word | None = None
    signal_seconds_before_end: Annotated[int, Field(ge=1, le=65535)] = 120  # the maximum of sbatch
    max_requeues: Annotated[int, Field(ge=0)] = 3
    prologue: tuple[Line, ...] = ()
    sbatch: tuple[Line, ...] = ()
    dry_run: bool = False

    @property
    def tasks(self) -> int:
        """Tasks on each node."""
        return self.gpus_per_node or self.tasks_per_node or 1

    @property
    def world_size(self) -> int:
        return self.nodes * self.tasks

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.gpus_per_node and self.tasks_per_node not in (None, self.gpus_per_node):
            raise ValueError(
                f"slurm.tasks_per_node={self.tasks_per_node}, but each of the slurm.gpus_per_node={self.gpus_per_node} "
                "GPUs has one task; leave out slurm.tasks_per_node"
            )
        if self.time is not None and not TIME.fullmatch(self.time):
            raise ValueError(f"slurm.time={self.time} is not a time limit: give HH:MM:SS or D-HH:MM:SS")
        for option in self.sbatch:
            if not option.startswith("-"):
                raise ValueError(f"slurm.sbatch={option} is not an option of sbatch: give --NAME=VALUE")
        return self
