"""An exported network opens in the library that it is for, in a process without this package, with the same logits."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from timm.models import save_for_hf

from resnext.__main__ import run_verb
from resnext.cli.export import NAMES
from resnext.config.checkpoint_metadata import CheckpointMetadata, peek_metadata
from resnext.config.compose import compose
from resnext.config.pretrained import check_weights, describe_network_of_weights
from resnext.config.recipe import TeacherConfig
from resnext.config.schema import ModelConfig
from resnext.errors import RunFailed, UserError
from resnext.inference.export import export, sample_images
from resnext.inference.formats import FORMATS, Format
from resnext.inference.network import TrainedNetwork, load_network, open_network
from resnext.inference.predict import Predictor
from resnext.models.factory import build_model
from resnext.run.directory import Run
from resnext.task.teacher import build_teacher
from resnext.training.fit import fit
from support.commands import blocks
from support.small_run import RESNET, make_run, small_config

BATCHES = (1, 3, 8)
SIZE, CLASSES = 32, ["cat", "dog", "éléphant"]  # of the fixture `trained`
# statements that load the export at p and compute the logits y of the images x; y is None for weights alone
OPENERS = {
    "safetensors": "import safetensors.numpy as s; w = s.load_file(p); assert w['fc.weight'].shape[0] == 3; y = None",
    "torch": "import torch; w = torch.load(p, weights_only=True)['state_dict']; assert 'fc.bias' in w; y = None",
    "timm": "import timm, torch; m = timm.create_model(f'local-dir:{p}', pretrained=True).eval(); "
    "assert m.pretrained_cfg['label_names'] == ['cat', 'dog', 'éléphant'], m.pretrained_cfg; "
    "y = m(torch.from_numpy(x)).detach().numpy()",
    "torchvision": "import torch; from torchvision.models.resnet import ResNet, Bottleneck; "
    "m = ResNet(Bottleneck, [1, 1, 1, 1], 3, groups=2, width_per_group=8); "
    "m.load_state_dict(torch.load(p, weights_only=True)); y = m.eval()(torch.from_numpy(x)).detach().numpy()",
    "onnx": "import onnxruntime; y = onnxruntime.InferenceSession(p).run(None, {'images': x})[0]",
    "torchexport": "import torch; y = torch.export.load(p).module()(torch.from_numpy(x)).detach().numpy()",
}


def opened_alone(format: str, path: Path) -> dict[int, np.ndarray]:
    """The logits of images.N.npy by the library itself, by N: the process cannot import this package."""
    code = f"""
import sys; sys.modules["resnext"] = None
import numpy as np
p = {str(path)!r}
for n in {BATCHES}:
    x = np.load(f"images.{{n}}.npy")
    {OPENERS[format]}
    if y is not None: np.save(f"logits.{{n}}.npy", y)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    return {n: np.load(f"logits.{n}.npy") for n in BATCHES if Path(f"logits.{n}.npy").exists()}


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_opens_in_its_library_with_the_same_logits(
    format: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    ending = FORMATS[format].suffix
    path = tmp_path / f"out{ending}"
    assert run_verb(["export", str(trained), "--format", format, "--output", str(path)]) == 0
    assert "8 validation images of the run" in capsys.readouterr().out
    network = load_network(trained / "checkpoints/best.ckpt").network
    images = {n: torch.rand(n, 3, SIZE, SIZE) for n in BATCHES}
    for n, each in images.items():
        np.save(f"images.{n}.npy", each.numpy())
    logits = opened_alone(format, path)
    assert len(logits) == (0 if format in ("safetensors", "torch") else len(BATCHES))
    for n, found in logits.items():
        with torch.inference_mode():
            np.testing.assert_allclose(found, network(images[n]), rtol=1e-4, atol=1e-5)
    if format in ("safetensors", "torch"):  # the names and values of the weights; predict takes the file
        assert load_network(path).metadata == load_network(trained / "checkpoints/best.ckpt").metadata
        photo = next((trained.parents[1] / "images/val").rglob("*.png"))
        assert Predictor.from_run(path)([photo]) == Predictor.from_run(trained)([photo])


def test_the_metadata_of_safetensors_holds_classes_and_preprocessing(trained: Path):
    export_to("safetensors", trained, Path("a.safetensors"))
    with safe_open("a.safetensors", "pt") as file:
        metadata = json.loads(file.metadata()["metadata"])
    assert metadata["classes"] == CLASSES
    assert metadata["evaluation"] == {"image_size": SIZE, "crop_pct": 0.875, "interpolation": "bilinear"}
    assert metadata["mean"] == [0.485, 0.456, 0.406]


def export_to(format: str, trained: Path, path: Path, **options: object) -> None:
    network = open_network(trained)
    images, _ = sample_images(network.metadata, Run.open(trained))
    export(network, format, path, images, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("format", ["safetensors", "torch", "timm"])
def test_a_run_starts_from_an_export_and_takes_its_network(format: str, trained: Path):
    """Under any name of the file. Only the head of another number of classes is new."""
    export_to(format, trained, Path("weights"))
    config = compose(["experiment=finetune", "model.weights=weights", "model.freeze=[layer1]", "data.root=x"])
    assert config.model == ModelConfig(**RESNET, weights=str(Path("weights").absolute()), freeze=("layer1",))
    assert describe_network_of_weights(config).startswith("network   resnext (layers=[1,1,1,1] cardinality=2")
    check_weights(config)
    theirs = open_network(trained)
    state = build_model(config.model, 4).state_dict()
    for name, value in theirs.network.state_dict().items():
        assert torch.equal(state[name], value) == (not name.startswith("fc.")), name
    assert peek_metadata(Path("weights"))[2:] == theirs.metadata[2:]


def test_a_folder_of_timms_own_network_names_its_network():
    """As on timm's hub: without class names."""
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=5, class_token=False, global_pool="avg")
    save_for_hf(network, "vit", model_args={"class_token": False}, safe_serialization=True)
    config = compose(["experiment=finetune", "model.weights=vit", "data.root=x"])
    options = {"class_token": False, "global_pool": "avg", "img_size": 160}
    assert config.model == ModelConfig(name="timm/test_vit", options=options, weights=config.model.weights)
    assert peek_metadata(Path("vit")).classes == tuple("01234")
    state = build_model(config.model, 5).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("format", ["safetensors", "torch", "timm"])
def test_a_teacher_from_an_export_sees_images_in_its_own_normalization(format: str, trained: Path):
    """The teacher has mean 0 and std 1, and the student those of ImageNet."""
    network = timm.create_model("test_vit", num_classes=3)
    metadata = open_network(trained).metadata._replace(model=ModelConfig(name="timm/test_vit"))
    raw = TrainedNetwork(network, metadata._replace(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    FORMATS[format].write(raw, Path("teacher"), None)
    data = small_config(Path("/x")).data
    teacher = build_teacher(TeacherConfig(name="timm/test_vit", weights="teacher"), 3, data)
    pixels = torch.rand(1, 3, 2, 2)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (data.mean, data.std))
    torch.testing.assert_close(((pixels - mean) / std) * teacher.scale + teacher.shift, pixels)


def test_the_raw_weights_are_exported_on_request(trained: Path):
    states = torch.load(trained / "checkpoints/best.ckpt", weights_only=True)
    for choice, key in (("ema", "state_dict_ema"), ("raw", "state_dict")):
        assert run_verb(["export", str(trained), "--format", "torch", "--weights", choice, "--output", "w.pt"]) == 0
        found = torch.load("w.pt", weights_only=True)["state_dict"]
        assert all(torch.equal(value, states[key][f"network.{name}"]) for name, value in found.items())
    assert not torch.equal(states["state_dict"]["network.fc.weight"], states["state_dict_ema"]["network.fc.weight"])


def test_a_folded_program_has_no_batch_norm(trained: Path, tmp_path: Path):
    path = tmp_path / "folded.pt2"
    export_to("torchexport", trained, path, fold_batchnorm=True)
    graph = torch.export.load(path).graph
    assert not any("batch_norm" in str(node.target) for node in graph.nodes)


def test_a_network_whose_batch_norms_cannot_be_merged_is_refused():
    network = timm.create_model("mobilenetv3_small_050", num_classes=3).eval()
    metadata = CheckpointMetadata.of(small_config(Path("/x"), recipe__image_size=64), ("a", "b", "c"))
    with pytest.raises(
        UserError, match=r"^--fold-batchnorm is not possible for this network: \d+ batch norms would st"
    ):
        export(
            TrainedNetwork(network, metadata),
            "torchexport",
            Path("x.pt2"),
            torch.rand(2, 3, 64, 64),
            fold_batchnorm=True,
        )


def test_the_example_of_the_page_gives_the_class_and_the_probability_of_predict(trained: Path):
    (example,) = [block.text for block in blocks("python") if "onnxruntime" in block.text]
    export_to("onnx", trained, Path("own.onnx"))
    for shape in ((57, 90), (33, 20)):
        pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        Image.fromarray(pixels).save("photo.png")
        code = "import sys; sys.modules['resnext'] = None\n" + example.replace("photo.jpg", "photo.png")
        output = subprocess.run([sys.executable, "-c", code], check=True, timeout=300, capture_output=True, text=True)
        name, probability = output.stdout.split()
        (expected,) = Predictor.from_run(trained)(["photo.png"], topk=1)
        assert (name, float(probability)) == (expected[0].name, pytest.approx(expected[0].probability, abs=1e-5))


def test_onnx_has_the_opset_that_was_asked_for(trained: Path):
    import onnx

    export_to("onnx", trained, Path("a.onnx"), opset=20)
    model = onnx.load("a.onnx")
    assert [each.version for each in model.opset_import if each.domain == ""] == [20]
    assert json.loads(model.metadata_props[0].value)["classes"] == CLASSES
    with pytest.raises(UserError, match=r"^--opset 99 is not possible for this network: leave it out for opset \d+$"):
        export_to("onnx", trained, Path("b.onnx"), opset=99)
    assert not Path("b.onnx").exists()


def test_a_format_that_cannot_hold_the_network_is_refused(image_folder: Path, capsys: pytest.CaptureFixture[str]):
    run = make_run(small_config(image_folder, recipe__batch_size=4, recipe__epochs=1))
    fit(run)
    capsys.readouterr()
    for format in ("timm", "torchvision"):
        assert run_verb(["export", str(run.path), "--format", format]) == 2
        message = f"--format {format} cannot hold model.name=resnext: it has a cifar stem; choose safetensors, torch, "
        assert message in capsys.readouterr().err
    assert run_verb(["export", str(run.path), "--format", "torch", "--opset", "18"]) == 2
    assert "--opset is an option of --format onnx" in capsys.readouterr().err
    assert run_verb(["export", str(run.path), "--format", "torch", "--fold-batchnorm"]) == 2
    assert "--fold-batchnorm is for --format torchexport, and not for --format torch: it ren" in capsys.readouterr().err
    assert not (run.path / "exports").exists()
    assert run_verb(["export", str(run.path), "--format", "torch"]) == 0
    assert (run.path / "exports/test.pt").is_file()


def test_a_difference_leaves_no_file(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = FORMATS["torch"]._replace(read=lambda path, metadata: lambda images: 1.001 * other_logits(path, images))

    def other_logits(path: Path, images: torch.Tensor) -> torch.Tensor:
        return load_network(path).network(images)

    monkeypatch.setitem(FORMATS, "torch", Format(*other))
    with pytest.raises(RunFailed, match=r"x.pt is not written: read back by torch, its logits differ by 1.0e-03"):
        export_to("torch", trained, tmp_path / "x.pt")
    assert not list(tmp_path.glob("*x.pt*"))


def test_not_a_number_is_a_difference(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also if only the images one by one give it."""

    def read(path: Path, _metadata: object):
        network = load_network(path).network
        return lambda images: network(images) if len(images) > 1 else network(images) * torch.nan

    monkeypatch.setitem(FORMATS, "torch", FORMATS["torch"]._replace(read=read))
    with pytest.raises(RunFailed, match="its logits differ by nan of the largest logit"):
        export_to("torch", trained, tmp_path / "x.pt")


def test_the_command_knows_all_formats():
    assert tuple(FORMATS) == NAMES


def test_the_exported_file_is_not_replaced(trained: Path, capsys: pytest.CaptureFixture[str]):
    export_to("torch", trained, Path("best.pt"))
    assert run_verb(["export", "best.pt", "--format", "torch"]) == 2
    assert "best.pt would replace the file that is exported: give another --output" in capsys.readouterr().err
    assert run_verb(["export", "best.pt", "--format", "safetensors"]) == 0
    assert "random images in safetensors" in capsys.readouterr().out
    assert load_network(Path("best.safetensors")).metadata.classes == tuple(CLASSES)


def test_a_folder_that_exists_is_not_replaced(trained: Path, tmp_path: Path):
    (tmp_path / "kept").mkdir()
    with pytest.raises(UserError, match="kept exists already: remove it, or give another --output"):
        export_to("timm", trained, tmp_path / "kept")


def test_without_the_images_of_the_run_random_ones_are_compared(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (trained.parents[1] / "images").rename(tmp_path / "moved")
    try:
        assert run_verb(["export", str(trained), "--format", "torch", "--output", "x.pt"]) == 0
    finally:
        (tmp_path / "moved").rename(trained.parents[1] / "images")
    assert "8 random images in torch: largest difference " in capsys.readouterr().out


def test_onnx_without_its_packages_says_how_to_install_them(trained: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"--format onnx needs onnxscript, which is not installed: pip install -e"):
        export_to("onnx", trained, Path("a.onnx"))
