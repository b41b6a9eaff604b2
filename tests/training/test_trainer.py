"""build_trainer: the settings that `trainer.deterministic` changes, so that a resumed run can be exact on CUDA too."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config

from resnext.runtime.world import World
from resnext.training import trainer as trainer_module
from resnext.training.trainer import build_trainer
from support.small_run import small_config


@pytest.mark.parametrize("deterministic", [False, True])
def test_deterministic_kernels_of_torch_cublas_and_inductor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, deterministic: bool
):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "unset")
    config = small_config(tmp_path, trainer__deterministic=deterministic)
    with torch._inductor.config.patch(deterministic=False):
        try:
            build_trainer(config, World(0, 1), tmp_path, callbacks=[], loggers=[])
            assert torch.are_deterministic_algorithms_enabled() == deterministic
            assert torch._inductor.config.deterministic == deterministic
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == (":4096:8" if deterministic else "unset")
        finally:
            torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("deterministic", [False, True])
def test_cudnn_times_its_kernels_only_without_deterministic(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, deterministic: bool
):
    class Asked(Exception):
        pass

    def trainer(**options: Any) -> None:
        raise Asked(options["benchmark"])

    monkeypatch.setattr(trainer_module, "Trainer", trainer)  # Lightning's Trainer refuses a missing GPU
    config = small_config(tmp_path, trainer__deterministic=deterministic, trainer__accelerator="gpu")
    with torch._inductor.config.patch(deterministic=False), pytest.raises(Asked, match=str(not deterministic)):
        build_trainer(config, World(0, 1), tmp_path, callbacks=[], loggers=[])
