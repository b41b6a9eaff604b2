"""The network of a run that starts from the weights of a checkpoint."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from resnext.__main__ import run_verb
from resnext.config.checkpoint_metadata import METADATA, CheckpointMetadata
from resnext.config.compose import compose
from resnext.config.pretrained import check_weights, describe_network_of_weights, normalization_warning
from resnext.config.schema import Config, ModelConfig, to_dict
from resnext.models.factory import build_model
from resnext.run.directory import Run
from support.small_run import small_config, write_images
from support.stopping import Stopper, with_callbacks

PHOTOS = Path(__file__).parents[2] / "docs/photos.md"
OURS = 'resnext (layers=[1,1] cardinality=2 base_width=16 width=8 stem="cifar")'


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A checkpoint of the small network with three classes."""
    config = small_config(tmp_path)
    state = {f"network.{name}": value for name, value in build_model(config.model, 3).state_dict().items()}
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": state, METADATA: CheckpointMetadata.of(config, ("a", "b", "c")).to_plain()}, path)
    return path


def network_of(weights: object, *choices: str) -> Config:
    return compose(["experiment=finetune", f"model.weights='{weights}'", "data.root=x", *choices])


def test_a_run_takes_the_network_of_its_checkpoint(weights: Path):
    config = network_of(weights)
    assert config.model == small_config(weights, model__weights=str(weights)).model
    assert describe_network_of_weights(config) == f"network   {OURS}: from model.weights"


def test_every_verb_shows_the_network_that_trains(weights: Path, resnext: Callable, capfd: pytest.CaptureFixture[str]):
    """--cfg job and slurm.dry_run in processes of their own; recipes here."""
    arguments = ["experiment=finetune", "model.weights=best.ckpt", "data.root=images", "recipe.batch_size=4"]
    shown = yaml.safe_load(resnext("train", *arguments, "--cfg", "job").stdout)["model"]
    ours = to_dict(small_config(weights).model)
    assert shown == ours | {"weights": "best.ckpt"}

    write_images(Path("images"), {"train/cat": 6, "train/dog": 6, "val/cat": 3, "val/dog": 2})
    slurm = resnext("slurm", *arguments, "run=tuned", "slurm.dry_run=true", "slurm.tasks_per_node=1")
    assert (slurm.returncode, slurm.stdout.splitlines()[0]) == (0, f"network   {OURS}: from model.weights")
    assert to_dict(Run(Path("runs/tuned")).made.model) == ours | {"weights": str(weights)}

    assert run_verb(["recipes", "small", "model.weights=best.ckpt", "data.root=images"]) == 0
    assert "network   resnext\n" in capfd.readouterr().out


@pytest.mark.parametrize(
    "choice", ["model=resnext101_32x4d", "model.name=resnext101_32x8d", "++model.name=timm/resnet18"]
)
def test_a_network_on_the_command_line_stays(weights: Path, choice: str):
    config = network_of(weights, choice)
    assert config.model.name == choice.partition("=")[2]
    assert describe_network_of_weights(config) is None


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


@pytest.mark.parametrize("key", ["model.weights", "recipe.teacher.weights"])
def test_a_folder_that_is_not_an_export_is_refused(key: str, capsys: pytest.CaptureFixture[str]):
    Path("photos").mkdir()
    Path("runs/own/checkpoints").mkdir(parents=True)
    Path("runs/own/checkpoints/best.ckpt").touch()
    arguments = ["train", "experiment=finetune", "recipe.teacher.name=resnext50_32x4d", "data.root=nowhere"]
    for folder, remedy in {
        "photos": "it needs config.json and model.safetensors",
        "runs/own": f"give {Path.cwd()}/runs/own/checkpoints/best.ckpt",
    }.items():
        assert run_verb([*arguments, f"{key}={folder}"]) == 2
        expected = f"{key}={Path.cwd()}/{folder} is a folder, but not one of `export --format timm`: {remedy}\n"
        assert capsys.readouterr().err == f"resnext train: {expected}"


def test_images_in_another_normalization_than_that_of_the_weights_give_a_warning(weights: Path, tmp_path: Path):
    own = small_config(tmp_path, model__weights=str(weights))
    assert normalization_warning(own) is None
    other = small_config(tmp_path, model__weights=str(weights), data__mean=[0.5, 0.5, 0.5])
    found = "data.mean=[0.485,0.456,0.406] data.std=[0.229,0.224,0.225]"
    assert (
        normalization_warning(other) == f"model.weights was trained with another normalisation: to use it, set {found}"
    )
    assert normalization_warning(small_config(tmp_path, data__mean=[0.5, 0.5, 0.5])) is None


def test_what_is_frozen_does_not_choose_the_network(weights: Path):
    """The checkpoint of a run with frozen parts describes its network alone, which an earlier release reads too."""
    config = network_of(weights, "model.freeze=[layer1]")
    assert config.model == small_config(weights, model__weights=str(weights), model__freeze=["layer1"]).model
    assert describe_network_of_weights(config) == f"network   {OURS}: from model.weights"
    written = CheckpointMetadata.of(config, ("a", "b", "c"))
    assert "freeze" not in written.to_plain()["model"]
    assert written.model == small_config(weights).model


def test_whole_files_and_names_of_weights_are_accepted(weights: Path, tmp_path: Path):
    safetensors = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, safetensors)
    torch.save({"a": torch.zeros(1)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in (None, str(weights), str(safetensors), str(tmp_path / "old.pt"), "torchvision:x", "timm:x"):
        check_weights(small_config(tmp_path, model__weights=name))
    check_weights(small_config(tmp_path, recipe__teacher={"weights": "missing.pt"}))  # there is no teacher


def test_other_weights_leave_the_network(weights: Path):
    torch.save(torch.load(weights) | {METADATA: None}, weights)
    for name in (str(weights), "torchvision:resnext50_32x4d", "nowhere"):
        config = network_of(name)
        assert config.model == ModelConfig(name="resnext50_32x4d", weights=name)
        assert describe_network_of_weights(config) is None


def test_a_run_starts_from_the_weights_of_another_network(weights: Path, image_folder: Path, capsys):
    """With frozen stages, by the arguments in docs/photos.md."""
    command = r'^make train EXP=finetune .* ARGS="data.val_fraction=0.1 (model.freeze=.*)"$'
    (frozen,) = re.findall(command, PHOTOS.read_text(), re.MULTILINE)
    arguments = f"""experiment=finetune model.weights='{weights}' data.root='{image_folder}' data.workers=0 run=tuned
        recipe.image_size=8 recipe.batch_size=4 recipe.max_steps=1 logger.mode=disabled trainer.accelerator=cpu
        trainer.precision=32-true recipe.optimizer.lr=1e-30 recipe.optimizer.weight_decay=0 {frozen}""".split()
    assert run_verb(["train", *arguments]) == 0
    run = Run(Path("runs/tuned"))
    freeze = ["conv1", "bn1", "layer1"]
    assert run.made.model == small_config(image_folder, model__weights=str(weights), model__freeze=freeze).model
    theirs, ours = (torch.load(path)["state_dict"] for path in (weights, run.checkpoints / "last.ckpt"))
    kept = [name for name in theirs if name.endswith("weight") and not name.startswith("network.fc")]
    assert kept
    assert all(torch.equal(theirs[name], ours[name]) for name in kept)  # at this learning rate they do not change
    statistics = [name for name in theirs if name.endswith("running_mean")]
    same = {name.split(".")[1] for name in statistics if torch.equal(theirs[name], ours[name])}
    assert same == {"bn1", "layer1"}
    assert run_verb(["train", *arguments]) == 0  # the same run, which is finished
    capsys.readouterr()
    assert run_verb(["train", *arguments, "run=other", "model=resnext50_32x4d"]) == 2
    assert f"model.weights={weights} does not fit model.name=resnext50_32x4d" in capsys.readouterr().err


def test_a_run_resumes_without_the_weights_that_it_started_from(weights: Path, image_folder: Path):
    """Its checkpoint has them. The command chooses the network, which the missing file could not tell."""
    arguments = f"""experiment=finetune model.weights='{weights}' data.root='{image_folder}' data.workers=0 run=tuned
        recipe.image_size=8 recipe.batch_size=4 recipe.max_steps=2 logger.mode=disabled trainer.accelerator=cpu
        trainer.precision=32-true model=resnext_small model.options.layers=[1,1] model.options.cardinality=2
        model.options.base_width=16 model.options.width=8 model.options.stem=cifar""".split()
    with with_callbacks(Stopper("on_train_batch_start", 1)):
        assert run_verb(["train", *arguments]) == 130
    weights.unlink()
    assert run_verb(["train", *arguments, "run=other"]) == 2
    assert run_verb(["train", *arguments]) == 0
    assert Run(Path("runs/tuned")).summary["steps"] == 2
