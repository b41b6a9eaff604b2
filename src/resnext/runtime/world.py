"""World: the rank of this process, and the number of processes and nodes that train one run."""

import os
from dataclasses import dataclass

from resnext.config.schema import TrainerConfig
from resnext.errors import UserError
from resnext.runtime.slurm_job import is_slurm_rank


@dataclass(frozen=True)
class World:
    """The rank of this process among `size` processes that train one run. Each node has the same number of them."""

    rank: int
    size: int
    nodes: int = 1

    @property
    def devices(self) -> int:
        """Processes on each node."""
        return self.size // self.nodes

    @classmethod
    def from_environment(cls) -> "World":
        """The world that srun or torchrun describes; one process without them.

        Raises:
            UserError: if torchrun's nodes have different numbers of processes.
        """
        if is_slurm_rank():
            names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES")
            return cls(*(int(os.environ[name]) for name in names))
        rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
        nodes = int(os.environ.get("GROUP_WORLD_SIZE", size // here))
        if here * nodes != size:
            raise UserError(
                f"torchrun started {size} processes on {nodes} nodes, {here} of them on this one: "
                "give each node the same --nproc-per-node"
            )
        return cls(rank, size, nodes)

    def check(self, config: TrainerConfig) -> None:
        """Raises UserError if the SLURM allocation contradicts `config`."""
        if self.size % self.nodes:
            raise UserError(f"{self.size} tasks on {self.nodes} nodes: give sbatch --ntasks-per-node, not --ntasks")
        if config.devices not in ("auto", self.devices) and is_slurm_rank():
            raise UserError(
                f"trainer.devices={config.devices}, but the SLURM job has {self.devices} tasks on each node; "
                "use trainer.devices=auto"
            )
        if config.nodes not in (1, self.nodes):
            raise UserError(
                f"trainer.nodes={config.nodes}, but the number of nodes here is {self.nodes}; use trainer.nodes=1"
            )
