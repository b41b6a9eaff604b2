"""The text of the progress bar."""

import pytest

from resnext.callbacks.progress import ProgressReport
from resnext.callbacks.throughput import Throughput, _Window


class Trainer:
    global_step = 1


def test_a_speed_that_is_not_known_is_left_out(monkeypatch: pytest.MonkeyPatch):
    """After the first batch nothing is measured; then 4 images in 2 s leave 9 steps of 8 images, 36 s."""
    throughput = Throughput(batch_size=8, log_every_steps=1)
    report = ProgressReport(throughput, total_steps=10, epochs=1)
    assert report._speed(Trainer()) == ""
    throughput.images_per_sec, throughput._steady = 2.0, _Window(images=4, seconds=2)
    assert report._speed(Trainer()) == "2 images/s  0:00:36 left  waiting for data 0 %"
