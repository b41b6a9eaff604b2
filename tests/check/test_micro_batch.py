"""trainer.micro_batch_size=auto, on a machine that has 1 MB for the network and 1 MB for each image."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from resnext.__main__ import run_verb
from resnext.check.trial import OutOfMemory
from resnext.errors import Interrupted
from resnext.run.directory import Run

KEYS = (
    *("experiment=image_folder", "logger=csv", "trainer=cpu", "trainer.precision=32-true", "model=resnext_small"),
    *("recipe.batch_size=8", "recipe.image_size=32", "recipe.max_steps=1", "data.workers=0", "run=auto"),
)


class Machine:
    """`usable_bytes` are set by the test; `tried` are the micro-batches that ran."""

    usable_bytes = 6e6

    def __init__(self) -> None:
        self.tried: list[int] = []
        self.interrupted = False

    def ask(self, _function: str, micro: int) -> tuple[int, float]:
        if self.interrupted:
            raise Interrupted(2)
        self.tried.append(micro)
        if (taken := 1_000_000 * (1 + micro)) > self.usable_bytes:
            raise OutOfMemory
        return taken, 0.01


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()

    @contextmanager
    def trial(*_: Any) -> Iterator[Machine]:
        yield made

    monkeypatch.setattr("resnext.check.micro_batch.trial", trial)
    return made


def train(images: Path, *arguments: str) -> int:
    return run_verb(["train", *KEYS, f"data.root={images}", *arguments])


def weights(name: str) -> dict[str, torch.Tensor]:
    return torch.load(f"runs/{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"]


def test_the_largest_that_fits_is_kept_and_trains_like_the_number(image_folder: Path, machine: Machine):
    """4 images take 5 of 6 MB, 8 would take 9."""
    assert train(image_folder, "trainer.micro_batch_size=auto") == 0
    run = Run.open(Path("auto"))
    assert (run.made.trainer.micro_batch_size, run.made.recipe.batch_size) == (4, 8)
    assert "micro-batch 4: the largest that fits, found by trial in 0 s" in (run.path / "log.txt").read_text()
    assert train(image_folder, "trainer.micro_batch_size=4", "run=number") == 0
    assert all(torch.equal(value, weights("number")[name]) for name, value in weights("auto").items())
    tried = list(machine.tried)
    assert run_verb(["resume", "auto", "trainer.micro_batch_size=auto"]) == 0
    assert (machine.tried, Run.open(Path("auto")).config.trainer.micro_batch_size) == (tried, 4)


def test_nothing_is_made_if_nothing_fits_or_at_a_signal(image_folder: Path, machine: Machine, capsys):
    machine.usable_bytes = 1.5e6
    assert train(image_folder, "trainer.micro_batch_size=auto") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "trainer.micro_batch_size=auto: 1 image in a micro-batch" in line
    machine.interrupted = True
    assert train(image_folder, "trainer.micro_batch_size=auto") == 130
    assert list(Path().glob("runs/*")) == []


def test_slurm_asks_for_a_number(image_folder: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["slurm", *KEYS, f"data.root={image_folder}", "slurm=cpu", "slurm.tasks_per_node=1"]
    assert run_verb([*arguments, "trainer.micro_batch_size=auto"]) == 2
    assert "resnext check`, run in an allocation" in capsys.readouterr().err
    assert not Path("runs").exists()
