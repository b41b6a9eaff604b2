"""Measures the cost of the ranks' agreement per step. This thread sleeps for 20 ms in each step, as if a GPU computes.

torchrun --nproc-per-node 8 tests/slurm/agreement_cost.py
"""

import time
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed

from resnext.runtime.collectives import MaxOverRanks

STEPS, STEP_SECONDS = 200, 0.02


def measure(ask: Callable[[int], int]) -> float:
    """The mean additional milliseconds per step."""
    torch.distributed.barrier()
    began = time.perf_counter()
    for _ in range(STEPS):
        time.sleep(STEP_SECONDS)
        ask(0)
    return 1000 * ((time.perf_counter() - began) / STEPS - STEP_SECONDS)


def main() -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    agreement = MaxOverRanks(timedelta(minutes=1))
    nothing = measure(lambda _: 0)
    for name, ask in (("waiting", agreement.now), ("overlapped", agreement.of_last_call)):
        cost = measure(ask) - nothing
        agreement.discard()
        if torch.distributed.get_rank() == 0:
            print(f"{torch.distributed.get_world_size()} ranks, {name}: {cost:.2f} ms a step")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
