"""Every file of a run, damaged in every way: one line for the verb that needs it, and the other runs are shown."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stopping import IMAGES, Stopper, with_callbacks

from conftest import write_images
from resnext.__main__ import run_verb
from resnext.cli.composition import run_with_hydra
from resnext.config import Config
from resnext.data.images import load_images
from resnext.data.index import DataIdentity
from resnext.errors import Interrupted
from resnext.training.fit import fit
from resnext.training.run import Run

OVERRIDES = ["run=hurt", "recipe.epochs=2", "recipe.batch_size=16", "checkpoint.every_steps=1", "data.workers=0"]
OVERRIDES += ["logger.mode=disabled", "trainer.accelerator=cpu", "trainer.devices=1", "data=image_folder"]
OVERRIDES += ["model.layers=[1,1]", "model.cardinality=2", "model.base_width=16", "model.width=8"]
HUGE = 8 << 30


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def huge(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(HUGE)  # sparse


def replace(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return damage


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": truncated,
    "a list": lambda path: path.write_text("[1]\n"),
    "a number": lambda path: path.write_text("5\n"),
    "an empty mapping": lambda path: path.write_text("{}\n"),
    "NULs": lambda path: path.write_bytes(bytes(4096)),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x80: {\n"),
    "nested": lambda path: path.write_text("[" * 100_000),
    "huge": huge,
    "missing": replace(lambda path: None),
    "a folder": replace(lambda path: path.mkdir()),
    "a FIFO": replace(os.mkfifo),
    "a device": replace(lambda path: path.symlink_to("/dev/zero")),
    "a dangling link": replace(lambda path: path.symlink_to("nowhere")),
}
TEXTS = [name for name in DAMAGES if name != "truncated"]  # a YAML file without its end is a YAML file
NOT_REGULAR = ["a folder", "a FIFO", "a device", "a dangling link"]


@pytest.fixture(autouse=True)
def _ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What hangs, as a FIFO does, fails after half a minute."""

    def hangs(*_arguments: object) -> None:
        raise KeyboardInterrupt("it hangs")

    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images/, runs/hurt, stopped in its second epoch, and runs/whole."""
    folder = tmp_path_factory.mktemp("made")
    write_images(folder / "images", IMAGES)
    configs: list[Config] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", sys.argv)
        run_with_hydra("train", [*OVERRIDES, f"data.root={folder}/images"], configs.append)
        run = Run.create(configs[0], DataIdentity.of(*load_images(configs[0].data)), ["resnext", "train"])
        with with_callbacks(Stopper("on_train_batch_start", 4)), pytest.raises(Interrupted):
            fit(run)
        assert {path.name for path in run.checkpoints.iterdir()} == {"last.ckpt", "previous.ckpt", "best.ckpt"}
        shutil.copytree(run.path, "runs/whole")
        (run.path / "jobs.txt").write_text("7 submitted\n7 start\n")
    return folder


@pytest.fixture
def hurt(made: Path) -> Path:
    return Path(shutil.copytree(made / "runs", "runs")) / "hurt"


@pytest.fixture
def verb(made: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Exit code, stdout and stderr of a verb on runs/hurt."""

    def run(name: str, *more: str) -> tuple[int, str, str]:
        arguments = {
            "train": [*OVERRIDES, f"data.root={made}/images"],
            "compare": ["runs/hurt", "runs/whole"],
            "status": [],
        }.get(name, ["runs/hurt"])
        code = run_verb([name, *arguments, *more])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run
