"""Counts the devices of this machine, and resolves the `auto` values of the trainer.

The values for the CPU are measured; the values for CUDA are from the literature.
"""

import logging
import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from resnext.config.schema import TrainerConfig
from resnext.errors import UserError

log = logging.getLogger(__name__)


def count_devices(config: TrainerConfig) -> int:
    """The number of processes on this node: `trainer.devices`; auto: one for each GPU, else one.

    Raises:
        UserError: if trainer.devices is more than the number of GPUs or CPU cores.
    """
    gpu = find_accelerator(config) == "gpu"
    available = torch.cuda.device_count() if gpu else os.cpu_count() or 1
    if config.devices == "auto":
        return available if gpu else 1
    if config.devices > available:
        kind = "GPUs" if gpu else "CPU cores"
        raise UserError(f"trainer.devices={config.devices}, but this machine has {available} {kind}")
    return config.devices


def find_accelerator(config: TrainerConfig) -> str:
    """The device to use: gpu or cpu.

    Raises:
        UserError: if trainer.accelerator=gpu and there is no GPU.
    """
    if config.accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError("trainer.accelerator=gpu, but torch finds no CUDA device here; use trainer.accelerator=cpu")
    return "gpu" if config.accelerator != "cpu" and torch.cuda.is_available() else "cpu"


def resolve_auto(config: TrainerConfig, kept: dict[str, Any] | None = None) -> TrainerConfig:
    """`config` with the best accelerator, precision, compile and channels_last for this machine.

    `kept` are the values of an earlier start, which are used again if the accelerator is the same.
    """
    gpu = find_accelerator(config) == "gpu"
    if config.precision == "16-mixed" and not gpu:
        raise UserError("trainer.precision=16-mixed needs a GPU; on a CPU use bf16-mixed or 32-true")
    fast_bf16 = torch.cuda.is_bf16_supported() if gpu else has_amx()
    best = {
        "accelerator": "gpu" if gpu else "cpu",
        "precision": "bf16-mixed" if fast_bf16 else "16-mixed" if gpu else "32-true",
        "compile": gpu,  # on a CPU it takes 50 to 100 s for 3 %
        "channels_last": True,
    }
    if kept is not None and kept["accelerator"] == best["accelerator"]:
        best = kept
    elif kept is not None:
        log.warning(
            "this run began on a %s and is now on a %s: results will differ", kept["accelerator"], best["accelerator"]
        )
    return replace(config, **{name: value for name, value in best.items() if getattr(config, name) == "auto"})


def resolved_values(config: TrainerConfig) -> dict[str, Any]:
    """The resolved values that a run keeps."""
    return {name: getattr(config, name) for name in ("accelerator", "precision", "compile", "channels_last")}


def describe_device(config: TrainerConfig) -> str:
    """The GPU's name, or the processor's."""
    if config.accelerator == "gpu":
        return torch.cuda.get_device_name()
    try:
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    except OSError:
        names = []
    return names[0].partition(":")[2].strip() if names else platform.machine()


def has_amx() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware tiles (Intel AMX)."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
