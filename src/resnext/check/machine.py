"""What this machine has: free memory, space for checkpoints, and whether W&B can be reached."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from resnext.check.finding import Finding
from resnext.config.schema import Config
from resnext.data import ram_cache
from resnext.files import check_writable
from resnext.run.directory import RUNS
from resnext.terminal import describe_bytes

SLOTS = {"sgd": 1, "momentum": 1, "lamb": 2, "adamw": 2}  # values that an optimizer keeps for each parameter


def free_memory(*, gpu: bool) -> int:
    """Bytes that a new process can use: of the GPU, or of this machine and its control groups."""
    return torch.cuda.mem_get_info()[0] if gpu else ram_cache.free_memory()


def checkpoint_bytes(config: Config, network: nn.Module, optimizer: Optimizer) -> int:
    """The size of last.ckpt: the weights, their moving average and the optimizer's state."""
    weights = sum(each.nbytes for each in network.state_dict().values())
    trained = sum(each.nbytes for group in optimizer.param_groups for each in group["params"])
    slots = SLOTS.get(config.recipe.optimizer.name, 2)
    return weights * (2 if config.recipe.ema.decay else 1) + slots * trained


def check_space(config: Config, checkpoint: int) -> Iterator[Finding]:
    """Whether runs/ can be written, and has space for last.ckpt, previous.ckpt, best.ckpt and one that is written."""
    folder = RUNS if RUNS.is_dir() else Path()
    try:
        check_writable(folder)
    except OSError as error:
        text = f"{folder.absolute()} cannot be written ({error.strerror})"
        yield Finding("fail", "space", text, "make it writable, or start in another folder")
        return
    kept = config.recipe.epochs // config.checkpoint.keep_every_epochs if config.checkpoint.keep_every_epochs else 0
    needed, free = (4 + kept) * checkpoint, shutil.disk_usage(folder).free
    text = f"checkpoints take {describe_bytes(needed)}, and {RUNS}/ has {describe_bytes(free)} free"
    if needed > free:
        remedy = "free space, or link runs/ to another disk"
        yield Finding("fail", "space", text, f"{remedy}, or keep fewer checkpoints" if kept else remedy)
    else:
        yield Finding("ok", "space", text)


def check_loggers(config: Config) -> Iterator[Finding]:
    from resnext.loggers.wandb import find_obstacle, is_wanted  # imports wandb

    if not is_wanted(config.logger.mode):
        yield Finding("ok", "W&B", "disabled; metrics.csv has all metrics")
    elif (obstacle := find_obstacle(config.logger.mode)) is None:
        yield Finding("ok", "W&B", "the server answers")
    elif config.logger.mode == "offline":
        yield Finding("ok", "W&B", "offline as requested; `wandb sync` sends the run later")
    else:
        remedy = "`wandb login`, or logger=csv to do without; `wandb sync` can send the run later"
        yield Finding("warn", "W&B", f"the run will be offline ({obstacle})", remedy)
