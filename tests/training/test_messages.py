"""The last lines of a run."""

import logging
from pathlib import Path

import pytest

from resnext.run.directory import Run
from resnext.run.identity import DataIdentity
from resnext.training.messages import log_result
from support.small_run import small_config


@pytest.mark.parametrize(
    ("summary", "line"),
    [
        ({"steps": 1}, "finished  1 step in 0:00:07"),
        ({"steps": 1200, "images_per_sec": 1234.5}, "finished  1,200 steps in 0:00:07, 1,234 images/s"),
    ],
)
def test_a_speed_that_is_not_known_is_left_out(
    tmp_path: Path, summary: dict, line: str, caplog: pytest.LogCaptureFixture
):
    """A run of one step has no speed: the first batch of a start does not count."""
    caplog.set_level(logging.INFO, "resnext")
    run = Run.create(small_config(tmp_path), DataIdentity(("a", "b"), "0"), ["test"])
    last = {"val/top1": 0.5, "val/top5": 1.0}
    run.update_summary(**summary, **last, last=last, best_epoch=1, epochs=1)
    log_result(run, 7.2)
    assert caplog.messages[0] == line
