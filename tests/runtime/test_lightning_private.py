"""Lightning has the private attributes that we use, and a Trainer with and without our change shows their effect."""

import signal
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch.distributed
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.utils.data import DataLoader

from resnext.errors import UserError
from resnext.runtime.lightning_private import RELIED_ON, silence_signals

BATCHES = 3


def build_trainer(*callbacks: Callback) -> Trainer:
    silent = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return Trainer(
        accelerator="cpu", devices=1, max_epochs=1, limit_train_batches=BATCHES, callbacks=[*callbacks], **silent
    )


def fit(trainer: Trainer) -> None:
    trainer.fit(BoringModel(), train_dataloaders=DataLoader([torch.ones(32)] * BATCHES))


@pytest.mark.parametrize("name", RELIED_ON)
def test_a_renamed_method_is_a_one_line_error(name: str, monkeypatch: pytest.MonkeyPatch):
    trainer = build_trainer()
    holder, _, method = name.rpartition(".")
    monkeypatch.delattr(type(attrgetter(holder)(trainer)), method)
    with pytest.raises(UserError, match=rf"^lightning 2\.6\.\d+ has no Trainer.{name}, which .*requirements.lock$"):
        silence_signals(trainer)


@pytest.mark.filterwarnings("ignore")  # of Lightning about its own demo
@pytest.mark.parametrize("silenced", [False, True])
def test_lightning_handles_signals_unless_it_is_silenced(silenced: bool):
    class Probe(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.handler = signal.getsignal(signal.SIGTERM)

    probe, before = Probe(), signal.getsignal(signal.SIGTERM)
    trainer = build_trainer(probe)
    if silenced:
        silence_signals(trainer)
    fit(trainer)
    assert (probe.handler is before) == silenced


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore")  # of Lightning about its own demo
@pytest.mark.parametrize(("silenced", "broadcasts"), [(False, BATCHES), (True, 0)])
def test_lightning_broadcasts_before_every_batch_unless_it_is_silenced(
    silenced: bool, broadcasts: int, process_group: None, monkeypatch: pytest.MonkeyPatch
):
    """Lightning believes that the group of one process has two. It would broadcast in `advance`."""
    sent = 0

    def count(*arguments: object, **options: object) -> None:
        nonlocal sent
        sent += 1

    trainer = build_trainer()
    if silenced:
        silence_signals(trainer)
    monkeypatch.setattr(torch.distributed, "broadcast", count)
    monkeypatch.setattr(Trainer, "world_size", 2)
    fit(trainer)
    assert sent == broadcasts
