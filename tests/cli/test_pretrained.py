"""The network of a run that starts from the weights of a checkpoint."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from resnext.__main__ import run_verb
from resnext.cli.pretrained import check_weights, with_network_of_weights
from resnext.config.compose import compose
from resnext.config.schema import Config
from resnext.models.factory import build_model
from resnext.run.directory import Run
from resnext.runtime.checkpoint_metadata import METADATA, CheckpointMetadata
from support.small_run import small_config

OURS = 'resnext (layers=[1,1] cardinality=2 base_width=16 width=8 stem="cifar")'


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A checkpoint of the small network with three classes."""
    config = small_config(tmp_path)
    state = {f"network.{name}": value for name, value in build_model(config.model, 3).state_dict().items()}
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": state, METADATA: CheckpointMetadata.of(config, ("a", "b", "c")).to_plain()}, path)
    return path


def network_of(*overrides: str) -> Config:
    return with_network_of_weights(compose([*overrides]), ["resnext", "train", *overrides])


def test_a_run_takes_the_network_of_its_checkpoint(weights: Path, capsys: pytest.CaptureFixture[str]):
    config = network_of("experiment=finetune", f"model.weights='{weights}'", "data.root=x")
    assert config.model == small_config(weights, model__weights=str(weights)).model
    assert capsys.readouterr().out == f"network   {OURS}: from model.weights, instead of resnext50_32x4d\n"


@pytest.mark.parametrize(
    "choice", ["model=resnext101_32x4d", "model.name=resnext101_32x8d", "++model.name=timm/resnet18"]
)
def test_a_network_on_the_command_line_stays(weights: Path, choice: str, capsys: pytest.CaptureFixture[str]):
    config = network_of("experiment=finetune", choice, f"model.weights='{weights}'", "data.root=x")
    assert config.model.name == choice.partition("=")[2]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "not a file, and neither torchvision:NAME nor timm:NAME"), (b"", "empty"), (b"PK\3\4half", "incomplete")],
)
@pytest.mark.parametrize("key", ["model.weights", "recipe.teacher.weights"])
def test_weights_that_cannot_be_read_are_reported_first(key: str, content: bytes | None, problem: str, capsys):
    """Before the images are searched, which do not exist here."""
    if content is not None:
        Path("weights.pt").write_bytes(content)
    arguments = ["experiment=finetune", "recipe.teacher.name=resnext50_32x4d", "data.root=nowhere"]
    for verb in ("train", "slurm"):
        assert run_verb([verb, *arguments, f"{key}=weights.pt", "slurm.tasks_per_node=1"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"resnext {verb}: {key}=")
        assert f"weights.pt is {problem}" in line


def test_whole_files_and_names_of_weights_are_accepted(weights: Path, tmp_path: Path):
    safetensors = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, safetensors)
    torch.save({"a": torch.zeros(1)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in (None, str(weights), str(safetensors), str(tmp_path / "old.pt"), "torchvision:x", "timm:x"):
        check_weights(small_config(tmp_path, model__weights=name))
    check_weights(small_config(tmp_path, recipe__teacher={"weights": "missing.pt"}))  # there is no teacher


def test_nothing_is_printed_if_nothing_changes(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for each in (small_config(tmp_path), small_config(tmp_path, model__weights=str(weights))):
        assert with_network_of_weights(each, []) is each
    torch.save(torch.load(weights) | {METADATA: None}, weights)
    for name in (str(weights), "torchvision:resnext50_32x4d", "nowhere"):
        config = compose(["experiment=finetune", f"model.weights='{name}'", "data.root=x"])
        assert with_network_of_weights(config, []) is config
    assert capsys.readouterr().out == ""


def test_a_run_starts_from_the_weights_of_another_network(weights: Path, image_folder: Path, capsys):
    arguments = f"""experiment=finetune model.weights='{weights}' data.root='{image_folder}' data.workers=0 run=tuned
        recipe.image_size=8 recipe.batch_size=4 recipe.max_steps=1 logger.mode=disabled trainer.accelerator=cpu
        trainer.precision=32-true recipe.optimizer.lr=1e-30 recipe.optimizer.weight_decay=0""".split()
    assert run_verb(["train", *arguments]) == 0
    run = Run(Path("runs/tuned"))
    assert run.made.model == small_config(image_folder, model__weights=str(weights)).model
    theirs, ours = (torch.load(path)["state_dict"] for path in (weights, run.checkpoints / "last.ckpt"))
    kept = [name for name in theirs if name.endswith("weight") and not name.startswith("network.fc")]
    assert kept
    assert all(torch.equal(theirs[name], ours[name]) for name in kept)  # at this learning rate they do not change
    assert run_verb(["train", *arguments]) == 0  # the same run, which is finished
    capsys.readouterr()
    assert run_verb(["train", *arguments, "run=other", "model=resnext50_32x4d"]) == 2
    assert f"model.weights={weights} does not fit model.name=resnext50_32x4d" in capsys.readouterr().err
