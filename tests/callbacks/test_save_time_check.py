"""The warning about too little time to save, in a training in a SLURM job."""

import logging
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import wandb

from resnext.callbacks import save_time_check as module
from resnext.callbacks.save_time_check import SaveTimeCheck
from resnext.data.images import load_images
from resnext.data.index import identify_data
from resnext.run.directory import Run
from resnext.runtime.checkpoint_io import AtomicCheckpointIO
from resnext.training.fit import fit
from support.small_run import micro_steps_of, small_config


@pytest.mark.parametrize(("seconds", "warnings"), [(1, 1), (60, 0)])
def test_too_little_time_to_save_is_warned_of_once(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: int, warnings: int
):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    save = AtomicCheckpointIO.save_checkpoint

    def save_slowly(io: AtomicCheckpointIO, *arguments: object, **options: object) -> None:
        time.sleep(1)
        save(io, *arguments, **options)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", save_slowly)
    options = {"recipe__max_steps": 4, "checkpoint__every_steps": 2, "slurm__signal_seconds_before_end": seconds}
    config = small_config(digits, **options)
    fit(Run.create(config, identify_data(*load_images(config.data)), ["test"]))
    said = " ".join(capsys.readouterr().out.split())
    assert said.count(f"but slurm.signal_seconds_before_end={seconds}: give at least") == warnings
    assert "slurm job 12, restart 0, on ?, from step 0" in said


@pytest.fixture
def run_steps(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """Runs steps of the given seconds and image sizes, with a save of 1 s. Returns the warnings."""
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)

    def run(seconds: int, steps: list[tuple[float, int]]) -> str:
        nonlocal now
        trainer = SimpleNamespace(accumulate_grad_batches=2, is_global_zero=True)
        task = micro_steps_of(trainer)
        check = SaveTimeCheck(seconds, SimpleNamespace(longest_save=1.0))
        for step, (duration, size) in enumerate(steps):
            for batch_idx in (2 * step, 2 * step + 1):
                check.on_train_batch_start(trainer, task, (torch.empty(4, 3, size, size), None), batch_idx)
                now += duration / 2
                check.on_train_batch_end(trainer, task, None, None, batch_idx)
        return caplog.text

    caplog.set_level(logging.WARNING, "resnext")
    return run


def test_steps_that_compile_do_not_count(run_steps):
    """The first step of each image size compiles."""
    assert run_steps(10, [(300, 128), (2, 128), (300, 160), (3, 160), (2, 128)]) == ""
    assert "saving and exiting take up to 11 s (two steps of 5.0 s, a save of 1.0 s)" in run_steps(
        10, [(5, 128), (5, 128)]
    )


@pytest.mark.parametrize("offline", [False, True])
def test_the_time_to_finish_wandb_counts(run_steps, monkeypatch: pytest.MonkeyPatch, offline: bool):
    monkeypatch.setattr(wandb, "run", SimpleNamespace(offline=offline))
    said = run_steps(60, [(2, 128), (2, 128)])
    assert (
        "saving and exiting take up to 65 s (two steps of 2.0 s, a save of 1.0 s, 60 s for W&B)" in said
    ) is not offline
