"""The budget of training images that cannot be read."""

from pathlib import Path

import pytest

from resnext.data.corrupt_images import CorruptImage, CorruptImageBudget
from resnext.errors import UserError


def test_each_image_counts_once_over_ranks_and_starts(tmp_path: Path):
    path = tmp_path / "skipped.txt"
    CorruptImageBudget(path, 2).count([CorruptImage("cat/a.png", "/here/train/cat/a.png is broken")] * 2)
    CorruptImageBudget(path, 2).count(
        [CorruptImage("cat/a.png", "/there/train/cat/a.png is broken")]
    )  # a restart on another disk
    CorruptImageBudget(path, 2).count([CorruptImage("cat/b.png", "broken")])  # another rank
    with pytest.raises(UserError, match=r"^3 training images cannot be read, more than data.max_skipped=2: replace"):
        CorruptImageBudget(path, 2).count([CorruptImage("cat/a.png", "broken"), CorruptImage("dog/c.png", "broken")])
    assert [line.split("\t")[0] for line in path.read_text().splitlines()] == ["cat/a.png", "cat/b.png", "dog/c.png"]


def test_there_is_no_file_if_nothing_is_skipped(tmp_path: Path):
    CorruptImageBudget(tmp_path / "skipped.txt", 0).count([])
    assert not list(tmp_path.iterdir())
