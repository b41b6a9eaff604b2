"""A user's part that fails: before a run exists, in its first checkpoint, or while other runs wait."""

import signal
from pathlib import Path

import pytest
import torch

from resnext.__main__ import run_verb
from resnext.config.model import ModelConfig
from resnext.errors import UserError
from resnext.models.factory import build_model
from resnext.run.directory import Run
from resnext.training.fit import fit
from support.extensions import extensions
from support.small_run import make_run, small_config

SMALL = ["model=resnext_small", "recipe=small", "recipe.epochs=1", "recipe.batch_size=8", "recipe.image_size=8"]
SMALL += ["experiment=image_folder", "logger.mode=disabled", "trainer.accelerator=cpu", "trainer.devices=1"]
BROKEN_LOSS = """
from resnext.registry import NoOptions, register_loss

@register_loss("broken")
def build(options: NoOptions):
    raise ValueError("no table of class weights")
"""
NO_CALLBACK = """
from resnext.registry import NoOptions, register_callback

@register_callback("nothing")
def build(options: NoOptions): ...
"""
KEEPING = """
from pathlib import Path
from lightning.pytorch import Callback
from resnext.registry import NoOptions, register_callback

@register_callback("keeping")
class Keeping(Callback):
    def __init__(self, options: NoOptions) -> None: ...

    def state_dict(self):
        return VALUE
"""
LOGGER = """
from lightning.pytorch.loggers import CSVLogger
from pydantic.dataclasses import dataclass
from resnext.config.types import STRICT
from resnext.registry import register_logger

@dataclass(frozen=True, kw_only=True, config=STRICT)
class Options:
    depth: int = 2

@register_logger("mine", options=Options)
def build(options, run):
    return CSVLogger(run.path, name="mine")
"""


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        (["recipe.loss.name=broken", "recipe.loss.label_smoothing=0"], ValueError),
        (["callbacks.names=[nothing]"], UserError),
    ],
)
def test_a_part_that_cannot_be_built_leaves_no_run(
    image_folder: Path, overrides: list[str], error: type[Exception], capsys: pytest.CaptureFixture[str]
):
    with extensions(Path("extensions").absolute(), broken=BROKEN_LOSS, nothing=NO_CALLBACK):
        command = ["train", *SMALL, f"data.root={image_folder}", "run=mine", *overrides]
        if error is UserError:
            assert run_verb(command) == 2
            assert "the callback nothing of resnext.extensions.nothing is None" in capsys.readouterr().err
        else:
            with pytest.raises(error, match="no table of class weights"):  # a user's error keeps its traceback
                run_verb(command)
    assert not Path("runs/mine").exists()


def test_a_network_that_is_not_a_module_is_named(tmp_path: Path):
    text = NO_CALLBACK.replace("callback", "network").replace(
        "options: NoOptions): ...", "options, num_classes): return {}"
    )
    with (
        extensions(tmp_path / "extensions", nothing=text),
        pytest.raises(
            UserError, match=r"^model.name=nothing: resnext.extensions.nothing returns a dict, not an nn.Module"
        ),
    ):
        build_model(ModelConfig(name="nothing"), 2)


@pytest.mark.parametrize("verb", ["status", "resume", "train", "recipes"])
@pytest.mark.parametrize("text", ["import nowhere", "raise SystemExit", "exit(0)"])
def test_a_broken_extension_is_said_before_any_run_is_read(
    image_folder: Path, verb: str, text: str, capsys: pytest.CaptureFixture[str]
):
    """It would look like a damaged run, and `resume` without a name would skip every run."""
    make_run(small_config(image_folder))
    with extensions(Path("extensions").absolute(), broken=text):
        assert run_verb([verb]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(f"resnext {verb}: the extension resnext.extensions.broken cannot be imported: ")
        assert printed.err.count("\n") == 1


def test_a_signal_during_the_import_of_an_extension_ends_fit_like_any_other(
    image_folder: Path, capfd: pytest.CaptureFixture[str]
):
    run = make_run(small_config(image_folder))
    text = "import os, signal\nos.kill(os.getpid(), signal.SIGUSR1)"
    with extensions(Path("extensions").absolute(), stopping=text):
        assert run_verb(["fit", str(run.path)]) == 128 + signal.SIGUSR1
    assert "SIGUSR1: " in capfd.readouterr().err


def test_the_verbs_that_read_no_run_need_no_extension(tmp_path: Path):
    with extensions(Path("extensions").absolute(), broken="import nowhere"):
        assert run_verb(["prepare", "pack", str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 2
        assert run_verb(["benchmark", "index", str(tmp_path / "nowhere")]) == 2


def test_a_broken_extension_does_not_hide_the_help(capsys: pytest.CaptureFixture[str]):
    with extensions(Path("extensions").absolute(), broken="import nowhere"), pytest.raises(SystemExit) as ended:
        run_verb(["status", "--help"])
    assert ended.value.code == 0
    assert "usage: resnext status" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        ("{'path': Path('x')}", "pathlib.PosixPath"),
        ("{'seen': __import__('collections').deque([1])}", "collections.deque"),
        ("{'mean': __import__('numpy').float64(1)}", "numpy._core.multiarray.scalar, numpy.dtype"),
    ],
)
def test_a_callback_whose_state_no_run_could_load_ends_the_first_save(image_folder: Path, value: str, refused: str):
    with extensions(Path("extensions").absolute(), keeping=KEEPING.replace("VALUE", value)):
        run = make_run(small_config(image_folder, recipe__batch_size=8, callbacks={"names": ["keeping"]}))
        with pytest.raises(UserError, match=f"^a checkpoint cannot hold {refused}: the state_dict or on_save_check"):
            fit(run)
    assert list(run.checkpoints.iterdir()) == []


def test_a_callback_keeps_tensors_and_plain_values(image_folder: Path):
    state = "{'a': __import__('torch').ones(2), 'b': [1, 2.5, None, True, ('x', {'y': b'z'})], 'c': {1, 2}}"
    with extensions(Path("extensions").absolute(), keeping=KEEPING.replace("VALUE", state)):
        run = make_run(small_config(image_folder, recipe__batch_size=8, callbacks={"names": ["keeping"]}))
        fit(run)
    kept = torch.load(run.checkpoints / "last.ckpt", weights_only=True)["callbacks"]["Keeping"]
    assert kept.pop("a").tolist() == [1, 1]
    assert kept == {"b": [1, 2.5, None, True, ("x", {"y": b"z"})], "c": {1, 2}}


def test_a_logger_is_removed_with_its_saved_options(image_folder: Path):
    with extensions(Path("extensions").absolute(), mine=LOGGER):
        config = small_config(image_folder, recipe__epochs=1, recipe__batch_size=8, logger__names=["mine"])
        run = make_run(config)
        assert run.config.logger.options["mine"].depth == 2
        assert run_verb(["resume", str(run.path), "logger.names=[]"]) == 0
        resumed = Run.open(run.path).config.logger
        assert (resumed.names, resumed.options) == ((), {})
    assert not (run.path / "mine").exists()
