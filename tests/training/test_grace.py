"""Whether a warning comes in time, in a training that runs in a SLURM job."""

import time
from pathlib import Path

import pytest

from conftest import small_config
from resnext.data.images import load_images
from resnext.data.index import DataIdentity
from resnext.training.checkpoint import AtomicCheckpointIO
from resnext.training.fit import fit
from resnext.training.run import Run


@pytest.mark.parametrize(("seconds", "warnings"), [(1, 1), (60, 0)])
def test_a_grace_that_does_not_hold_a_save_is_told_once(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: int, warnings: int
):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    save = AtomicCheckpointIO.save_checkpoint

    def save_slowly(io: AtomicCheckpointIO, *arguments: object, **options: object) -> None:
        time.sleep(1)
        save(io, *arguments, **options)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", save_slowly)
    options = {"recipe__max_steps": 4, "checkpoint__every_steps": 2, "slurm__signal_seconds_before_end": seconds}
    config = small_config(digits, **options)
    fit(Run.create(config, DataIdentity.of(*load_images(config.data)), ["test"]))
    said = " ".join(capsys.readouterr().out.split())
    assert said.count(f"and SLURM gives slurm.signal_seconds_before_end={seconds}: give at least") == warnings
    assert "slurm job 12, restart 0, on ?, from step 0" in said
