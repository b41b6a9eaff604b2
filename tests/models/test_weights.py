"""Cached weights of torchvision and timm are checked by their hash and cannot run code. Nothing is downloaded here."""

import hashlib
import pickle
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file

from resnext.errors import UserError
from resnext.models import weights as weights_module
from resnext.models.weights import load_weights

STATE = {"fc.weight": torch.arange(6.0).view(2, 3)}
V1 = "torchvision:ResNeXt50_32X4D_Weights.IMAGENET1K_V1"
NETWORK = "timm:resnet18.a1_in1k"


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's download folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "huggingface"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "torch/hub/checkpoints"
    folder.mkdir(parents=True)
    return folder


def put(folder: Path, content: object, digest: str | None = None) -> Path:
    """Writes a file with the hub's name for it: with the first digits of its SHA-256, or with `digest`."""
    path = folder / "network.pth"
    torch.save(content, path)
    named = digest or hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return path.rename(folder / f"network-{named}.pth")


def offer(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Makes torchvision look for `path`."""
    entry = SimpleNamespace(url=f"https://nowhere.invalid/models/{path.name}")
    monkeypatch.setattr(weights_module, "_torchvision_entry", lambda *_names: entry)


def test_torchvisions_file_is_read(hub: Path, monkeypatch: pytest.MonkeyPatch):
    offer(monkeypatch, put(hub, STATE))
    assert torch.equal(load_weights(V1)["fc.weight"], STATE["fc.weight"])


def test_torchvisions_file_is_checked(hub: Path):
    path = put(hub, Payload()).rename(hub / "resnext50_32x4d-7cdf4587.pth")
    with pytest.raises(UserError, match=rf"^{path} has the SHA-256 \w+…, not 7cdf4587…: remove it, .*again$"):
        load_weights(V1)
    assert not Path("executed").exists()


def test_torchvisions_file_runs_no_code_even_with_the_right_hash(hub: Path, monkeypatch: pytest.MonkeyPatch):
    """An attacker can find a file with the right eight digits by trying."""
    offer(monkeypatch, put(hub, Payload()))
    with pytest.raises(UserError, match="holds more than tensors and is not read"):
        load_weights(V1)
    assert not Path("executed").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"])
def test_the_error_names_a_truncated_download(hub: Path, content: bytes):
    (hub / "resnext50_32x4d-7cdf4587.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"resnext50_32x4d-7cdf4587.pth has the SHA-256"):
        load_weights(V1)


def test_a_cached_folder_is_not_a_file(hub: Path):
    (hub / "resnext50_32x4d-7cdf4587.pth").mkdir()
    with pytest.raises(UserError, match=r"resnext50_32x4d-7cdf4587.pth is not a regular file: remove it"):
        load_weights(V1)


def put_into_huggingface(root: Path, name: str, content: bytes, digest: str | None = None) -> Path:
    """Writes a file in the layout of huggingface_hub's cache; returns the blob, whose name is its SHA-256."""
    repository = root / "models--timm--resnet18.a1_in1k"
    blob = repository / "blobs" / (digest or hashlib.sha256(content).hexdigest())
    revision = "0" * 40
    for folder in (blob.parent, repository / "snapshots" / revision, repository / "refs"):
        folder.mkdir(parents=True)
    blob.write_bytes(content)
    (repository / "refs/main").write_text(revision)
    (repository / "snapshots" / revision / name).symlink_to(f"../../blobs/{blob.name}")
    return blob


def test_timms_file_is_read(tmp_path: Path):
    torch.manual_seed(1)
    state = timm.create_model("resnet18").state_dict()
    save_file(state, tmp_path / "w")
    put_into_huggingface(tmp_path / "huggingface", "model.safetensors", (tmp_path / "w").read_bytes())
    loaded = load_weights(NETWORK)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_timms_file_is_checked(tmp_path: Path, name: str):
    blob = put_into_huggingface(tmp_path / "huggingface", name, pickle.dumps(Payload()), digest="1" * 64)
    with pytest.raises(UserError, match=rf"^{blob} has the SHA-256 \w+…, not 1+…: remove it, .*again$"):
        load_weights(NETWORK)
    assert not Path("executed").exists()


def test_timms_file_runs_no_code(tmp_path: Path):
    torch.save(Payload(), tmp_path / "w")
    put_into_huggingface(tmp_path / "huggingface", "pytorch_model.bin", (tmp_path / "w").read_bytes())
    with pytest.raises(UserError, match=rf"model.weights={NETWORK} cannot be loaded") as error:
        load_weights(NETWORK)
    assert "\n" not in str(error.value)
    assert not Path("executed").exists()


OLD_NETWORK = "timm:gcvit_xxtiny.in1k"  # timm loads it from a URL through torch's hub


def test_timms_file_from_a_url_is_checked(hub: Path):
    url = timm.get_pretrained_cfg(OLD_NETWORK.removeprefix("timm:")).url
    path = put(hub, Payload()).rename(hub / Path(url).name)
    with pytest.raises(UserError, match=rf"^{path} has the SHA-256"):
        load_weights(OLD_NETWORK)
    assert not Path("executed").exists()


def test_timms_file_from_a_url_runs_no_code_on_a_second_try(hub: Path, monkeypatch: pytest.MonkeyPatch):
    """After a TypeError, timm assumes an old torch and reads the file again without weights_only."""
    url = timm.get_pretrained_cfg(OLD_NETWORK.removeprefix("timm:")).url
    put(hub, Payload()).rename(hub / Path(url).name)
    monkeypatch.setattr(weights_module, "_check_hash", lambda _path: None)
    load = torch.load

    def odd(*arguments, weights_only=None, **options):
        if weights_only:
            raise TypeError("an odd file")
        return load(*arguments, weights_only=weights_only, **options)

    monkeypatch.setattr(torch, "load", odd)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_weights(OLD_NETWORK)
    assert not Path("executed").exists()
