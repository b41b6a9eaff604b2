"""Networks by name, and weights from a file, torchvision and timm."""

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from resnext.config.schema import ModelConfig
from resnext.errors import UserError
from resnext.models import weights as weights_module
from resnext.models.factory import build_model


def small(weights: Path | str | None = None) -> ModelConfig:
    return ModelConfig(
        name="resnext",
        layers=(1, 1),
        cardinality=2,
        base_width=16,
        width=8,
        stem="cifar",
        weights=weights and str(weights),
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnext50_32x4", "did you mean resnext50_32x4d?"),
        ("timm/resnet5", "did you mean timm/resnet5"),
        ("vit_base_patch16_224", "timm's are timm/NAME"),
    ],
)
def test_unknown_names_are_refused_with_a_suggestion(name: str, hint: str):
    with pytest.raises(ValueError, match=f"model.name={name} is not .*{hint}"):
        build_model(ModelConfig(name=name), 10)


def test_timm_networks_equal_timms_own():
    torch.manual_seed(0)
    ours = build_model(ModelConfig(name="timm/resnet18"), 7, drop_path_rate=0.1).eval()
    torch.manual_seed(0)
    theirs = timm.create_model("resnet18", num_classes=7, drop_path_rate=0.1).eval()
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(ours(images), theirs(images))


def test_timm_networks_refuse_options_that_they_do_not_have():
    with pytest.raises(UserError, match=r"model.name=timm/vgg11 takes no drop_path_rate"):
        build_model(ModelConfig(name="timm/vgg11"), 7, drop_path_rate=0.1)


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"model": state}])
def test_weights_are_loaded_from_a_file(tmp_path: Path, wrap):
    saved = build_model(small(), 5)
    torch.save(wrap(saved.state_dict()), tmp_path / "w.pth")
    loaded = build_model(small(tmp_path / "w.pth"), 5)
    assert_same_weights(loaded, saved)


def test_weights_are_loaded_from_our_checkpoint_and_from_safetensors(tmp_path: Path):
    saved = build_model(small(), 5)
    state = {f"network.{key}": value for key, value in saved.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "best.ckpt")
    save_file(saved.state_dict(), tmp_path / "w.safetensors")
    assert_same_weights(build_model(small(tmp_path / "best.ckpt"), 5), saved)
    assert_same_weights(build_model(small(tmp_path / "w.safetensors"), 5), saved)


def test_a_head_of_another_size_is_new_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    saved = build_model(small(), 5)
    torch.save(saved.state_dict(), tmp_path / "w.pth")
    with caplog.at_level("INFO", logger="resnext"):
        loaded = build_model(small(tmp_path / "w.pth"), 3)
    assert loaded.fc.weight.shape == (3, 64)
    assert torch.equal(loaded.layer2[0].conv2.weight, saved.layer2[0].conv2.weight)
    assert "head      new, for 3 classes" in caplog.text


def test_both_heads_of_a_distilled_network_are_new(tmp_path: Path):
    config = ModelConfig(name="timm/deit_tiny_distilled_patch16_224")
    saved = build_model(config, 5)
    torch.save(saved.state_dict(), tmp_path / "w.pth")
    loaded = build_model(replace(config, weights=str(tmp_path / "w.pth")), 3)
    assert [len(loaded.get_parameter(f"{head}.weight")) for head in ("head", "head_dist")] == [3, 3]
    for name, value in saved.state_dict().items():
        assert name.startswith("head") or torch.equal(loaded.state_dict()[name], value)


def test_weights_of_another_network_are_refused(tmp_path: Path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"does not fit model.name=resnext: .* missing .* unknown .* of another shape"):
        build_model(small(tmp_path / "w.pth"), 5)


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a file"),
        (b"", "cannot be read as weights"),
        (b"PK\x03\x04 not a checkpoint", "cannot be read as weights"),
        (pickle.dumps(Payload(), protocol=2), "holds more than tensors and is not read"),
    ],
)
def test_bad_files_give_one_line(tmp_path: Path, content: bytes | None, message: str):
    if content is not None:
        (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        build_model(small(tmp_path / "w.pth"), 5)
    assert "\n" not in str(error.value)
    assert not Path("executed").exists()


def test_a_truncated_file_gives_one_line(tmp_path: Path):
    torch.save(build_model(small(), 5).state_dict(), tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read as weights"):
        build_model(small(tmp_path / "w.pth"), 5)


def test_a_file_without_weights_is_refused(tmp_path: Path):
    for content in ({"epoch": 3}, {1: "x"}, {}, [torch.zeros(1)]):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(UserError, match="holds no weights"):
            build_model(small(tmp_path / "w.pth"), 5)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_only_a_regular_file_is_opened_for_weights(tmp_path: Path, make: Callable[[Path], None]):
    make(tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"is not a file|is a folder, but not one of"):
        build_model(small(tmp_path / "w.pth"), 5)


def test_torchvision_weights_can_be_named_by_network_or_by_entry():
    versions = torchvision.models.ResNeXt50_32X4D_Weights
    for name, entry in (
        ("resnext50_32x4d", versions.IMAGENET1K_V2),
        ("ResNeXt50_32X4D_Weights.IMAGENET1K_V1", versions.IMAGENET1K_V1),
    ):
        assert weights_module._torchvision_entry(f"torchvision:{name}", name) is entry


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("torchvision:resnext50_32x4", "did you mean torchvision:resnext50_32x4d"),
        ("torchvision:ResNeXt50_32X4D_Weights.IMAGENET1K_V9", "unknown to torchvision"),
        ("timm:resnext50_32x4", "did you mean timm:resnext50_32x4d"),
    ],
)
def test_unknown_hub_names_are_refused(name: str, hint: str):
    with pytest.raises(UserError, match=hint):
        build_model(ModelConfig(name="resnext50_32x4d", weights=name), 10)


def test_weights_that_cannot_be_loaded_are_an_error(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_arguments: object, **_options: object) -> None:
        raise ConnectionError("no route to host\nsecond line")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(UserError, match=r"cannot be loaded \(ConnectionError: no route to host\)"):
        build_model(ModelConfig(name="resnext50_32x4d", weights="timm:resnext50_32x4d.a1_in1k"), 10)


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
