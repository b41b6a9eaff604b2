"""Guards against silent errors: losses that are not finite, failed saves, and changed epochs."""

import errno
import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from resnext.callbacks.last_checkpoint import LastCheckpoint
from resnext.config.checkpoint_metadata import CheckpointMetadata
from resnext.config.schema import CheckpointConfig
from resnext.data.images import load_images
from resnext.errors import Interrupted, RunFailed, UserError
from resnext.loggers import csv as csv_logger
from resnext.run.directory import Run
from resnext.run.identity import RunMark
from resnext.run.metrics import read_rows
from resnext.runtime import checkpoint_io
from resnext.runtime.checkpoint import load_checkpoint, read_checkpoint
from resnext.runtime.signals import StopRequest
from resnext.task.finite import MAX_SKIPPED
from resnext.task.optimization import lr_at
from resnext.training.fit import fit
from resnext.training.preflight import check_epochs
from support.small_run import small_config
from support.stopping import Stopper, make_run, with_callbacks


class Poison(Callback):
    """Makes the images of these steps, counted from 1, not finite."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step + 1 in self.steps:
            batch[0].fill_(math.nan)


def weights(run: Run, name: str = "last.ckpt") -> dict[str, torch.Tensor]:
    return load_checkpoint(run.checkpoints / name)["state_dict"]


@pytest.mark.parametrize("every_steps", [1, 50])
def test_a_loss_that_is_not_finite_ends_the_training_and_is_never_saved(digits: Path, every_steps: int):
    """The error names the step, whether the loss is detected at its log line or before the next save."""
    run = make_run(small_config(digits, logger__every_steps=every_steps, checkpoint__every_steps=7))
    with (
        with_callbacks(Poison(17)),
        pytest.raises(RunFailed, match=r"the loss of step 17 is not finite.*\(traceback in runs/test/log.txt\)"),
    ):
        fit(run)
    assert run.summary["status"] == "failed"
    assert read_checkpoint(run.checkpoints / "last.ckpt").step == 14
    assert all(value.isfinite().all() for value in weights(run).values())


def test_a_skipped_step_changes_nothing(digits: Path, caplog: pytest.LogCaptureFixture):
    """Weights, momentum and batch statistics are the same before and after it."""
    run = make_run(small_config(digits, trainer__on_nonfinite="skip", checkpoint__every_steps=1))
    with with_callbacks(Poison(5), Stopper("on_train_batch_start", 4)), pytest.raises(Interrupted):
        fit(run)
    after, before = (load_checkpoint(run.checkpoints / name) for name in ("last.ckpt", "previous.ckpt"))
    assert (before["global_step"], after["global_step"]) == (4, 5)
    assert all(torch.equal(value, after["state_dict"][name]) for name, value in before["state_dict"].items())
    for parameter, state in before["optimizer_states"][0]["state"].items():
        assert torch.equal(
            state["momentum_buffer"], after["optimizer_states"][0]["state"][parameter]["momentum_buffer"]
        )
    assert "step 5 is skipped: its loss is not finite" in (run.path / "log.txt").read_text()


def test_a_training_continues_after_steps_that_are_skipped(digits: Path):
    run = make_run(small_config(digits, trainer__on_nonfinite="skip", trainer__micro_batch_size=8, recipe__epochs=1))
    with with_callbacks(Poison(3, 4, 20)):
        fit(run)
    losses = {int(row["step"]): row["train/loss"] for row in read_rows(run.path / "metrics.csv") if row["train/loss"]}
    assert sorted(losses) == list(range(1, 45))
    assert [step for step, loss in losses.items() if loss == "nan"] == [3, 4, 20]
    assert all(value.isfinite().all() for value in weights(run).values())


def test_too_many_skipped_steps_end_the_training(digits: Path):
    run = make_run(small_config(digits, trainer__on_nonfinite="skip", recipe__epochs=9))
    with (
        with_callbacks(Poison(*range(1, 9999))),
        pytest.raises(RunFailed, match=f"{MAX_SKIPPED} steps in a row were skipped, up to step {MAX_SKIPPED}"),
    ):
        fit(run)


def full_disk(monkeypatch: pytest.MonkeyPatch, *, after: int) -> list[int]:
    """Every save after the first `after` saves fails."""
    saves: list[int] = []
    write = checkpoint_io._write

    def write_or_fail(content: Any, target: Path, *kept: Any) -> None:
        saves.append(-1 if isinstance(content, bytes) else content["global_step"])
        if len(saves) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(content, target, *kept)

    monkeypatch.setattr(checkpoint_io, "_write", write_or_fail)
    return saves


def test_a_training_continues_after_failed_saves(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Until checkpoint.max_failures saves in a row have failed. The earlier checkpoints are intact."""
    run = make_run(small_config(digits, checkpoint__every_steps=5, checkpoint__max_failures=3))
    saves = full_disk(monkeypatch, after=2)
    with pytest.raises(
        RunFailed, match=r"last.ckpt could not be saved, 3 times in a row \(checkpoint.max_failures=3\)"
    ):
        fit(run)
    assert saves == [5, 10, 15, 20, 25]
    assert capsys.readouterr().out.count("last.ckpt could not be saved: No space left on device") == 3
    assert [read_checkpoint(run.checkpoints / name).step for name in ("last.ckpt", "previous.ckpt")] == [10, 5]


def test_a_training_whose_last_save_failed_is_not_finished(digits: Path, monkeypatch: pytest.MonkeyPatch):
    run = make_run(small_config(digits, recipe__max_steps=6, checkpoint__every_steps=5))
    with monkeypatch.context() as patch:
        full_disk(patch, after=1)
        with pytest.raises(RunFailed, match=r"last.ckpt could not be saved"):
            fit(run)
    assert run.summary["status"] == "failed"
    fit(run)
    assert [start["from_step"] for start in run.info["starts"]] == [0, 5]
    assert run.summary["status"] == "finished"


def test_no_checkpoint_is_ahead_of_metrics_csv(digits: Path, monkeypatch: pytest.MonkeyPatch):
    """From step 8 on, the disk is full for metrics.csv but not for checkpoints."""

    def full(path: Path, mode: str = "r", **options: Any) -> Any:
        if mode == "a" and path.name == "metrics.csv" and path.read_text().count("\n") >= 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        return open(path, mode, **options)

    run = make_run(small_config(digits, checkpoint__every_steps=5, checkpoint__max_failures=3))
    with monkeypatch.context() as patch, pytest.raises(RunFailed, match=r"could not be saved, 3 times in a row"):
        patch.setattr(csv_logger, "open", full, raising=False)
        fit(run)
    assert read_checkpoint(run.checkpoints / "last.ckpt").step == 5
    fit(run)
    rows = read_rows(run.path / "metrics.csv")
    assert [int(row["step"]) for row in rows if row["lr"]] == list(range(1, 89))


def test_a_training_without_a_step_is_an_error(digits: Path):
    class Lazy(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            pl_module.on_train_start = lambda: None
            trainer.should_stop = True

    run = make_run(small_config(digits))
    with with_callbacks(Lazy()), pytest.raises(RunFailed, match="training ended after 0 of 88 steps"):
        fit(run)


def test_epochs_can_be_raised_and_a_finished_run_continues(digits: Path, capsys: pytest.CaptureFixture[str]):
    run = make_run(small_config(digits, recipe__batch_size=360, recipe__epochs=2))
    fit(run)
    longer = raise_epochs(run, 3)
    fit(longer)
    assert run.summary["status"] == "finished"
    rows = [row for row in read_rows(run.path / "metrics.csv") if row["lr"]]
    assert [int(row["step"]) for row in rows] == list(range(1, 10))
    recipes = [run.made.recipe] * 6 + [longer.config.recipe] * 3
    assert [float(row["lr"]) for row in rows] == [lr_at(step, each, 3) for step, each in enumerate(recipes)]
    output = capsys.readouterr().out
    assert output.count("warning: recipe.epochs was 2 and is now 3: the learning rate continues at") == 1
    assert "resumed   from step 6: last.ckpt" in output


def test_only_resume_raises_the_epochs(digits: Path):
    config = small_config(digits, recipe__batch_size=720)
    run = raise_epochs(make_run(config), 3)
    assert make_run(config).config.recipe.epochs == 3
    with pytest.raises(UserError, match=r"^runs/test has recipe.epochs=3, and 5 was given; `resnext resume runs/test "):
        make_run(with_epochs(config, 5))
    train, _ = load_images(config.data)
    fit(run)
    with pytest.raises(UserError, match=r"recipe.epochs=2: runs/test is at epoch 3; give 3 or more"):
        check_epochs(run, with_epochs(config, 2), train)


def test_a_start_is_trained_with_its_own_configuration(digits: Path):
    """Even if another start is added before this start gets the lock."""
    config = small_config(digits, recipe__max_steps=2)
    run = make_run(config)
    first = run.add_start(replace(config, logger=replace(config.logger, every_steps=2)))
    run.add_start(replace(config, logger=replace(config.logger, every_steps=7)))
    fit(first)
    assert [start["config"] for start in run.info["starts"]] == ["starts/2.yaml"]
    assert [row["step"] for row in read_rows(run.path / "metrics.csv") if row["lr"]] == ["2"]


def raise_epochs(run: Run, epochs: int) -> Run:
    return run.add_start(with_epochs(run.config, epochs))


def with_epochs(config: Any, epochs: int) -> Any:
    return replace(config, recipe=replace(config.recipe, epochs=epochs))


@pytest.mark.parametrize(("theirs", "differs"), [((4, True), False), ((5, True), True), ((4, False), True)])
def test_ranks_that_read_different_checkpoints_do_not_train(tmp_path: Path, theirs: tuple[int, bool], differs: bool):
    """This rank is at step 4, validated; the simulated rank is at `theirs`."""
    position = 2 * theirs[0] + theirs[1]

    class Peer:
        def now(self, value: int) -> int:
            return max(value, position if value > 0 else -position)

    mark, metadata = RunMark("a", "b"), CheckpointMetadata.of(small_config(tmp_path), ("cat", "dog"))
    saver = LastCheckpoint(
        tmp_path / "last.ckpt", CheckpointConfig(), StopRequest(), timedelta(seconds=1), mark, metadata
    )
    saver._ranks = Peer()  # pyright: ignore[reportAttributeAccessIssue]
    if not differs:
        saver._check_same_position(4)
        return
    with pytest.raises(RunFailed, match="the ranks read different checkpoints"):
        saver._check_same_position(4)
