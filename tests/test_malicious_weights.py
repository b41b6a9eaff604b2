"""A pickle that would run code, in each place where weights are read: one line, exit code 2, and nothing is run."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from resnext.__main__ import run_verb
from resnext.config.checkpoint_metadata import peek_metadata
from resnext.errors import Interrupted, UserError
from resnext.models.weights import load_weights
from resnext.training.fit import fit
from support.small_run import make_run, small_config, write_images
from support.stopping import Stopper, with_callbacks

CANARY = Path("canary")


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (CANARY,)


FORMS: dict[str, Callable[[Any, Path], Any]] = {
    "zip": torch.save,
    "legacy": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    "pickle": lambda content, path: path.write_bytes(pickle.dumps(content)),
}
FILES = ["w.pt", "w.safetensors", "out/model.safetensors"]
VERBS = {
    "predict a run": ("best.ckpt", ["predict", "runs/test", "photo.png"]),
    "export a run": ("best.ckpt", ["export", "runs/test", "--format", "torch", "--output", "x.pt"]),
    "evaluate": ("best.ckpt", ["evaluate", "runs/test"]),
    "evaluate the last": ("last.ckpt", ["evaluate", "runs/test", "--checkpoint", "last"]),
    "publish": ("best.ckpt", ["publish", "runs/test", "--repo", "owner/name"]),
    "average": ("best.ckpt", ["average", "runs/test", "runs/other"]),
    "compare": ("best.ckpt", ["compare", "runs/test", "runs/test"]),
    "resume from last.ckpt": ("last.ckpt", ["resume", "runs/test"]),
    "resume from previous.ckpt": ("previous.ckpt", ["resume", "runs/test"]),
    "resume from best.ckpt": ("best.ckpt", ["resume", "runs/test"]),
}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/test, interrupted in its second epoch, with all its checkpoints, and photo.png."""
    folder = tmp_path_factory.mktemp("interrupted")
    write_images(folder / "images", {"train/a": 8, "train/b": 8, "val/a": 1, "val/b": 1})
    shutil.copy(folder / "images/val/a/0.png", folder / "photo.png")
    with pytest.MonkeyPatch.context() as patch, with_callbacks(Stopper("on_train_batch_start", 3)):
        patch.chdir(folder)
        with pytest.raises(Interrupted):
            fit(make_run(small_config(folder / "images", recipe__batch_size=8)))
    return folder


@pytest.fixture(params=FORMS)
def poison(request: pytest.FixtureRequest) -> Callable[[Any, Path], Any]:
    return FORMS[request.param]


@pytest.fixture
def run(interrupted: Path) -> Path:
    shutil.copytree(interrupted, ".", dirs_exist_ok=True)
    shutil.copytree("runs/test", "runs/other")
    return Path("runs/test")


def poisoned(content: Any, path: Path, write: Callable[[Any, Path], Any]) -> None:
    """The content of a real file with a payload in addition; the file would run it if it were unpickled."""
    write({**content, "more": Payload()}, path)
    with path.open("rb") as file:
        pickle.load(file) if write is FORMS["pickle"] else torch.load(file, weights_only=False)
    assert CANARY.exists()
    CANARY.unlink()


def assert_refused(arguments: list[str], capsys: pytest.CaptureFixture[str], problem: str) -> None:
    capsys.readouterr()
    assert run_verb(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert problem in line
    assert not CANARY.exists()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("section", ["model", "recipe.teacher"])
def test_weights_run_no_code(poison: Callable, section: str, name: str):
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    (path.parent / "config.json").write_text("{}")
    poisoned({"state_dict": {"a": torch.ones(2)}}, path, poison)
    asked = name.partition("/model")[0]
    with pytest.raises(UserError) as error:
        load_weights(asked, section)
    assert str(error.value) == f"{section}.weights={asked} holds more than tensors and is not read: it could run code"
    assert peek_metadata(Path(asked)) is None
    assert not CANARY.exists()


def test_a_training_from_weights_runs_no_code(run: Path, capsys: pytest.CaptureFixture[str]):
    poisoned(torch.load(run / "checkpoints/best.ckpt", weights_only=True), Path("w.pt"), FORMS["zip"])
    arguments = ["train", "experiment=finetune", "data.root=images", "recipe.batch_size=4", "recipe.image_size=8"]
    problem = "holds more than tensors and is not read: it could run code"
    assert_refused([*arguments, "model.weights=w.pt"], capsys, f"w.pt {problem}")
    teacher = ["recipe.teacher.name=resnext50_32x4d", "recipe.teacher.weights=w.pt", "model.weights=null"]
    assert_refused([*arguments, *teacher], capsys, f"w.pt {problem}")
    assert len(list(Path("runs").iterdir())) == 2


@pytest.mark.parametrize("verb", ["predict", "export", "evaluate"])
def test_a_file_given_to_a_verb_runs_no_code(
    poison: Callable, verb: str, run: Path, capsys: pytest.CaptureFixture[str]
):
    content = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    more = {
        "predict": ["photo.png"],
        "export": ["--format", "torch", "--output", "x.pt"],
        "evaluate": ["--data", "images"],
    }
    for name in ("w.pt", "w.safetensors"):
        poisoned(content, Path(name), poison)
        problem = "holds more than tensors" if poison is FORMS["zip"] else "is neither a run, a checkpoint nor a safet"
        assert_refused([verb, name, *more[verb]], capsys, f"{name} {problem}")


@pytest.mark.parametrize("verb", VERBS)
def test_a_checkpoint_in_a_run_runs_no_code(poison: Callable, verb: str, run: Path, capsys: pytest.CaptureFixture[str]):
    name, arguments = VERBS[verb]
    path = run / "checkpoints" / name
    poisoned(torch.load(run / "checkpoints/last.ckpt", weights_only=True), path, poison)
    problem = f"{name} holds more than tensors and plain values, and loading it could run code"
    assert_refused(arguments, capsys, problem)
    assert path.exists()
