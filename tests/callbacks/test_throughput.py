"""Throughput with a simulated clock: one warm-up batch, then batches of 1 s, of which 0.25 s are waiting."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from resnext.callbacks import throughput as module
from resnext.callbacks.throughput import Stopwatch, Throughput
from resnext.data.dataset import TrainImages
from resnext.loggers.csv import read_rows
from resnext.runtime.checkpoint_io import AtomicCheckpointIO
from resnext.task.classification import ClassificationTask
from resnext.training.fit import fit
from support.small_run import make_run, micro_steps_of, small_config


def test_images_per_second_and_data_wait(monkeypatch: pytest.MonkeyPatch):
    now = 0.0
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    logged: list[tuple[dict, int]] = []
    logger = SimpleNamespace(log_metrics=lambda metrics, step: logged.append((metrics, step)))
    trainer = SimpleNamespace(
        accumulate_grad_batches=2,
        num_training_batches=100,
        global_step=0,
        current_epoch=0,
        loggers=[logger],
        train_dataloader=SimpleNamespace(seconds_waited=0.0),
    )
    throughput, task = Throughput(batch_size=64, log_every_steps=2), micro_steps_of(trainer)
    throughput.on_train_start(trainer, task)
    for batch_idx in range(9):
        waited = 50 if batch_idx == 0 else 0.25
        now += waited + 0.75
        trainer.train_dataloader.seconds_waited += waited
        trainer.global_step = (batch_idx + 1) // 2
        throughput.on_train_batch_end(trainer, task, None, None, batch_idx)
        if batch_idx == 5:
            now += 1000  # a validation
            throughput.on_validation_end(trainer, task)
    assert throughput.images_per_sec == pytest.approx(32)
    assert throughput.data_wait_percent == pytest.approx(25)
    assert [step for _, step in logged] == [2, 4]
    assert logged[1][0] == {
        "epoch": 1,
        "perf/images_per_sec": pytest.approx(32),
        "perf/data_wait_percent": pytest.approx(25),
    }


def test_the_time_left_ignores_the_first_steps(monkeypatch: pytest.MonkeyPatch):
    """As with a compilation, the first step takes 100 s and the next nine take 10 s each; later steps take 1 s."""
    now = 0.0
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    loader = SimpleNamespace(seconds_waited=0.0)
    trainer = SimpleNamespace(accumulate_grad_batches=1, num_training_batches=10**6, global_step=0, current_epoch=0)
    trainer.loggers, trainer.train_dataloader = [], loader
    throughput, task = Throughput(batch_size=64, log_every_steps=10**6), micro_steps_of(trainer)
    throughput.on_train_start(trainer, task)
    seen: list[float] = []
    for step in range(1, 31):
        now += 100 if step == 1 else 10 if step <= 10 else 1
        trainer.global_step = step
        throughput.on_train_batch_end(trainer, task, None, None, step - 1)
        seen.append(throughput.steady_images_per_sec)
    assert seen[0] == 0  # no estimate yet
    assert seen[1:10] == [6.4] * 9
    assert seen[10:] == [pytest.approx(64)] * 20
    assert throughput.images_per_sec < 20  # since the start
    for step in range(31, 531):  # the storage becomes half as fast; the estimate must adapt
        now += 2
        trainer.global_step = step
        throughput.on_train_batch_end(trainer, task, None, None, step - 1)
    assert throughput.steady_images_per_sec == pytest.approx(32, rel=0.01)


def test_saves_count_for_the_speed_but_not_for_the_share_of_waiting(digits: Path, monkeypatch: pytest.MonkeyPatch):
    """Reading a batch and computing a step both sleep 0.05 s, and a save 0.5 s: about half of a step is waiting.

    With the saves, it would be a twelfth. A slower machine computes longer, so that less than half is waiting.
    """
    save, read, train = AtomicCheckpointIO.save_checkpoint, TrainImages.__getitems__, ClassificationTask.training_step

    def slow(seconds: float, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            time.sleep(seconds)
            return method(*arguments, **options)

        return call

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", slow(0.5, save))
    monkeypatch.setattr(TrainImages, "__getitems__", slow(0.05, read))
    monkeypatch.setattr(ClassificationTask, "training_step", slow(0.05, train))
    run = make_run(small_config(digits, recipe__max_steps=4, checkpoint__every_steps=1))
    fit(run)
    rows = read_rows(run.path / "perf.csv")[1:]
    assert len(rows) == 3
    assert all(float(row["perf/images_per_sec"]) < 64 for row in rows)  # 32 images, and a save of half a second
    assert all(10 < float(row["perf/data_wait_percent"]) < 75 for row in rows), rows


def test_a_wait_does_not_count_while_the_gpu_still_computes(monkeypatch: pytest.MonkeyPatch):
    """A batch takes 1 s, of which 0.5 s are waiting. At every second batch, the GPU has not finished the one before."""
    now = 0.0
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    trainer = SimpleNamespace(accumulate_grad_batches=1, num_training_batches=10**6, global_step=0, current_epoch=0)
    trainer.loggers, trainer.train_dataloader = [], SimpleNamespace(seconds_waited=0.0)
    throughput, task = Throughput(64, 10**6), micro_steps_of(trainer)
    throughput.on_train_start(trainer, task)
    records = []
    throughput._step_done = SimpleNamespace(
        query=lambda: trainer.global_step % 2 == 0, record=lambda: records.append(1)
    )
    for step in range(9):
        now += 1
        trainer.train_dataloader.seconds_waited += 0.5
        throughput.on_train_batch_start(trainer, task, None, step)
        trainer.global_step = step + 1
        throughput.on_train_batch_end(trainer, task, None, None, step)
    assert len(records) == 9
    assert throughput.data_wait_percent == pytest.approx(100 * 4 * 0.5 / 8)


def test_pauses_are_left_out_of_the_share_of_waiting(monkeypatch: pytest.MonkeyPatch):
    """A step takes 1 s, of which 0.25 s are waiting. After a step, a pause of 3 s; after step 2, also a validation."""
    now = 0.0
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    trainer = SimpleNamespace(accumulate_grad_batches=1, num_training_batches=10**6, global_step=0, current_epoch=0)
    trainer.loggers, trainer.train_dataloader = [], SimpleNamespace(seconds_waited=0.0)
    pauses = Stopwatch()
    throughput, task = Throughput(64, 10**6, pauses), micro_steps_of(trainer)
    throughput.on_train_start(trainer, task)
    for step in range(1, 5):
        now += 1
        trainer.train_dataloader.seconds_waited += 0.25
        trainer.global_step = step
        throughput.on_train_batch_end(trainer, task, None, None, step - 1)
        with pauses.running():
            now += 1
            if step == 2:
                now += 1000
                throughput.on_validation_end(trainer, task)
            now += 2
    assert pauses.seconds == 4 * 3 + 1000
    assert throughput.data_wait_percent == pytest.approx(25)
    assert throughput.images_per_sec == pytest.approx(3 * 64 / (4 + 3 + 4))  # the pause before a validation is left out
