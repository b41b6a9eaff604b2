"""The budget of unreadable training images."""

from pathlib import Path

import pytest

from resnext.data.corrupt_images import SkipBudget, Skipped
from resnext.errors import UserError


def test_each_image_counts_once_over_ranks_and_starts(tmp_path: Path):
    path = tmp_path / "skipped.txt"
    SkipBudget(path, 2).count([Skipped("cat/a.png", "/here/train/cat/a.png is broken")] * 2)
    SkipBudget(path, 2).count([Skipped("cat/a.png", "/there/train/cat/a.png is broken")])  # a restart on another disk
    SkipBudget(path, 2).count([Skipped("cat/b.png", "broken")])  # another rank
    with pytest.raises(UserError, match=r"^3 training images cannot be read, more than data.max_skipped=2: replace"):
        SkipBudget(path, 2).count([Skipped("cat/a.png", "broken"), Skipped("dog/c.png", "broken")])
    assert [line.split("\t")[0] for line in path.read_text().splitlines()] == ["cat/a.png", "cat/b.png", "dog/c.png"]


def test_no_file_where_nothing_is_skipped(tmp_path: Path):
    SkipBudget(tmp_path / "skipped.txt", 0).count([])
    assert not list(tmp_path.iterdir())
