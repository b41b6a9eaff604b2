"""fit(run) in this process: its results, bit-identical resumption, and the errors that end it."""

import errno
import json
import os
import signal
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import wandb
from lightning.pytorch.callbacks import Callback
from torch.distributed import DistNetworkError, TCPStore

from resnext.__main__ import run_verb
from resnext.errors import Interrupted, RunFailed, UserError
from resnext.inference import forward
from resnext.loggers import wandb_folders
from resnext.run.directory import Run
from resnext.runtime.checkpoint import read_checkpoint
from resnext.runtime.world import World
from resnext.task.accuracy import EvaluationScores
from resnext.task.classification import ClassificationTask
from resnext.training import ending
from resnext.training import fit as fit_module
from resnext.training.fit import fit
from support.evaluation import evaluated
from support.small_run import make_run, read_metrics, small_config, write_images


def weights(run: Run) -> dict[str, torch.Tensor]:
    return torch.load(run.checkpoints / "last.ckpt", weights_only=True)["state_dict"]


def assert_same_result(one: Run, other: Run) -> None:
    assert (one.path / "metrics.csv").read_text() == (other.path / "metrics.csv").read_text()
    assert all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())


def test_a_training_learns_and_logs_its_results(digits: Path, capsys: pytest.CaptureFixture[str]):
    run = make_run(
        small_config(digits, recipe__epochs=3, checkpoint__every_steps=10, recipe__schedule={"warmup_epochs": 1})
    )
    fit(run)
    rows = read_metrics(run)
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    validated = [row for row in rows if row["val/top1"]]
    assert len(losses) == 3 * (1437 // 32)
    assert [int(row["step"]) for row in rows if row["train/loss"]] == list(range(1, 133))
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert [row["epoch"] for row in validated] == ["1", "2", "3"]

    summary = json.loads((run.path / "summary.json").read_text())
    best = max(validated, key=lambda row: float(row["val/top1"]))
    assert summary["status"] == "finished"
    assert (summary["steps"], summary["epochs"], summary["val_images"]) == (132, 3, 360)
    assert summary["val/top1"] == float(best["val/top1"]) > 0.5
    assert summary["val/top5"] >= summary["val/top1"]
    assert summary["images_per_sec"] > 0
    output = capsys.readouterr().out
    assert "batch     32 = 32 images × 1 device × 1 micro-step" in output
    assert "steps     132 = 3 epochs × 44" in output
    assert {path.name for path in run.checkpoints.iterdir()} == {"last.ckpt", "previous.ckpt", "best.ckpt"}


def test_evaluation_prints_the_scores_of_the_training(digits: Path):
    config = small_config(digits, recipe__max_steps=60)
    run = make_run(config)
    fit(run)
    for checkpoint, results in (("best", run.summary), ("last", run.summary["last"])):
        found = evaluated(run, checkpoint)["networks"]["raw"]
        accuracies = found["top1"]["value"], found["top5"]["value"]
        assert (*accuracies, found["images"]) == (results["val/top1"], results["val/top5"], 360)
        assert found["loss"] == pytest.approx(results["val/loss"])


@pytest.mark.parametrize("micro_batch_size", [32, 8])
def test_max_steps_are_optimizer_steps(digits: Path, micro_batch_size: int):
    run = make_run(small_config(digits, recipe__max_steps=50, trainer__micro_batch_size=micro_batch_size))
    fit(run)
    assert run.summary["steps"] == 50
    assert torch.load(run.checkpoints / "last.ckpt", weights_only=True)["global_step"] == 50
    assert [row["step"] for row in read_metrics(run) if row["val/top1"]] == ["44", "50"]


def test_a_moved_run_keeps_its_best(digits: Path, monkeypatch: pytest.MonkeyPatch):
    """The accuracies fall after the first epoch. The run is interrupted, moved, and resumed."""
    run = make_run(small_config(digits, recipe__batch_size=720, recipe__epochs=3))
    accuracies = iter([0.9, 0.5, 0.4])
    compute = EvaluationScores.compute
    monkeypatch.setattr(EvaluationScores, "compute", lambda self: compute(self)._replace(top1=next(accuracies)))
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt_at(1, patch)
        fit(run)
    monkeypatch.setattr(EvaluationScores, "compute", lambda self: compute(self)._replace(top1=next(accuracies)))
    moved = Run(run.path.rename("elsewhere"))
    fit(moved)
    assert moved.summary["best_epoch"] == 1
    assert read_checkpoint(moved.checkpoints / "best.ckpt").step == 1


def test_all_starts_of_a_run_have_one_wandb_id(digits: Path, monkeypatch: pytest.MonkeyPatch):
    run = make_run(small_config(digits, recipe__max_steps=4, logger__mode="offline"))
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt_at(2, patch)
        fit(run)
    assert wandb.run is None
    fit(run)
    assert wandb.run is None
    folders = [path.name for path in (run.path / "wandb").glob("offline-run-*")]
    assert folders
    assert all(f"-{run.info['wandb_id']}" in name for name in folders)  # W&B adds -1 within one second
    wandb.teardown()  # waits until the file is closed
    (file,) = (run.path / "wandb/latest-run").resolve().glob("*.wandb")
    items = [item for record in wandb_folders._read_records(file) for item in record.summary.update]
    sent = {wandb_folders._name(item): json.loads(item.value_json) for item in items}
    summary = run.summary
    assert (sent["status"], sent["best/epoch"], sent["steps"]) == ("finished", summary["best_epoch"], 4)
    assert (sent["best/val/top1"], sent["best/val/loss"]) == (summary["val/top1"], summary["val/loss"])


@pytest.mark.parametrize("steps", [2, 0])
def test_an_error_of_wandb_at_the_end_changes_nothing(
    digits: Path, steps: int, monkeypatch: pytest.MonkeyPatch, capsys
):
    """Neither the end of a complete training, nor the message of a failed training (here after 0 steps)."""

    def fail(**_options: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    run = make_run(small_config(digits, recipe__max_steps=2))
    monkeypatch.setattr(wandb, "finish", fail)
    if not steps:
        monkeypatch.setattr(ClassificationTask, "on_train_start", lambda _task: 1 / 0)
        with pytest.raises(RunFailed, match="ZeroDivisionError"):
            fit(run)
    else:
        fit(run)
    assert run.summary["status"] == ("finished" if steps else "failed")
    assert "warning: W&B could not finish: BrokenPipeError" in capsys.readouterr().out


def test_a_signal_in_an_evaluation_interrupts_it(digits: Path, monkeypatch: pytest.MonkeyPatch):
    run = make_run(small_config(digits, recipe__max_steps=2))
    fit(run)
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(forward, "_logits", lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted):
        evaluated(run, "last")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_finished_run_is_not_trained_again(digits: Path, capsys: pytest.CaptureFixture[str]):
    run = make_run(small_config(digits, recipe__max_steps=2))
    fit(run)
    before = (run.checkpoints / "last.ckpt").stat().st_mtime_ns
    fit(run)
    assert "runs/test is finished: top-1" in capsys.readouterr().out
    assert (run.checkpoints / "last.ckpt").stat().st_mtime_ns == before


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_damaged_image_is_named_in_one_line(tmp_path: Path, split: str, workers: int):
    write_images(tmp_path / "images", {"train/a": 4, "train/b": 4, "val/a": 2})
    (tmp_path / "images" / split / "a" / "0.png").write_bytes(b"broken")
    run = make_run(small_config(tmp_path / "images", recipe__batch_size=8, recipe__epochs=1, data__workers=workers))
    with pytest.raises(UserError, match=rf"{split}/a/0.png cannot be read as an image") as error:
        fit(run)
    assert "\n" not in str(error.value)
    assert run.summary["status"] == "failed"
    log = (run.path / "log.txt").read_text()
    assert "a/0.png cannot be read" in log
    assert "in decode_image" in log  # the traceback, even if it is from a DataLoader worker


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_that_skips_images_is_exact_and_counts_them(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch, capsys
):
    """Resumed with another number of workers, and with the data in memory: the same image is skipped."""
    write_images(tmp_path / "images", {"train/a": 8, "train/b": 8, "val/a": 2})
    (tmp_path / "images/train/a/0.png").write_bytes(b"broken")
    options = {"recipe__batch_size": 4, "recipe__epochs": 3, "recipe__augmentation": {"erasing": 0.5, "repeats": 2}}
    whole, parts = (
        make_run(small_config(tmp_path / "images", **options, run=name, data__workers=workers, data__max_skipped=1))
        for name in ("whole", "parts")
    )
    fit(whole)
    with monkeypatch.context() as patch:
        interrupt_at(6, patch)
        with pytest.raises(Interrupted):
            fit(parts)
    data = replace(parts.config.data, workers=1 - workers, cache="ram")
    fit(parts.add_start(replace(parts.config, data=data)))
    assert_same_result(whole, parts)
    assert len((parts.path / "skipped.txt").read_text().splitlines()) == 1
    assert "skipped, because it cannot be read: train/a/0.png" in capsys.readouterr().out


def test_a_failure_is_one_line_with_its_traceback_in_the_log(digits: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(self: object, batch: object, batch_idx: int) -> None:
        raise ZeroDivisionError("out of luck")

    run = make_run(small_config(digits))
    monkeypatch.setattr(ClassificationTask, "training_step", fail)
    with pytest.raises(RunFailed, match=r"ZeroDivisionError: out of luck \(traceback in runs/test/log.txt\)"):
        fit(run)
    assert "Traceback" in (run.path / "log.txt").read_text()
    assert run.summary["status"] == "failed"


@pytest.mark.parametrize(("rank", "silent"), [(0, False), (1, True)])
def test_rank_0_reports_why_its_store_fails(rank: int, silent: bool):
    """For example if the port is in use. Rank 0 hosts the store; the other ranks only lose the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(DistNetworkError) as error:
        TCPStore("127.0.0.1", server.getsockname()[1], 2, is_master=True, wait_for_workers=False)
    world = replace(World.from_environment(), size=2, rank=rank)
    assert ending._is_reported_elsewhere(error.value, world) == silent


def test_an_error_about_a_file_named_gloo_is_reported():
    error = FileNotFoundError(2, "No such file or directory", "/data/gloo/train")
    assert not ending._is_reported_elsewhere(error, replace(World.from_environment(), size=2, rank=1))


def test_data_that_changed_is_refused(image_folder: Path):
    run = make_run(small_config(image_folder, recipe__batch_size=8))
    write_images(image_folder, {"train/dog": 7})
    with pytest.raises(UserError, match="the data of runs/test has changed"):
        fit(run)


def test_auto_values_are_resolved_once_and_kept(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run = make_run(small_config(digits, recipe__max_steps=4, trainer__precision="auto"))
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr("resnext.runtime.device.has_amx", lambda: True)
        interrupt_at(2, patch)
        fit(run)
    monkeypatch.setattr("resnext.runtime.device.has_amx", lambda: False)
    fit(run)
    assert capsys.readouterr().out.count("device    cpu, bf16-mixed, channels_last") == 2


def interrupt_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """Sends this process a SIGINT during optimizer step `step`."""

    class Interrupter(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            if trainer.global_step == step - 1 and batch_idx % trainer.accumulate_grad_batches == 0:
                signal.raise_signal(signal.SIGINT)

    build = fit_module.build_trainer
    patch.setattr(
        fit_module,
        "build_trainer",
        lambda *arguments, callbacks, **options: build(*arguments, callbacks=[*callbacks, Interrupter()], **options),
    )
    assert threading.current_thread() is threading.main_thread()


@pytest.mark.parametrize("name", ["config.yaml", "lock", "summary.json", "log.txt"])
def test_a_storage_failure_before_the_training_is_not_a_users_mistake(
    image_folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The batch script and trainer.max_restarts restart after exit code 1, but not after 2."""
    run = make_run(small_config(image_folder, recipe__batch_size=8))
    stat = Path.stat

    def fail(path: Path, **options: bool) -> os.stat_result:
        if path.name == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return stat(path, **options)

    monkeypatch.setenv("RESNEXT_EXIT_CODE_FILE", "code")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", fail)
        assert run_verb(["fit", str(run.path)]) == 1
    assert capsys.readouterr().err == f"resnext fit: {run.path}/{name}: Input/output error\n"
    assert Path("code").read_text() == "1\n"
    assert run_verb(["fit", "nowhere"]) == 2


def test_the_header_describes_the_network_and_unused_images(image_folder: Path, capsys: pytest.CaptureFixture[str]):
    (image_folder / "val").rename(image_folder / "valid")
    for name in ("a.gif", "b.gif", "c.heic"):
        (image_folder / "train/cat" / name).touch()
    fit(make_run(small_config(image_folder, recipe__batch_size=8, recipe__max_steps=1)))
    lines = capsys.readouterr().out.splitlines()
    macs = 64 * (8 * 27 + 8 * 4 + 4 * 2 * 9 + 4 * 32 + 8 * 32 + 32 * 8) + 16 * (8 * 4 * 9 + 8 * 64 + 32 * 64) + 64 * 2
    assert f"model     resnext: blocks 1-1, 2×2d, 4.39 k parameters, {macs / 1000:.2f} kMACs at 8 px" in lines
    assert (
        f"warning: {image_folder}/train has images that cannot be read (2 .gif, 1 .heic): convert them to JPEG or PNG"
        in lines
    )
