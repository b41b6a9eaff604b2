"""A run that is stopped anywhere and resumed has the metrics, weights, EMA and optimizer of the uninterrupted run."""

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import Callback

from resnext.errors import Interrupted, Paused
from resnext.report.comparison import compare
from resnext.run.directory import Run
from resnext.run.metrics import read_rows
from resnext.training.fit import fit
from support.small_run import write_images
from support.stopping import EPOCHS, IMAGES, STEPS, STOPS, Stopper, build_run, with_callbacks

CASES = [(stop, None) for stop in STOPS] + [("mid-epoch", 4)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_images(root, IMAGES)
    return root


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """The uninterrupted run for these options, trained once, without workers."""
    folder, trained = tmp_path_factory.mktemp("undisturbed"), {}

    def find(optimizer: str, features: str, micro: int | None) -> Run:
        key = f"{optimizer}-{features}-{micro}"
        if key not in trained:
            run = build_run(images, key, optimizer=optimizer, features=features, micro=micro, workers=0)
            trained[key] = Run(run.path.rename(folder / key))
            fit(trained[key])
        return trained[key]

    return find


def assert_identical(one: Run, other: Run) -> None:
    assert [part for part in compare(one, other) if not part.same] == []
    assert (one.path / "metrics.csv").read_bytes() == (other.path / "metrics.csv").read_bytes()


@pytest.mark.parametrize("features", ["plain", "all"])
@pytest.mark.parametrize("optimizer", ["sgd", "lamb"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("stop", "micro"), CASES)
def test_a_resume_with_another_number_of_workers_is_bit_identical(
    images: Path, undisturbed: Callable, stop: str, micro: int | None, workers: int, optimizer: str, features: str
):
    run = build_run(images, "parts", optimizer=optimizer, features=features, micro=micro, workers=workers)
    with with_callbacks(Stopper(*STOPS[stop])), pytest.raises(Interrupted):
        fit(run)
    done = run.summary["steps"]
    assert done == {"mid-epoch": 6}.get(stop, 8)
    fit(run.add_start(replace(run.config, data=replace(run.config.data, workers=2 - workers))))
    assert [start["from_step"] for start in run.info["starts"]] == [0, done]
    assert run.summary["status"] == "finished"
    assert_identical(undisturbed(optimizer, features, micro), run)


def test_stops_at_every_step_and_validation_change_nothing(images: Path, undisturbed: Callable):
    """Each start reaches the next place where it can stop, also inside a resumed validation."""
    run = build_run(images, "parts", optimizer="sgd", features="all", micro=None, workers=0)
    places = []
    for step in range(1, EPOCHS * STEPS + 1):
        places.append(("on_train_batch_start", step - 1))
        if step % STEPS == 0:
            places += [("on_validation_start", step), ("on_validation_end", step)]
    for place in places[:-1]:
        with with_callbacks(Stopper(*place)), pytest.raises(Interrupted):
            fit(run)
    fit(run)
    assert len(run.info["starts"]) == EPOCHS * STEPS + 2 * EPOCHS
    assert run.summary["status"] == "finished"
    assert_identical(undisturbed("sgd", "all", None), run)


@pytest.mark.parametrize("stop", ["before validation", "in validation"])
def test_a_stop_before_the_end_of_the_last_validation(images: Path, undisturbed: Callable, stop: str):
    run = build_run(images, "parts", optimizer="sgd", features="plain", micro=None, workers=0)
    hook, steps = STOPS[stop]
    with with_callbacks(Stopper(hook, steps + STEPS, signal.SIGTERM)), pytest.raises(Interrupted) as interruption:
        fit(run)
    assert interruption.value.signum == signal.SIGTERM
    assert (run.summary["steps"], run.summary["epochs"]) == (12, 2)
    fit(run)
    assert run.summary["epochs"] == 3
    assert_identical(undisturbed("sgd", "plain", None), run)


def test_a_run_stopped_after_the_last_validation_is_finished(images: Path):
    run = build_run(images, "parts", optimizer="sgd", features="plain", micro=None, workers=0)
    with with_callbacks(Stopper("on_validation_end", EPOCHS * STEPS)):
        fit(run)
    assert run.summary["status"] == "finished"


@pytest.mark.parametrize("features", ["plain", "all"])
def test_pauses_between_epochs_change_nothing(images: Path, undisturbed: Callable, features: str):
    """Repeated with the same epoch, a start trains nothing. At the last epoch, the run is finished and not paused."""
    run = build_run(images, "parts", optimizer="sgd", features=features, micro=None, workers=0)

    def start(pause_after_epochs: int) -> Run:
        return run.add_start(
            replace(run.config, trainer=replace(run.config.trainer, pause_after_epochs=pause_after_epochs))
        )

    for epochs in (1, 1, 2):
        with pytest.raises(Paused):
            fit(start(epochs))
        assert (run.summary["status"], run.summary["steps"], run.summary["epochs"]) == (
            "paused",
            epochs * STEPS,
            epochs,
        )
    fit(start(EPOCHS))
    assert run.summary["status"] == "finished"
    assert_identical(undisturbed("sgd", features, None), run)


def test_a_signal_stops_a_validation_early(images: Path):
    validated = []

    class Slow(Callback):
        def on_validation_batch_start(self, *_arguments: object) -> None:
            validated.append(time.monotonic())

    run = build_run(images, "parts", optimizer="sgd", features="plain", micro=None, workers=0)
    with with_callbacks(Stopper("on_validation_start", STEPS), Slow()), pytest.raises(Interrupted):
        fit(run)
    assert len(validated) == 1  # of two batches


def test_a_kill_between_the_log_and_the_save_of_a_validation(images: Path, undisturbed: Callable):
    """metrics.csv already has the row, and the resumed training writes it again."""

    class Killed(Exception):
        pass

    class Killer(Callback):
        def on_validation_end(self, *_arguments: object) -> None:
            raise Killed

    run = build_run(images, "parts", optimizer="sgd", features="all", micro=None, workers=0)
    with with_callbacks(Killer()), pytest.raises(Exception, match="Killed"):
        fit(run)
    assert [row["step"] for row in read_rows(run.path / "metrics.csv") if row["val/top1"]] == ["4"]
    fit(run)
    assert_identical(undisturbed("sgd", "all", None), run)
