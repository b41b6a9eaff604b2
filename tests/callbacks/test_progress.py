"""The text of the progress bar."""

from types import SimpleNamespace

from resnext.callbacks.progress import ProgressReport
from resnext.callbacks.throughput import Throughput


def test_a_speed_that_is_not_known_is_left_out():
    """9 steps of 8 images at 2 images/s take 36 s."""
    throughput, trainer = Throughput(batch_size=8, log_every_steps=1), SimpleNamespace(global_step=1)
    text = ProgressReport(throughput, total_steps=10, epochs=1)._speed
    assert text(trainer) == ""
    throughput.images_per_sec, throughput._steady.images, throughput._steady.seconds = 2.0, 4, 2
    assert "0:00:36 left" in text(trainer)
