"""The metadata of a checkpoint describes its network, and reading it runs no code."""

import os
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from resnext.config.checkpoint_metadata import CheckpointMetadata, parse_metadata, peek_metadata
from resnext.config.compose import compose
from resnext.config.schema import ModelConfig, parse_config, to_dict
from resnext.errors import UserError
from resnext.runtime.checkpoint import load_checkpoint
from support.small_run import small_config

FIXTURES = Path(__file__).parents[1] / "fixtures"
CLASSES = ("cat", os.fsdecode(b"caf\xe9"))  # a folder's name is bytes, and these bytes are not UTF-8


def metadata(root: Path) -> CheckpointMetadata:
    changes = {"recipe__evaluation": {"crop_pct": 0.9, "interpolation": "bicubic"}, "data__mean": [0.1, 0.2, 0.3]}
    config = small_config(root, model__weights="/home/me/weights.pth", recipe__file="a3", **changes)
    return CheckpointMetadata.of(config, CLASSES)


def save(path: Path, found: object) -> Path:
    """Like Lightning's checkpoints: with tensors, and with ordered dicts that have attributes."""
    state = torch.nn.BatchNorm2d(3).half().state_dict()
    torch.save({"state_dict": state, "optimizer": [OrderedDict(a=torch.ones(2))], "metadata": found}, path)
    return path


def test_metadata_is_read_as_it_was_written(tmp_path: Path):
    written = metadata(tmp_path)
    path = save(tmp_path / "best.ckpt", written.to_plain())
    assert parse_metadata(path, torch.load(path, weights_only=True)) == written
    assert peek_metadata(path) == written
    assert (written.evaluation.image_size, written.evaluation.crop_pct) == (8, 0.9)  # recipe.image_size
    assert (written.recipe, written.experiment, written.classes) == ("a3", "test", CLASSES)
    assert (written.model.name, written.model.weights) == ("resnext", None)


def test_experiment_and_recipe_are_named_by_their_files():
    config = compose(["experiment=resnext50_imagenet", "recipe=a3", "recipe.epochs=3"])
    named = CheckpointMetadata.of(config, CLASSES)
    assert (named.experiment, named.recipe) == ("resnext50_imagenet", "a3")
    assert compose(["experiment=resnext50_imagenet"]).recipe.file == "v1"


def test_a_key_of_a_later_release_is_ignored(tmp_path: Path):
    written = metadata(tmp_path)
    path = save(tmp_path / "best.ckpt", {**written.to_plain(), "license": "MIT"})
    assert peek_metadata(path) == written


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": {"name": "resnext", "stories": 3}}, "stories"),
        ({"classes": ["cat", 3]}, "classes is not a list of names"),
        ({"mean": [0.5]}, "Field required"),
    ],
)
def test_unreadable_metadata_is_a_one_line_error(tmp_path: Path, change: dict, reason: str):
    path = tmp_path / "best.ckpt"
    with pytest.raises(UserError, match=f"^{path} holds metadata that cannot be read .*{reason}"):
        parse_metadata(path, {"metadata": {**metadata(tmp_path).to_plain(), **change}})


def test_a_checkpoint_of_an_earlier_release_has_no_metadata():
    path = FIXTURES / "old_run/checkpoints/best.ckpt"
    assert peek_metadata(path) is None
    with pytest.raises(UserError, match="does not hold its network, class names and preprocessing"):
        parse_metadata(path, load_checkpoint(path))


def test_other_files_have_no_metadata(tmp_path: Path):
    save_file({"fc.weight": torch.ones(2)}, tmp_path / "weights.safetensors")
    torch.save(torch.ones(2), tmp_path / "tensor.pth")
    torch.save({"metadata": 3}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "text").write_text("metadata")
    assert [peek_metadata(path) for path in tmp_path.iterdir()] == [None] * 4
    assert peek_metadata(tmp_path / "nowhere") is None
    assert peek_metadata(Path("torchvision:resnext50_32x4d")) is None


class Payload:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def test_reading_metadata_runs_no_code(tmp_path: Path):
    path = save(tmp_path / "best.ckpt", metadata(tmp_path).to_plain())
    torch.save({**torch.load(path), "more": Payload()}, path)
    assert peek_metadata(path) == metadata(tmp_path)
    path = save(path, {**metadata(tmp_path).to_plain(), "experiment": Payload()})
    assert peek_metadata(path) is None
    assert not Path("executed").exists()


def test_a_configuration_accepts_the_model_of_the_metadata(tmp_path: Path):
    """The `model` of the metadata is a normal ModelConfig."""
    model = metadata(tmp_path).model
    assert isinstance(model, ModelConfig)
    config = small_config(tmp_path)
    assert parse_config({**to_dict(config), "model": to_dict(model)}).model == config.model
