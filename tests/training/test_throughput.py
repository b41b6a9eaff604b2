"""Throughput with a clock of our own: one warm-up batch, then batches of 1 s, a quarter of it waiting."""

from types import SimpleNamespace

import pytest

from resnext.training import throughput as module
from resnext.training.throughput import Throughput


def test_images_per_second_and_data_wait(monkeypatch: pytest.MonkeyPatch):
    now = 0.0
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    logged: list[tuple[dict, int]] = []
    logger = SimpleNamespace(log_metrics=lambda metrics, step: logged.append((metrics, step)))
    trainer = SimpleNamespace(
        accumulate_grad_batches=2, num_training_batches=100, global_step=0, current_epoch=0, loggers=[logger]
    )
    throughput = Throughput(batch_size=64, log_every_steps=2)
    throughput.on_train_start(trainer, None)
    for batch_idx in range(9):
        now += 50 if batch_idx == 0 else 0.25
        throughput.on_train_batch_start(trainer, None, None, batch_idx)
        now += 0.75
        trainer.global_step = (batch_idx + 1) // 2
        throughput.on_train_batch_end(trainer, None, None, None, batch_idx)
        if batch_idx == 5:
            now += 1000  # a validation
            throughput.on_validation_end(trainer, None)
    assert throughput.images_per_sec == pytest.approx(32)
    assert throughput.data_wait_percent == pytest.approx(25)
    assert [step for _, step in logged] == [2, 4]
    assert logged[1][0] == {
        "epoch": 1,
        "perf/images_per_sec": pytest.approx(32),
        "perf/data_wait_percent": pytest.approx(25),
    }
