"""TensorBoard's event files, read back: each step once, with the values of metrics.csv, after any kind of stop."""

import logging
import shutil
from collections import Counter
from pathlib import Path

import pytest

from resnext.errors import Interrupted
from resnext.loggers.csv import CsvLogger
from resnext.loggers.tensorboard import FOLDER, build_tensorboard_logger, find_difference
from resnext.run.directory import Run
from resnext.runtime.logs import logging_to
from resnext.training.fit import fit
from support.small_run import make_run, read_metrics, small_config
from support.stopping import Stopper, with_callbacks

pytest.importorskip("tensorboard")


def read_scalars(run: Run, *, purge: bool = True) -> dict[str, list[tuple[int, float]]]:
    """Name → (step, value). Without `purge`, also what a reader drops."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / FOLDER), {"scalars": 0}, purge_orphaned_data=purge).Reload()
    return {name: [(each.step, each.value) for each in events.Scalars(name)] for name in events.Tags()["scalars"]}


def rows_of(run: Run, name: str) -> list[tuple[int, float]]:
    return [(int(row["step"]), pytest.approx(float(row[name]))) for row in read_metrics(run) if row[name]]


def test_a_stopped_and_resumed_run_has_each_step_once(digits: Path):
    run = make_run(small_config(digits, run="a$HOME~", recipe__batch_size=359, logger__names=["tensorboard"]))
    for place in (("on_train_batch_start", 1), ("on_validation_start", 4), ("on_train_batch_start", 5)):
        with with_callbacks(Stopper(*place)), pytest.raises(Interrupted):
            fit(run)
    fit(run)
    scalars = read_scalars(run)
    for name in ("train/loss", "train/epoch_loss", "val/top1", "lr"):
        assert scalars[name] == rows_of(run, name), name
    assert [step for step, _ in scalars["perf/images_per_sec"]] == list(range(1, 9))
    assert [step for step, _ in scalars["epoch"]] == list(range(1, 9))
    assert read_scalars(run, purge=False)["train/loss"] == scalars["train/loss"]  # not one written twice
    assert [path.name.split(".")[0] for path in (run.path / FOLDER).iterdir()] == ["events"] * 4


def test_event_files_that_cannot_be_read_are_one_warning(run: Run, capsys: pytest.CaptureFixture[str]):
    """A record with a valid checksum that holds no event."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    folder = run.path / FOLDER
    folder.mkdir()
    body, length = b"\xff" * 16, (16).to_bytes(8, "little")
    checks = [int(masked_crc32c(each)).to_bytes(4, "little") for each in (length, body)]
    (folder / "events.out.tfevents.1.host").write_bytes(length + checks[0] + body + checks[1])
    with logging_to(run.path, rank=0):
        build_tensorboard_logger(run)
    assert capsys.readouterr().out.count("cannot be read (DecodeError") == 1


@pytest.fixture
def run(digits: Path) -> Run:
    return make_run(small_config(digits, logger__names=["tensorboard"]))


def start(run: Run, resume_step: int, last: int, factor: float = 1.0, *, validated: bool = True) -> None:
    """A start that logs the steps after `resume_step`, with a validation at step 4, and then is killed."""
    csv = CsvLogger(run.path, resume_step, validated=validated, average=False)
    logger = build_tensorboard_logger(run)
    if not validated:
        for each in (csv, logger):
            each.log_metrics({"epoch": 1, "val/top1": factor}, resume_step)
    for step in range(resume_step + 1, last + 1):
        for each in (csv, logger):
            each.log_metrics({"epoch": 1, "train/loss": factor * step}, step)
            if step == 4:
                each.log_metrics({"epoch": 1, "val/top1": factor}, step)
    logger.experiment.flush()


def test_the_steps_after_the_checkpoint_of_a_killed_start_are_replaced(run: Run):
    start(run, 0, 7)
    start(run, 5, 9, factor=10)
    steps = [(step, step * (10 if step > 5 else 1)) for step in range(1, 10)]
    assert read_scalars(run)["train/loss"] == steps
    assert Counter(step for step, _ in read_scalars(run, purge=False)["train/loss"]) == Counter([*range(1, 10), 6, 7])


def test_a_validation_that_is_done_again_is_shown_once(run: Run):
    """Killed between the line of a validation and its save: the step keeps its training loss."""
    start(run, 0, 4)
    start(run, 4, 6, factor=2, validated=False)
    assert read_scalars(run)["val/top1"] == [(4, 2.0)]
    assert [step for step, _ in read_scalars(run)["train/loss"]] == [1, 2, 3, 4, 5, 6]


def test_what_the_event_files_lack_is_written_by_the_next_start(run: Run):
    """An earlier start had no TensorBoard, or its files were removed or cut."""
    start(run, 0, 4)
    (file,) = (run.path / FOLDER).iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    start(run, 4, 6)
    assert [step for step, _ in read_scalars(run)["val/top1"]] == [4]
    shutil.rmtree(run.path / FOLDER)
    start(run, 6, 8)
    assert read_scalars(run)["train/loss"] == [(step, step) for step in range(1, 9)]


def test_the_configuration_is_a_row_of_the_hparams_table(run: Run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    run.update_info(resolved={"accelerator": "cpu", "precision": "32-true", "compile": False, "channels_last": True})
    start(run, 0, 2)
    events = EventAccumulator(str(run.path / FOLDER)).Reload()
    plugin = events.SummaryMetadata("_hparams_/session_start_info").plugin_data
    table = HParamsPluginData.FromString(plugin.content).session_start_info.hparams
    assert table["recipe.optimizer.lr"].number_value == 0.05
    assert table["trainer.channels_last"].number_value == 1
    assert table["run_id"].string_value == run.info["wandb_id"]


def test_an_error_of_the_library_stops_the_logger_and_not_the_training(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from torch.utils.tensorboard import SummaryWriter

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    run = make_run(small_config(digits, recipe__max_steps=3, logger__names=["tensorboard"]))
    with monkeypatch.context() as patch:
        patch.setattr(SummaryWriter, "add_scalar", fail)
        fit(run)
    assert run.summary["status"] == "finished"
    assert capsys.readouterr().out.count("warning: TensorBoard has failed: OSError: [Errno 28] No space left") == 1


def test_the_first_difference_is_the_first_step_of_one_side_only():
    both = {("a", 1), ("b", 1), ("a", 2)}
    assert find_difference(both, both) is None
    assert find_difference(both | {("b", 2)}, both) == 2
    assert find_difference(both, both | {("a", 4), ("a", 3)}) == 3
    logging.getLogger("tensorboard").setLevel(logging.NOTSET)
