"""Whose a checkpoint is: this run's, or refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from stopping import Stopper, make_run, with_callbacks

from conftest import small_config
from resnext.errors import Interrupted, UserError
from resnext.training.checkpoint import load_checkpoint
from resnext.training.comparison import compare
from resnext.training.evaluation import evaluate
from resnext.training.fit import fit
from resnext.training.run import Run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """runs/ours, interrupted after one epoch of two, and runs/theirs, the same configuration, which has done both."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ours, theirs = (make_run(small_config(digits, run=name, recipe__batch_size=720)) for name in ("ours", "theirs"))
        fit(theirs)
        with with_callbacks(Stopper("on_validation_end", 1)), pytest.raises(Interrupted):
            fit(ours)
    return folder


@pytest.fixture
def ours(trained: Path, tmp_path: Path) -> Run:
    shutil.copytree(trained / "runs", tmp_path / "runs")
    return Run(Path("runs/ours"))


def rewrite(path: Path, **changes: Any) -> None:
    content = torch.load(path, weights_only=True) | changes
    torch.save({name: value for name, value in content.items() if value is not None}, path)


@pytest.mark.parametrize("name", ["last", "previous", "best"])
def test_a_checkpoint_of_another_run_is_refused_in_one_line(ours: Run, name: str):
    shutil.copy("runs/theirs/checkpoints/last.ckpt", ours.checkpoints / f"{name}.ckpt")
    before = (ours.path / "metrics.csv").read_bytes()
    with pytest.raises(UserError, match=rf"checkpoints/{name}.ckpt is of another run \(\w+; this is \w+\)") as error:
        fit(ours)
    assert "\n" not in str(error.value)
    assert "model.weights=" in str(error.value)
    assert (ours.path / "metrics.csv").read_bytes() == before


@pytest.mark.parametrize("name", ["last", "best"])
def test_another_runs_is_neither_evaluated_nor_compared(ours: Run, name: str):
    shutil.copy(f"runs/theirs/checkpoints/{name}.ckpt", ours.checkpoints)
    with pytest.raises(UserError, match=rf"{name}.ckpt is of another run"):
        evaluate(ours, ours.config, name)
    with pytest.raises(UserError, match=rf"{name}.ckpt is of another run"):
        compare(ours, Run(Path("runs/theirs")))


def test_its_own_goes_on_wherever_it_lies(ours: Run):
    moved = Run(ours.path.rename("elsewhere"))
    fit(moved)
    assert moved.summary["status"] == "finished"
    assert [part for part in compare(moved, Run(Path("runs/theirs"))) if not part.same] == []


def test_weights_of_another_run_start_a_new_one(ours: Run, digits: Path):
    weights = str(ours.checkpoints / "best.ckpt")
    run = make_run(small_config(digits, run="new", recipe__batch_size=720, recipe__epochs=1, model__weights=weights))
    fit(run)
    assert evaluate(run, run.config, "best").step == 1


def test_a_configuration_that_was_changed_by_hand(ours: Run):
    path = ours.path / "config.yaml"
    path.write_text(path.read_text().replace("lr: 0.05", "lr: 0.06"))
    with pytest.raises(UserError, match=r"last.ckpt is of this run, but config.yaml, run.json or the data changed"):
        fit(ours)


def test_one_that_does_not_name_its_run(ours: Run):
    """As they were written before."""
    rewrite(ours.checkpoints / "last.ckpt", run=None)
    with pytest.raises(UserError, match=r"last.ckpt does not say which run wrote it.*model.weights=") as error:
        fit(ours)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["last", "best"])
def test_one_that_does_not_name_its_run_is_read_with_a_warning(ours: Run, caplog: pytest.LogCaptureFixture, name: str):
    scores, path = evaluate(ours, ours.config, name).scores, ours.checkpoints / f"{name}.ckpt"
    rewrite(path, run=None, metrics=None)
    assert evaluate(ours, ours.config, name).scores == scores
    assert f"{path} does not say which run wrote it" in caplog.text
    assert {part.name: part.same for part in compare(ours, ours)} == dict.fromkeys(
        ("metrics.csv", "position", "weights", "EMA", "optimizer", "best.ckpt"), True
    )


def test_no_path_is_in_a_checkpoint(ours: Run, trained: Path):
    for path in (ours.checkpoints / "last.ckpt", ours.checkpoints / "best.ckpt"):
        assert str(trained).encode() not in path.read_bytes()
        assert [text for text in strings(load_checkpoint(path)) if "/" in text and not text.startswith("epoch,")] == []


def strings(tree: Any) -> list[str]:
    if isinstance(tree, dict):
        return [text for key, value in tree.items() for text in (*strings(key), *strings(value))]
    if isinstance(tree, list | tuple):
        return [text for value in tree for text in strings(value)]
    return [tree] if isinstance(tree, str) else []
