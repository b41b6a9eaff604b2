"""The last lines of a run."""

import logging
from pathlib import Path

import pytest

from resnext.prepare.pack import prepare_pack
from resnext.run.directory import Run
from resnext.run.identity import DataIdentity
from resnext.training.fit import fit
from resnext.training.messages import log_result
from support.small_run import make_run, small_config


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


def test_the_first_lines_name_the_augmentation_the_cache_and_the_precision(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    prepare_pack(image_folder, tmp_path / "pack", short_side=None, shard_bytes=4096)
    found = {}
    for name, root, cache in (
        ("a", image_folder, "none"),
        ("b", tmp_path / "pack", "none"),
        ("c", image_folder, "ram"),
    ):
        fit(make_run(small_config(root, run=name, data__cache=cache, recipe__batch_size=6, recipe__max_steps=1)))
        lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
        assert (lines["augment"], lines["device"]) == ("crop 0.5-1, flip", "cpu, 32-true, channels_last")
        found[name] = lines["cache"]
    assert found == {"a": "none", "b": "a pack", "c": "decoded images in memory (data.cache=ram)"}
