"""Checkpoint files: whole or as they were."""

import os
from pathlib import Path

import pytest
import torch

from resnext.training.checkpoint import AtomicCheckpointIO, read_step


def test_a_save_that_fails_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"global_step": 1, "weights": torch.ones(3)}, path)
    before = path.read_bytes()

    def fail_half_way(_content: object, file) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail_half_way)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"global_step": 2}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_the_step_is_read_without_the_rest(tmp_path: Path):
    AtomicCheckpointIO().save_checkpoint({"global_step": 7, "weights": torch.ones(3)}, tmp_path / "last.ckpt")
    assert read_step(tmp_path / "last.ckpt") == 7
