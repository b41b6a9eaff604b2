"""Measures a step with fixed gradient buckets, with DDP's own, and with find_unused_parameters=True.

torchrun --nproc-per-node 8 tests/slurm/bucket_cost.py
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from resnext.config.schema import ModelConfig
from resnext.models.factory import build_model
from resnext.runtime.gradient_buckets import fix_buckets

ROUNDS, STEPS = 9, 1
IMAGES = torch.randn(2, 3, 64, 64)


def build(*, find_unused_parameters: bool = False) -> DistributedDataParallel:
    network = build_model(ModelConfig(name="resnext50_32x4d"), num_classes=1000)
    options = {"forward_sync_buffers": False, "gradient_as_bucket_view": True}
    return DistributedDataParallel(network, find_unused_parameters=find_unused_parameters, **options)


def seconds_of(action: Callable[[], None]) -> float:
    torch.distributed.barrier()
    began = time.perf_counter()
    action()
    torch.distributed.barrier()
    return time.perf_counter() - began


def train(model: DistributedDataParallel) -> None:
    for _ in range(STEPS):
        model(IMAGES).sum().backward()
        model.zero_grad()


def main() -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    models = {"DDP's own": build(), "fixed": build(), "find_unused_parameters": build(find_unused_parameters=True)}
    once = seconds_of(lambda: fix_buckets(models["fixed"]))
    for model in models.values():
        train(model)  # not timed: DDP's own buckets have another layout in the first step
    times = {name: [] for name in models}
    for _ in range(ROUNDS):
        for name, model in models.items():
            times[name].append(seconds_of(lambda model=model: train(model)) / STEPS)
    if torch.distributed.get_rank() == 0:
        own = times["DDP's own"]
        for name, taken in times.items():
            ratios = sorted(each / reference for each, reference in zip(taken, own, strict=True))
            quartiles = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
            print(
                f"{torch.distributed.get_world_size()} ranks, {name}: {1000 * statistics.median(taken):.0f} ms a step, "
                f"{statistics.median(ratios):.3f} of DDP's own (quartiles {quartiles[0]:.3f} to {quartiles[1]:.3f})"
            )
        print(f"fixing them, once a start: {1000 * once:.0f} ms")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
