"""The test sets for networks of ImageNet, with timm's own labels, and folders of other data."""

import json
import pkgutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import ImageNetInfo
from timm.data.real_labels import RealLabelsImagenet
from torchvision.transforms import v2

from resnext.__main__ import run_verb
from resnext.cli import evaluate
from resnext.config.checkpoint_metadata import METADATA, CheckpointMetadata
from resnext.inference.network import load_network
from resnext.inference.suites import SUITES
from resnext.models.factory import build_model
from support.small_run import small_config

CLASSES = tuple(ImageNetInfo("imagenet-1k").label_names())


@pytest.fixture(scope="module")
def network_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of ImageNet's classes with random weights, whose answers differ from image to image."""
    path = tmp_path_factory.mktemp("network") / "network.pt"
    config = small_config(Path())
    torch.manual_seed(0)
    network = build_model(config.model, len(CLASSES))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    metadata = CheckpointMetadata.of(config, CLASSES).to_plain()
    torch.save({"state_dict": network.state_dict(), METADATA: metadata}, path)
    return path


def write_images(root: Path, folders: list[str], name: str = "{}.png") -> list[Path]:
    """Two random images in each folder; returns their paths, sorted."""
    random = np.random.default_rng(len(str(folders)))
    for number, folder in enumerate(folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for image in range(2):
            path = root / folder / name.format(2 * number + image + 1)
            Image.fromarray(random.integers(0, 256, (11, 14, 3), dtype=np.uint8)).save(path)
    return sorted(root.rglob("*.png")) + sorted(root.rglob("*.JPEG"))


def logits_of(network_file: Path, paths: list[Path]) -> torch.Tensor:
    network, metadata, *_ = load_network(network_file)
    size = int(8 / metadata.evaluation.crop_pct)
    prepare = v2.Compose([v2.Resize(size, v2.InterpolationMode.BILINEAR), v2.CenterCrop(8)])
    steps = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(metadata.mean, metadata.std)])
    with torch.inference_mode():
        return torch.cat([network(steps(prepare(Image.open(path).convert("RGB")))[None]) for path in paths])


def evaluated(capsys: pytest.CaptureFixture[str], network_file: Path, suite: str, root: Path) -> dict:
    assert run_verb(["evaluate", str(network_file), "--suite", suite, "--data", str(root), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def answers(network_file: Path, suite: str) -> np.ndarray:
    with np.load(network_file.parent / f"evaluations/network-{suite}.npz") as rows:
        return rows["raw_classes"]


def test_the_folders_of_v2_are_labels(network_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    paths = write_images(tmp_path, ["0", "10", "9", "999"])
    found = evaluated(capsys, network_file, "imagenet-v2", tmp_path)
    logits = logits_of(network_file, paths)
    targets = torch.tensor([int(path.parent.name) for path in paths])
    assert np.array_equal(answers(network_file, "imagenet-v2"), logits.topk(5).indices.numpy())
    loss = torch.nn.functional.cross_entropy(logits, targets).item()
    assert found["networks"]["raw"]["loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("suite", ["imagenet-r", "imagenet-a"])
def test_only_the_200_classes_of_r_and_a_can_be_predicted(
    network_file: Path, tmp_path: Path, suite: str, capsys: pytest.CaptureFixture[str]
):
    """timm has their positions in one file and their names in another; the package reads only the names."""
    name = suite.replace("-", "_")
    allowed = [int(line) for line in pkgutil.get_data("timm.data", f"_info/{name}_indices.txt").split()]
    assert len(allowed) == 200
    labels = [allowed[0], allowed[7], allowed[199]]
    paths = write_images(tmp_path, [CLASSES[label] for label in labels])
    found = evaluated(capsys, network_file, suite, tmp_path)
    logits = logits_of(network_file, paths)[:, allowed]
    expected = np.array(allowed)[logits.topk(5).indices.numpy()]
    assert np.array_equal(answers(network_file, suite), expected)
    targets = torch.tensor([allowed.index(label) for label in labels for _ in range(2)])
    loss = torch.nn.functional.cross_entropy(logits, targets).item()
    assert found["networks"]["raw"]["loss"] == pytest.approx(loss, rel=1e-5)


def test_the_real_labels_are_timms(network_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Some images have several labels, and some have none."""
    paths = write_images(tmp_path, ["val/n01440764", "val/n02105855", "val/n03180011"], "ILSVRC2012_val_{:08}.JPEG")
    for path, number in zip(paths, (1, 4, 5, 50_000, 42, 9), strict=True):
        path.rename(path.with_name(f"ILSVRC2012_val_{number:08}.JPEG"))
    paths = sorted(tmp_path.rglob("*.JPEG"))
    judge = RealLabelsImagenet([""] * 50_000)
    judge.filenames[: len(paths)] = map(str, paths)
    judge.add_result(logits_of(network_file, paths))
    found = evaluated(capsys, network_file, "imagenet-real", tmp_path)["networks"]["raw"]
    assert found["images"] == len(judge.is_correct[1])
    assert found["top1"]["value"] == np.mean(judge.is_correct[1])
    assert found["top5"]["value"] == np.mean(judge.is_correct[5])
    assert (found["loss"], found["temperature"], "per_class" in found) == (None, None, False)


def test_any_of_the_real_labels_is_correct(
    network_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    paths = write_images(tmp_path, ["val/n01440764", "val/n01443537"], "ILSVRC2012_val_{:08}.JPEG")
    order = logits_of(network_file, paths).argsort(descending=True)
    labels = [[3, int(order[0, 0])], [int(order[1, 3])], [int(order[2, 9])], []]
    read = pkgutil.get_data
    monkeypatch.setattr(
        pkgutil, "get_data", lambda *name: json.dumps(labels).encode() if "real" in name[1] else read(*name)
    )
    found = evaluated(capsys, network_file, "imagenet-real", tmp_path)["networks"]["raw"]
    assert (found["images"], found["top1"]["value"], found["top5"]["value"]) == (3, 1 / 3, 2 / 3)


def test_each_corruption_and_severity_is_a_set(network_file: Path, tmp_path: Path, capsys):
    folders = [f"{name}/{severity}" for name in ("blur", "snow") for severity in (1, 5)]
    for folder in folders:
        write_images(tmp_path / folder, [CLASSES[3], CLASSES[500]])
    found = evaluated(capsys, network_file, "imagenet-c", tmp_path)
    assert [each["name"] for each in found["sets"]] == folders
    assert found["images"] == 16
    for each in found["sets"]:
        order = logits_of(network_file, sorted((tmp_path / each["name"]).rglob("*.png"))).argsort(descending=True)
        hits = (order[:, :5] == torch.tensor([[3], [3], [500], [500]])).any(1).double().mean().item()
        assert each["networks"]["raw"]["top5"]["value"] == hits
    mean = np.mean([each["networks"]["raw"]["top5"]["value"] for each in found["sets"]])
    assert found["networks"]["raw"]["top5"] == mean
    assert run_verb(["evaluate", str(network_file), "--suite", "imagenet-c", "--data", str(tmp_path)]) == 0
    assert "weights of the file, mean of 4 sets" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("suite", "folder", "said"),
    [
        ("imagenet-v2", "n01440764", "has a folder n01440764: the folders of imagenet-v2 are 0 to 999"),
        ("imagenet-v2", "1000", "has a folder 1000"),
        ("imagenet-sketch", "tench", "has 1 class that imagenet-sketch does not have (tench)"),
        ("imagenet-a", "n01440764", "has a folder n01440764, which is not one of the 200 classes of imagenet-a"),
        ("imagenet-real", "val/n01440764", "is not named as in ImageNet, such as ILSVRC2012_val_00000001.JPEG"),
        ("imagenet-c", "n01440764", "has no CORRUPTION/SEVERITY/CLASS folders"),
    ],
)
def test_another_folder_is_refused(network_file: Path, tmp_path: Path, suite: str, folder: str, said: str, capsys):
    write_images(tmp_path, [folder])
    assert run_verb(["evaluate", str(network_file), "--suite", suite, "--data", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_the_command_lists_every_suite():
    assert tuple(SUITES) == evaluate.SUITES


def test_a_network_of_other_classes_is_refused(network_file: Path, tmp_path: Path, capsys):
    content = torch.load(network_file, weights_only=True)
    content[METADATA]["classes"] = ["cat", *content[METADATA]["classes"][1:]]
    torch.save(content, tmp_path / "other.pt")
    assert run_verb(["evaluate", str(tmp_path / "other.pt"), "--suite", "imagenet-r", "--data", str(tmp_path)]) == 2
    assert "--suite imagenet-r is for networks of ImageNet's 1,000 classes, named n01440764" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--suite imagenet-r needs --data PATH, the folder of its images"),
        (("--data", "missing"), "--data missing is not a folder: give the folder of imagenet-r"),
        (("--data", ".", "--split", "test"), "--suite imagenet-r has no splits: leave out --split"),
    ],
)
def test_a_suite_needs_its_folder(network_file: Path, arguments: tuple[str, ...], said: str, capsys):
    assert run_verb(["evaluate", str(network_file), "--suite", "imagenet-r", *arguments]) == 2
    assert said in capsys.readouterr().err
