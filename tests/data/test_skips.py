"""The budget of unreadable training images."""

from pathlib import Path

import pytest

from resnext.data.skips import SkipBudget
from resnext.errors import UserError


def test_each_image_counts_once_over_ranks_and_starts(tmp_path: Path):
    path = tmp_path / "skipped.txt"
    SkipBudget(path, 2).count(["a is broken", "a is broken"])
    SkipBudget(path, 2).count(["a is broken"])  # a restart
    SkipBudget(path, 2).count(["b is broken"])  # another rank
    with pytest.raises(UserError, match=r"3 training images cannot be read, and data.max_skipped=2: .*c is broken"):
        SkipBudget(path, 2).count(["a is broken", "c is broken"])
    assert path.read_text().splitlines() == ["a is broken", "b is broken", "c is broken"]


def test_no_file_where_nothing_is_skipped(tmp_path: Path):
    SkipBudget(tmp_path / "skipped.txt", 0).count([])
    assert not list(tmp_path.iterdir())
