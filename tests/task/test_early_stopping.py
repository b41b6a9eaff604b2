"""Early stopping: the same epoch as Lightning's, in one process or several, interrupted or not."""

import json
import shutil
from pathlib import Path

import lightning.pytorch.callbacks
import numpy as np
import pytest
import torch

from resnext.config.early_stopping import EarlyStoppingConfig
from resnext.errors import Interrupted, UserError
from resnext.report.comparison import compare
from resnext.run.directory import Run
from resnext.run.identity import with_epochs
from resnext.run.metrics import read_rows
from resnext.task.early_stopping import find_early_stop
from resnext.training.fit import fit
from support.small_run import small_config, write_images
from support.stopping import Stopper, make_run, with_callbacks

NAN = float("nan")


def epoch_of_lightning(values: list[float], config: EarlyStoppingConfig) -> int | None:
    theirs = lightning.pytorch.callbacks.EarlyStopping(
        monitor="it",
        patience=config.patience,
        min_delta=config.min_delta,
        mode="min" if config.lower_is_better else "max",
        check_finite=False,
    )
    for epoch, value in enumerate(values, 1):
        stop, _ = theirs._evaluate_stopping_criteria(torch.tensor(value, dtype=torch.float64))
        if stop:
            return epoch
    return None


@pytest.mark.parametrize("monitor", ["val/top1", "val/loss"])
@pytest.mark.parametrize("min_delta", [0.0, 0.1])
def test_the_epoch_is_that_of_lightnings_callback(monitor: str, min_delta: float):
    random, stops = np.random.default_rng(0), set()
    for patience in (1, 2, 3, 5):
        config = EarlyStoppingConfig(monitor=monitor, patience=patience, min_delta=min_delta)
        for _ in range(30):
            values = random.choice([0.1, 0.15, 0.2, 0.3, 0.5, 0.9, NAN], 12).tolist()
            stop = find_early_stop(list(enumerate(values, 1)), config)
            assert (stop.epoch if stop else None) == epoch_of_lightning(values, config)
            stops.add(stop.epoch if stop else None)
    assert len(stops) > 5


@pytest.mark.parametrize(
    ("values", "options", "line"),
    [
        (
            [0.5, 0.6, 0.7, 0.91, 0.9, 0.91, 0.8, 1.0],
            {"monitor": "val/top1", "patience": 3},
            "after epoch 7: val/top1 has not risen for 3 epochs (best 0.91 at epoch 4)",
        ),
        (
            [2.0, 1.0, 0.95],
            {"monitor": "val_ema/loss", "patience": 1, "min_delta": 0.1},
            "after epoch 3: val_ema/loss has not fallen by more than 0.1 for 1 epoch (best 1 at epoch 2)",
        ),
        (
            [0.2, 0.1, 0.1, 0.3],
            {"monitor": "val/calibration_error", "patience": 2},
            "after epoch 4: val/calibration_error has not fallen for 2 epochs (best 0.1 at epoch 2)",
        ),
        ([NAN, NAN], {"monitor": "val/f1", "patience": 2}, "after epoch 2: val/f1 has not risen for 2 epochs (it was"),
    ],
)
def test_the_line_names_the_metric_its_best_value_and_both_epochs(values: list, options: dict, line: str):
    config = EarlyStoppingConfig(**options)
    assert find_early_stop(list(enumerate(values, 1)), config).describe(config).startswith(line)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"monitor": "val/los"},
            "monitor=val/los is not a metric of this run's validations; did you mean val/loss? they have val/loss, val",
        ),
        (
            {"monitor": "lr"},
            "monitor=lr is not a metric of this run's validations; they have val/loss, val/top1, val/to",
        ),
        ({"monitor": "val_ema/top1"}, "monitor=val_ema/top1 is not a metric of this run's validations; did you mean "),
        ({"monitor": "val/f1"}, "monitor=val/f1 is not a metric"),
        ({"patience": 3}, "recipe.early_stopping needs recipe.early_stopping.monitor, such as val/top1"),
        ({"monitor": "val/top1", "patience": 0}, "recipe.early_stopping.patience=0 is not allowed: it should be great"),
    ],
)
def test_a_wrong_key_gives_one_line(changes: dict, message: str):
    with pytest.raises(UserError) as error:
        small_config(Path(), recipe__early_stopping=changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_images(root, {"train/a": 8, "train/b": 8, "val/a": 3, "val/b": 3})
    return root


def build_run(images: Path, name: str, **changes: object) -> Run:
    """Of ten epochs with two steps each. The F1 score cannot rise by more than 100, so it stops after the third."""
    stopping = {"monitor": "val_ema/f1", "patience": 2, "min_delta": 100.0}
    recipe = {"epochs": 10, "batch_size": 8, "ema": {"decay": 0.5}, "evaluation": {"metrics": ["f1"]}}
    changes = {f"recipe__{key}": value for key, value in (recipe | {"early_stopping": stopping}).items()} | changes
    return make_run(small_config(images, run=name, **changes))


def validated_epochs(run: Run) -> list[int]:
    return [int(row["epoch"]) for row in read_rows(run.path / "metrics.csv") if row["val/top1"]]


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        run = build_run(images, "whole")
        fit(run)
        return Run(run.path.absolute())


def assert_same(run: Run, whole: Run) -> None:
    assert [part for part in compare(whole, run) if not part.same] == []
    assert (run.path / "metrics.csv").read_bytes() == (whole.path / "metrics.csv").read_bytes()
    assert {"status": "finished", "stopped": whole.summary["stopped"]}.items() <= run.summary.items()


def test_a_run_ends_as_finished_and_says_why(whole: Run, capsys: pytest.CaptureFixture[str]):
    assert validated_epochs(whole) == [1, 2, 3]
    best = float(read_rows(whole.path / "metrics.csv")[2]["val_ema/f1"])
    line = f"after epoch 3: val_ema/f1 has not risen by more than 100 for 2 epochs (best {best:.4g} at epoch 1)"
    assert whole.summary["stopped"] == line
    assert (whole.summary["status"], whole.summary["steps"]) == ("finished", 6)
    log = (whole.path / "log.txt").read_text()
    assert f"stopped   {line}" in log
    assert "stopping  if val_ema/f1 has not risen by more than 100 for 2 epochs" in log


def test_a_run_that_is_stopped_anywhere_ends_after_the_same_epoch(images: Path, whole: Run):
    run = build_run(images, "parts")
    places = [
        ("on_validation_start", 2),
        ("on_validation_end", 4),
        ("on_train_batch_start", 5),
        ("on_validation_start", 6),
    ]
    for place in places:
        with with_callbacks(Stopper(*place)), pytest.raises(Interrupted):
            fit(run)
    fit(run)
    assert_same(run, whole)


def test_a_kill_between_the_last_validation_and_the_status_is_finished_without_a_step(whole: Run, tmp_path: Path):
    shutil.copytree(whole.path, tmp_path / "runs/whole")
    run = Run(Path("runs/whole"))
    starts = len(run.info["starts"])
    summary = {key: value for key, value in run.summary.items() if key != "stopped"}
    (run.path / "summary.json").write_text(json.dumps(summary | {"status": "running"}))
    fit(run)
    assert len(run.info["starts"]) == starts
    assert_same(run, whole)


@pytest.mark.parametrize("lost", [["last.ckpt"], ["last.ckpt", "previous.ckpt"]])
def test_older_checkpoints_end_after_the_same_epoch(whole: Run, tmp_path: Path, lost: list[str]):
    """best.ckpt is written within a validation: this validation is done again, and counted once."""
    shutil.copytree(whole.path, tmp_path / "runs/whole")
    run = Run(Path("runs/whole"))
    for name in lost:
        (run.checkpoints / name).unlink()
    run.update_summary(status="interrupted")
    fit(run)
    assert_same(run, whole)


def test_more_epochs_do_not_continue_a_run_that_has_stopped(whole: Run, tmp_path: Path):
    shutil.copytree(whole.path, tmp_path / "runs/whole")
    run = Run(Path("runs/whole"))
    run = run.add_start(with_epochs(run.config, 20))
    assert run.summary["status"] == "interrupted"
    fit(run)
    assert_same(run, whole)


def test_a_signal_in_the_last_validation_does_not_interrupt_the_run(images: Path, whole: Run):
    run = build_run(images, "signalled")
    with with_callbacks(Stopper("on_validation_end", 6)):
        fit(run)
    assert_same(run, whole)
