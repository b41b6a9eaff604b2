"""Evaluation of a trained run: on its own images, on others, from a file, and on several processes."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import timm.data
import timm.utils
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from resnext.__main__ import run_verb
from resnext.config.checkpoint_metadata import METADATA, CheckpointMetadata, peek_metadata
from resnext.errors import UserError
from resnext.inference.network import load_network
from resnext.models.factory import build_model
from resnext.run.directory import Run
from resnext.training.fit import fit
from support.small_run import make_run, small_config, write_images

FIXTURES = Path(__file__).parents[1] / "fixtures"
CHANGES = {
    "recipe__batch_size": 16,
    "recipe__evaluation": {"image_size": 12, "crop_pct": 0.75, "interpolation": "bicubic", "metrics": ["recall"]},
    "data__mean": [0.3, 0.4, 0.5],
    "recipe__ema": {"decay": 0.9},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/test, trained on two classes, and its images/."""
    folder = tmp_path_factory.mktemp("trained")
    write_images(folder / "images", {"train/cat": 16, "train/dog": 16, "val/cat": 9, "val/dog": 8})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fit(make_run(small_config(folder / "images", **CHANGES)))
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    shutil.copytree(trained / "runs", tmp_path / "runs")
    return Run(Path("runs/test"))


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def validation_images(root: Path) -> torch.Tensor:
    """The images as torchvision prepares them, in order of class and name: uint8 [N, 3, 12, 12]."""
    prepare = v2.Compose([v2.Resize(16, v2.InterpolationMode.BICUBIC), v2.CenterCrop(12)])
    images = [prepare(Image.open(path)) for path in sorted((root / "val").rglob("*.png"))]
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])


def network_of(path: Path, weights: str = "ema") -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """The network in the checkpoint file alone, and its mean and standard deviation [1, 3, 1, 1] for uint8 levels."""
    network, metadata, *_ = load_network(path, weights)
    assert (metadata.evaluation.image_size, metadata.evaluation.crop_pct) == (12, 0.75)
    mean, std = ((torch.tensor(each) * 255).view(1, 3, 1, 1) for each in (metadata.mean, metadata.std))
    return network, mean, std


def logits_of(path: Path, images: torch.Tensor, weights: str = "ema", *, flip: bool = False) -> torch.Tensor:
    network, mean, std = network_of(path, weights)
    with torch.inference_mode():
        images = images.to(memory_format=torch.channels_last).float().sub(mean).div(std)
        return (network(images) + network(images.flip(3))) / 2 if flip else network(images)


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str | Path, exit_code: int = 0) -> dict:
    """What `evaluate --json` prints."""
    assert run_verb(["evaluate", *map(str, arguments), "--json"]) == exit_code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line with which `evaluate` refuses."""
    assert run_verb(["evaluate", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def rows(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("flip", [False, True])
def test_best_ckpt_alone_gives_the_probabilities_of_the_evaluation(
    run: Run, trained: Path, tmp_path: Path, flip: bool, capsys: pytest.CaptureFixture[str]
):
    evaluated(capsys, "runs/test", "--batch-size", "16", *(["--tta", "flip"] if flip else []))
    found = rows(run.path / f"evaluations/best-val{'-flip' if flip else ''}.npz")
    alone = Path(shutil.copy(run.checkpoints / "best.ckpt", tmp_path / "alone.ckpt"))
    shutil.rmtree(run.path)
    batches = validation_images(trained / "images").split(16)
    for name in ("ema", "raw"):
        logits = torch.cat([logits_of(alone, batch, name, flip=flip) for batch in batches])
        probabilities, labels = logits.softmax(1).topk(2)
        assert np.array_equal(found[f"{name}_probabilities"], probabilities.numpy())
        assert np.array_equal(found[f"{name}_classes"], labels.numpy())
    assert not np.array_equal(found["ema_probabilities"], found["raw_probabilities"])
    names = [path.relative_to(trained / "images/val") for path in sorted((trained / "images/val").rglob("*.png"))]
    assert [Path(os.fsdecode(path)) for path in found["paths"].tolist()] == names
    assert found["targets"].tolist() == [0] * 9 + [1] * 8
    assert peek_metadata(alone) == load_network(alone).metadata


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # timm closes no file
def test_accuracies_are_those_of_timms_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """timm's dataset, loader, transforms and accuracy, over 101 images that are resized and cropped.

    The network's weights are random, and its batch statistics those of noise: its answers differ from image to image.
    """
    classes = tuple("abcdefg")
    random = np.random.default_rng(0)
    for number in range(101):
        path = tmp_path / f"images/val/{classes[number % 7]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        colors = random.integers(0, 256, (2, 2, 3), dtype=np.uint8)
        Image.fromarray(colors).resize((20, 16), Image.Resampling.BICUBIC).save(path)
    config = small_config(tmp_path / "images", **CHANGES)
    torch.manual_seed(0)
    network = build_model(config.model, len(classes))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # of the next batch alone
    network(torch.randn(64, 3, 12, 12))
    network.eval()
    nn.init.normal_(next(each for each in network.modules() if isinstance(each, nn.Linear)).weight)
    metadata = CheckpointMetadata.of(config, classes)
    torch.save({"state_dict": network.state_dict(), METADATA: metadata.to_plain()}, tmp_path / "network.pt")

    loader = timm.data.create_loader(
        timm.data.create_dataset("", str(tmp_path / "images/val")),
        input_size=(3, 12, 12),
        batch_size=16,
        use_prefetcher=False,
        interpolation="bicubic",
        mean=metadata.mean,
        std=metadata.std,
        num_workers=0,
        crop_pct=0.75,
    )
    top1, top5 = timm.utils.AverageMeter(), timm.utils.AverageMeter()
    with torch.inference_mode():
        for images, targets in loader:
            accuracies = timm.utils.accuracy(network(images), targets, topk=(1, 5))
            top1.update(accuracies[0].item(), len(images))
            top5.update(accuracies[1].item(), len(images))
    found = evaluated(capsys, tmp_path / "network.pt", "--data", tmp_path / "images")["networks"]["raw"]
    assert found["images"] == top1.count == 101
    assert 0 < top1.avg < top5.avg < 100
    assert 101 * found["top1"]["value"] == pytest.approx(1.01 * top1.avg, abs=1e-3)
    assert 101 * found["top5"]["value"] == pytest.approx(1.01 * top5.avg, abs=1e-3)
    assert len(found["confusion"]) > len(classes)


def test_the_accuracy_is_that_of_the_training(run: Run, capsys: pytest.CaptureFixture[str]):
    for name, prefix in (("raw", "val"), ("ema", "val_ema")):
        found = evaluated(capsys, "runs/test", "--checkpoint", "last", "--weights", name)
        assert found["networks"][name]["top1"]["value"] == run.summary["last"][f"{prefix}/top1"]
        assert (found["step"], found["is_own"], found["classes"]) == (run.summary["steps"], True, 2)


def test_what_is_printed_is_what_is_written(run: Run, capsys: pytest.CaptureFixture[str]):
    assert run_verb(["evaluate", "runs/test"]) == 0
    printed = capsys.readouterr().out
    content = json.loads((run.path / "evaluations/best-val.json").read_text())
    for each in content["networks"].values():
        low, high = 100 * each["top1"]["low"], 100 * each["top1"]["high"]
        assert f"top-1   {100 * each['top1']['value']:.2f} %, 95 % interval {low:.2f} to {high:.2f} %" in printed
        assert f"loss    {each['loss']:.4f}" in printed
        assert sum(images for _, _, images in each["confusion"]) == 17
        assert [(one["class"], one["images"]) for one in each["per_class"]] == [("cat", 9), ("dog", 8)]
    assert "evaluated runs/test/checkpoints/best.ckpt, step " in printed
    ranked = sorted((each["top1"], each["class"]) for each in content["networks"]["raw"]["per_class"])
    assert f"lowest of 2 classes: {', '.join(f'{name} {100 * top1:.0f} %' for top1, name in ranked)}\n" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_other_images_need_no_train_folder(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The result is that of the same images beside a train/."""
    write_images(tmp_path / "other", {"train/cat": 1, "train/dog": 1, "val/cat": 5, "val/dog": 7})
    shutil.copytree(tmp_path / "other/val", tmp_path / "alone/validation")
    one, other = (evaluated(capsys, "runs/test", "--data", tmp_path / name) for name in ("other", "alone"))
    assert one["networks"] == other["networks"]
    assert not one["is_own"]
    assert len(list((run.path / "evaluations").glob("best-val-alone-??????.json"))) == 1
    predicted = logits_of(run.checkpoints / "best.ckpt", validation_images(tmp_path / "other")).argmax(1)
    hits = (predicted == torch.tensor([0] * 5 + [1] * 7)).sum().item()
    assert one["networks"]["ema"]["top1"]["value"] == hits / 12

    shutil.rmtree(tmp_path / "alone/validation")
    assert "alone has no val/: give the folder that holds val/CLASS/" in refusal(
        capsys, "runs/test", "--data", tmp_path / "alone"
    )


def test_a_part_of_the_classes_is_found_by_name(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Label 0 of the folder is class 1 of the network, which may also answer class 0."""
    write_images(tmp_path / "other", {"val/dog": 7})
    found = evaluated(capsys, "runs/test", "--data", tmp_path / "other")
    predicted = logits_of(run.checkpoints / "best.ckpt", validation_images(tmp_path / "other")).argmax(1)
    assert found["networks"]["ema"]["top1"]["value"] == predicted.double().mean().item()
    assert found["networks"]["ema"]["per_class"][0] == {"class": "cat", "images": 0, "top1": None}
    assert found["classes"] == 1


def test_a_class_that_the_network_does_not_have_is_named(run: Run, tmp_path: Path, capsys):
    write_images(tmp_path / "other", {f"{split}/{name}": 1 for split in ("train", "val") for name in ("cat", "emu")})
    error = refusal(capsys, "runs/test", "--data", tmp_path / "other")
    assert "other/val has 1 class that runs/test does not have (emu): give folders with the names of its" in error


def test_a_moved_copy_of_the_images_is_recognized(run: Run, trained: Path, tmp_path: Path, capsys):
    """Names alone do not show that val/ is the same; train/ has to be there too."""
    shutil.copytree(trained / "images", tmp_path / "moved")
    shutil.copytree(trained / "images/val", tmp_path / "alone/val")
    found = [evaluated(capsys, "runs/test", "--data", tmp_path / name) for name in ("moved", "alone")]
    assert [each["is_own"] for each in found] == [True, False]
    assert found[0]["networks"] == found[1]["networks"] == evaluated(capsys, "runs/test")["networks"]


def test_changed_images_in_its_own_folder_are_refused(run: Run, trained: Path, tmp_path: Path, capsys):
    shutil.copytree(trained / "images", tmp_path / "images")
    for path in run.path.rglob("*.yaml"):
        path.write_text(path.read_text().replace(str(trained / "images"), str(tmp_path / "images")))
    (tmp_path / "images/val/cat/0.png").unlink()
    assert "no longer has the same images" in refusal(capsys, "runs/test")


def test_the_test_split_is_evaluated(run: Run, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    shutil.copytree(trained / "images/val", tmp_path / "other/test")
    found = evaluated(capsys, "runs/test", "--data", tmp_path / "other", "--split", "test")
    assert found["split"] == "test"
    assert found["networks"] == evaluated(capsys, "runs/test")["networks"]
    assert "images/test does not exist" in refusal(capsys, "runs/test", "--split", "test")


def test_only_recipe_evaluation_may_be_given(run: Run, capsys: pytest.CaptureFixture[str]):
    changes = ("recipe.evaluation.image_size=8", "recipe.evaluation.crop_pct=1")
    losses = [evaluated(capsys, "runs/test", *each)["networks"]["ema"]["loss"] for each in ((), changes)]
    assert losses[0] != losses[1]
    assert losses[1] == evaluated(capsys, "runs/test", "--image-size", "8", changes[1])["networks"]["ema"]["loss"]
    assert "recipe.image_size was 8 and is now 12" in refusal(capsys, "runs/test", "recipe.image_size=12")
    names = sorted(path.stem for path in (run.path / "evaluations").glob("*.json"))
    assert names == ["best-val", "best-val-8px-crop_pct=1.0"]


def test_the_metrics_of_the_recipe_are_computed(run: Run, capsys: pytest.CaptureFixture[str]):
    """Macro recall is the mean of the classes' accuracies; F1 is computed from precision and recall of each class."""
    found = evaluated(capsys, "runs/test", "--checkpoint", "last")["networks"]
    (row,) = list(csv.DictReader((run.path / "metrics.csv").read_text().splitlines()))[-1:]
    for name, prefix in (("raw", "val"), ("ema", "val_ema")):
        recall = found[name]["named"]["recall"]
        assert recall == pytest.approx(np.mean([each["top1"] for each in found[name]["per_class"]]))
        assert recall == pytest.approx(float(row[f"{prefix}/recall"]))
    found = evaluated(capsys, "runs/test", "recipe.evaluation.metrics=[f1,auroc]", "--weights", "raw")["networks"]
    counts = np.zeros((2, 2))
    for target, predicted, images in found["raw"]["confusion"]:
        counts[target, predicted] = images
    f1 = 2 * counts.diagonal() / (counts.sum(0) + counts.sum(1))
    assert list(found["raw"]["named"]) == ["f1", "auroc"]
    assert found["raw"]["named"]["f1"] == pytest.approx(f1.mean())


def test_each_setting_that_differs_is_in_the_name_of_the_result(run: Run, trained: Path, tmp_path: Path, capsys):
    for name in ("one", "other"):
        shutil.copytree(trained / "images", tmp_path / name / "photos")
        evaluated(capsys, "runs/test", "--data", tmp_path / name / "photos", "--split", "val")
        (tmp_path / name / "photos/val").rename(tmp_path / name / "photos/test")
        evaluated(capsys, "runs/test", "--data", tmp_path / name / "photos", "--split", "test")
    for more in (["--weights", "raw"], ["trainer.precision=bf16-mixed"], ["--image-size", "8", "--tta", "flip"]):
        evaluated(capsys, "runs/test", *more)
    names = {re.sub("photos-.{6}$", "photos-DIGEST", path.stem) for path in (run.path / "evaluations").glob("*.json")}
    expected = {"best-val", "best-test-photos-DIGEST", "best-val-raw", "best-val-bf16-mixed", "best-val-8px-flip"}
    assert names == expected
    assert len(list((run.path / "evaluations").glob("best-test-*.json"))) == 2


@pytest.mark.processes
def test_an_unreadable_image_ends_the_command_with_loader_workers(run: Run, tmp_path: Path):
    """It must not wait for the workers, which have prepared more images."""
    write_images(tmp_path / "many", {"val/cat": 1})
    for number in range(1, 2000):
        os.link(tmp_path / "many/val/cat/0.png", tmp_path / f"many/val/cat/{number}.png")
    (tmp_path / "many/val/cat/5.png").unlink()
    (tmp_path / "many/val/cat/5.png").write_text("no image")
    command = [sys.executable, "-m", "resnext", "evaluate", "runs/test", "--data", str(tmp_path / "many")]
    done = subprocess.run(
        [*command, "--batch-size", "4", "data.workers=2"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "val/cat/5.png cannot be read as an image" in done.stderr


def test_what_differs_from_the_training_is_printed(run: Run, trained: Path, tmp_path: Path, capsys):
    shutil.copytree(trained / "images/val", tmp_path / "other/test")
    arguments = ["--data", str(tmp_path / "other"), "--split", "test", "--tta", "flip", "--image-size", "8"]
    assert run_verb(["evaluate", "runs/test", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "images    17 images of 8 pixels, split test, with mirror images\n" in printed
    assert f"folder    {tmp_path}/other/test, not the run's own\n" in printed
    (tmp_path / "other/test").rename(tmp_path / "other/val")
    content = torch.load(run.checkpoints / "best.ckpt", weights_only=True)
    del content["state_dict_ema"]
    torch.save(content, tmp_path / "raw.pt")
    error = refusal(capsys, tmp_path / "raw.pt", "--data", tmp_path / "other", "--weights", "ema")
    assert "raw.pt has no EMA weights: give --weights raw, or leave it out" in error


def test_a_lost_checkpoint_names_the_others(run: Run, capsys: pytest.CaptureFixture[str]):
    (run.checkpoints / "best.ckpt").unlink()
    error = refusal(capsys, "runs/test")
    assert "runs/test/checkpoints/best.ckpt does not exist: runs/test/checkpoints has last.ckpt, previous.ckpt" in error


def test_a_network_that_diverged_has_no_accuracy(run: Run, trained: Path, tmp_path: Path, capsys):
    content = torch.load(run.checkpoints / "best.ckpt", weights_only=True)
    for state in (content["state_dict"], content["state_dict_ema"]):
        state["network.conv1.weight"].fill_(torch.nan)
    torch.save(content, tmp_path / "nan.pt")
    for verb in (["evaluate", "--data", trained / "images"], ["predict", trained / "images/val/cat/0.png"]):
        assert run_verb([verb[0], str(tmp_path / "nan.pt"), *map(str, verb[1:])]) == 2
        assert "gives logits that are not finite (NaN or infinity)" in capsys.readouterr().err
    assert not list(tmp_path.glob("evaluations/*"))


def test_names_that_are_not_utf8_give_one_line(run: Run, trained: Path, tmp_path: Path, capsys):
    path = tmp_path / os.fsdecode(b"\xe9.pt")
    shutil.copy(run.checkpoints / "best.ckpt", path)
    assert evaluated(capsys, path, "--data", trained / "images")["images"] == 17
    assert "is not valid UTF-8: rename the folder" in refusal(capsys, path, "--data", os.fsdecode(b"im\xff"))


def test_a_file_is_evaluated_like_its_run(run: Run, trained: Path, tmp_path: Path, capsys):
    exported = tmp_path / "exported.safetensors"
    export = ("export", "runs/test", "--format", "safetensors", "--weights", "raw", "--output", str(exported))
    assert run_verb(list(export)) == 0
    capsys.readouterr()
    found = evaluated(capsys, exported, "--data", trained / "images")
    expected = evaluated(capsys, "runs/test", "--weights", "raw", "recipe.evaluation.metrics=[]")
    assert found["networks"] == expected["networks"]
    assert len(list((tmp_path / "evaluations").glob("exported-val-images-??????.npz"))) == 1
    assert "--checkpoint is for a run" in refusal(capsys, exported, "--checkpoint", "last", "--data", "x")
    assert "is a file, so give its images: --data PATH" in refusal(capsys, exported)
    assert "seed=1 is for a run" in refusal(capsys, exported, "--data", trained / "images", "seed=1")


def test_an_evaluation_changes_nothing_else_in_the_run(run: Run, capsys: pytest.CaptureFixture[str]):
    before = content(run.path)
    evaluated(capsys, "runs/test")
    first = content(run.path)
    evaluated(capsys, "runs/test")
    assert content(run.path) == first
    written = {Path("runs/test/evaluations") / name for name in ("best-val.json", "best-val.npz")}
    assert first.keys() - before.keys() == written
    assert {path: first[path] for path in before} == before


@pytest.mark.processes
def test_the_result_is_the_same_on_any_number_of_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """101 images, which neither the devices nor the batches divide. Each process has one thread."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    write_images(tmp_path / "images", {"train/cat": 16, "train/dog": 16, "val/cat": 50, "val/dog": 51})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        fit(make_run(small_config(tmp_path / "images", **{**CHANGES, "data__workers": 1})))
        capsys.readouterr()
        found = []
        for devices in ("1", "2", "3"):
            one = evaluated(capsys, "runs/test", "--devices", devices, "--batch-size", "8")
            found.append((one["networks"], rows(Path("runs/test/evaluations/best-val.npz"))))
        Path("images/val/cat/7.png").write_bytes(b"no image")
        error = refusal(capsys, "runs/test", "--devices", "2")
    torch.set_num_threads(threads)
    assert found[0][0]["raw"]["images"] == 101
    for networks, arrays in found[1:]:
        assert networks == found[0][0]
        assert all(np.array_equal(array, found[0][1][name]) for name, array in arrays.items())
    assert "images/val/cat/7.png cannot be read as an image" in error


@pytest.mark.processes
@pytest.mark.parametrize("victim", ["command", "process"])
def test_a_killed_evaluation_leaves_no_process_and_no_result(run: Run, tmp_path: Path, victim: str):
    """SIGINT to the command, or SIGKILL to one of its two processes. 4000 images, one at a time, take long."""
    write_images(tmp_path / "many", {"val/cat": 1})
    for number in range(1, 4000):
        os.link(tmp_path / "many/val/cat/0.png", tmp_path / f"many/val/cat/{number}.png")
    command = [sys.executable, "-m", "resnext", "evaluate", "runs/test", "--data", str(tmp_path / "many")]
    with subprocess.Popen(
        [*command, "--devices", "2", "--batch-size", "1"], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            parts = wait_for_children(process.pid, 3)  # multiprocessing's tracker, and two processes
            time.sleep(1)
            target, signum = (process.pid, signal.SIGINT) if victim == "command" else (parts[-1], signal.SIGKILL)
            os.kill(target, signum)
            _, error = process.communicate(timeout=120)
        finally:
            process.kill()
    if victim == "command":
        assert process.returncode == 130
    else:
        assert process.returncode == 1
        assert "of the evaluation was killed by SIGKILL: if memory ran out, give a lower --devices" in error
    assert "Traceback" not in error
    deadline = time.monotonic() + 20  # multiprocessing's tracker notices the end of the command
    while any(map(is_alive, parts)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not list((run.path / "evaluations").glob("*"))


def wait_for_children(parent: int, count: int) -> list[int]:
    """The process ids, in the order of their start."""
    children = Path(f"/proc/{parent}/task/{parent}/children")
    deadline = time.monotonic() + 120
    while len(found := children.read_text().split()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return sorted(map(int, found))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_checkpoint_of_an_earlier_release_needs_its_run():
    with pytest.raises(UserError, match="use the run directory that it is from"):
        load_network(FIXTURES / "old_run/checkpoints/best.ckpt")
