"""A checkpoint belongs to this run, or it is refused."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from resnext.errors import Interrupted, UserError
from resnext.report.comparison import compare
from resnext.run.directory import Run
from resnext.run.identity import describe_differences, identity_digest
from resnext.runtime.checkpoint import load_checkpoint
from resnext.training.fit import fit
from support.evaluation import evaluated
from support.small_run import small_config
from support.stopping import Stopper, make_run, with_callbacks


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """runs/ours, interrupted after one of two epochs, and runs/theirs, finished, with the same configuration."""
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
    with pytest.raises(
        UserError, match=rf"checkpoints/{name}.ckpt belongs to another run \(\w+; this is \w+\)"
    ) as error:
        fit(ours)
    assert "\n" not in str(error.value)
    assert "model.weights=" in str(error.value)
    assert (ours.path / "metrics.csv").read_bytes() == before


@pytest.mark.parametrize("name", ["last", "best"])
def test_a_checkpoint_of_another_run_is_neither_evaluated_nor_compared(ours: Run, name: str):
    shutil.copy(f"runs/theirs/checkpoints/{name}.ckpt", ours.checkpoints)
    with pytest.raises(UserError, match=rf"{name}.ckpt belongs to another run"):
        evaluated(ours, name)
    with pytest.raises(UserError, match=rf"{name}.ckpt belongs to another run"):
        compare(ours, Run(Path("runs/theirs")))


def test_a_moved_run_resumes_from_its_own_checkpoint(ours: Run):
    moved = Run(ours.path.rename("elsewhere"))
    fit(moved)
    assert moved.summary["status"] == "finished"
    assert [part for part in compare(moved, Run(Path("runs/theirs"))) if not part.same] == []


def test_weights_of_another_run_start_a_new_run(ours: Run, digits: Path):
    weights = str((ours.checkpoints / "best.ckpt").absolute())
    run = make_run(small_config(digits, run="new", recipe__batch_size=720, recipe__epochs=1, model__weights=weights))
    fit(run)
    assert evaluated(run)["step"] == 1


def test_a_configuration_that_was_changed_by_hand_is_refused(ours: Run):
    path = ours.path / "config.yaml"
    path.write_text(path.read_text().replace("lr: 0.05", "lr: 0.06"))
    with pytest.raises(
        UserError, match=r"last.ckpt belongs to this run, but config.yaml, run.json or the data changed"
    ):
        fit(ours)


def test_a_corrected_text_of_the_recipe_keeps_the_identity(digits: Path):
    """On the command line and in the files."""
    texts = {"recipe__source": "a paper", "recipe__published": "77 %"}
    config, corrected = (small_config(digits, run="texts", recipe__batch_size=720, **each) for each in ({}, texts))
    assert config.identity() == corrected.identity()
    with with_callbacks(Stopper("on_validation_end", 1)), pytest.raises(Interrupted):
        fit(make_run(config))
    run = make_run(corrected)
    assert run.config.recipe.source == "a paper"
    for path in (run.path / "config.yaml", run.path / "starts/2.yaml"):
        path.write_text(re.sub("source: .*", "source: another paper", path.read_text()))
    fit(run)
    assert [start["from_step"] for start in run.info["starts"]] == [0, 1]
    assert run.made.recipe.source == "another paper"


def test_texts_do_not_change_the_digest_of_older_runs():
    config = {
        "seed": 0,
        "model": {"name": "resnext50_32x4d", "weights": None, "zero_init_last": False},
        "recipe": {
            "epochs": 2,
            "batch_size": 32,
            "optimizer": {"name": "sgd", "lr": 0.05},
            "augmentation": {"scale": [0.5, 1.0]},
        },
        "data": {"name": "digits", "root": "/x", "workers": 3, "mean": [0.1, 0.2, 0.3]},
    }
    data = {"fingerprint": "f", "classes": ["a", "b"]}
    assert identity_digest(config, data) == "3ac0f167c74c760b48a85d7f4ec2c4cc"  # computed by commit e5c07e2
    with_texts = {**config, "recipe": {**config["recipe"], "source": "a paper", "published": "77 %"}}
    assert identity_digest(with_texts, data) == "3ac0f167c74c760b48a85d7f4ec2c4cc"
    assert (
        identity_digest({**config, "recipe": {**config["recipe"], "epochs": 3}}, data)
        != "3ac0f167c74c760b48a85d7f4ec2c4cc"
    )


@pytest.mark.parametrize("zero", [True, False])
def test_a_run_from_before_recipe_init_resumes(digits: Path, zero: bool):
    """Its model.zero_init_last is read as recipe.init.zero_init_last; its files and digest stay as they are."""
    options = {"recipe__batch_size": 720, **({"recipe__init__zero_init_last": True} if zero else {})}
    config = small_config(digits, **options, run="old")
    with with_callbacks(Stopper("on_validation_end", 1)), pytest.raises(Interrupted):
        fit(make_run(config))
    run = Run(Path("runs/old"))
    for path in (run.path / "config.yaml", run.path / "starts/1.yaml"):
        tree = yaml.safe_load(path.read_text())
        tree["model"]["zero_init_last"] = zero
        for key in ("init", "file", "source", "published"):
            del tree["recipe"][key]
        path.write_text(yaml.safe_dump(tree))
    assert run.made == config
    for path in run.checkpoints.iterdir():
        mark = load_checkpoint(path)["run"]
        assert mark["identity"] != run.mark.identity
        rewrite(path, run={**mark, "identity": run.mark.identity})
    fit(make_run(config))
    assert [start["from_step"] for start in run.info["starts"]] == [0, 1]
    assert run.summary["status"] == "finished"


def test_a_checkpoint_without_a_mark_is_refused(ours: Run):
    """Earlier versions wrote no mark."""
    rewrite(ours.checkpoints / "last.ckpt", run=None)
    with pytest.raises(UserError, match=r"last.ckpt does not say which run wrote it.*model.weights=") as error:
        fit(ours)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["last", "best"])
def test_a_checkpoint_without_a_mark_is_read_with_a_warning(ours: Run, caplog: pytest.LogCaptureFixture, name: str):
    networks, path = evaluated(ours, name)["networks"], ours.checkpoints / f"{name}.ckpt"
    rewrite(path, run=None, metrics=None)
    assert evaluated(ours, name)["networks"] == networks
    assert f"{path} does not say which run wrote it" in caplog.text
    assert {part.name: part.same for part in compare(ours, ours)} == dict.fromkeys(
        ("metrics.csv", "position", "weights", "EMA", "optimizer", "best.ckpt"), True
    )


def test_a_checkpoint_contains_no_path(ours: Run, trained: Path):
    for path in (ours.checkpoints / "last.ckpt", ours.checkpoints / "best.ckpt"):
        assert str(trained).encode() not in path.read_bytes()
        assert [text for text in strings(load_checkpoint(path)) if "/" in text and not text.startswith("epoch,")] == []


def strings(tree: Any) -> list[str]:
    if isinstance(tree, dict):
        return [text for key, value in tree.items() for text in (*strings(key), *strings(value))]
    if isinstance(tree, list | tuple):
        return [text for value in tree for text in strings(value)]
    return [tree] if isinstance(tree, str) else []


@pytest.mark.parametrize(("name", "is_same"), [("resnext50_32x4d", True), ("timm/resnet18", False)])
def test_zero_init_null_and_false_are_equal_only_for_our_networks(tmp_path: Path, name: str, is_same: bool):
    """Runs of v1 from before recipe.init have null; the same command now gives false. For timm, null means zeros."""
    model = {"name": name}
    null, false, true = (
        small_config(tmp_path, model=model, recipe__init={"zero_init_last": value}) for value in (None, False, True)
    )
    assert (describe_differences(null, false) == "") == is_same
    assert describe_differences(null, true)
