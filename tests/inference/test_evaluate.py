"""Evaluation of a trained run on its own images, on other images of the same classes, and from best.ckpt alone."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from resnext.__main__ import run_verb
from resnext.config.checkpoint_metadata import peek_metadata
from resnext.errors import UserError
from resnext.inference.evaluate import evaluate
from resnext.inference.network import load_network
from resnext.run.directory import Run
from resnext.task.accuracy import EvaluationScores
from resnext.training.fit import fit
from support.small_run import make_run, small_config, write_images

FIXTURES = Path(__file__).parents[1] / "fixtures"
CHANGES = {
    "recipe__batch_size": 16,
    "recipe__evaluation": {"image_size": 12, "crop_pct": 0.75, "interpolation": "bicubic"},
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


def logits_of(path: Path, images: torch.Tensor) -> torch.Tensor:
    """The logits from the checkpoint file alone."""
    network, metadata, *_ = load_network(path)
    assert (metadata.evaluation.image_size, metadata.evaluation.crop_pct) == (12, 0.75)
    mean, std = ((torch.tensor(each) * 255).view(1, 3, 1, 1) for each in (metadata.mean, metadata.std))
    with torch.inference_mode():
        return network(images.to(memory_format=torch.channels_last).float().sub(mean).div(std))


def test_best_ckpt_alone_gives_the_logits_of_the_evaluation(
    run: Run, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recorded: list[torch.Tensor] = []
    update = EvaluationScores.update
    monkeypatch.setattr(
        EvaluationScores,
        "update",
        lambda self, logits, targets: recorded.append(logits) or update(self, logits, targets),
    )
    assert evaluate(run, run.config, "best").elsewhere is None
    alone = Path(shutil.copy(run.checkpoints / "best.ckpt", tmp_path / "alone.ckpt"))
    shutil.rmtree(run.path)
    images = validation_images(trained / "images")
    averages = recorded[1::2]  # for each batch: logits of the weights, then logits of the average
    sizes = [len(batch) for batch in averages]
    assert sizes == [16, 1]
    expected = torch.cat([logits_of(alone, batch) for batch in images.split(sizes)])
    assert torch.equal(torch.cat(averages), expected)
    assert not torch.equal(torch.cat(recorded[::2]), expected)
    metadata = load_network(alone).metadata
    assert metadata.classes == ("cat", "dog")
    assert peek_metadata(alone) == metadata


def test_other_images_of_the_same_classes_are_evaluated(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_images(tmp_path / "other", {"train/cat": 1, "train/dog": 1, "val/cat": 5, "val/dog": 7})
    before, path = content(run.path), run.checkpoints / "best.ckpt"
    assert run_verb(["evaluate", "runs/test", f"data.root='{tmp_path / 'other'}'"]) == 0
    predicted = logits_of(path, validation_images(tmp_path / "other")).argmax(1)
    top1 = (predicted == torch.tensor([0] * 5 + [1] * 7)).double().mean().item()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(f"12 images in {tmp_path}/other/val, which are not the run's own")
    assert lines[1].startswith(f"  average (EMA)  top-1 {100 * top1:.2f} %")
    assert content(run.path) == before


def test_other_images_need_no_train_folder(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The result is that of the same images beside a train/, and of the run's own images."""
    write_images(tmp_path / "other", {"train/cat": 1, "train/dog": 1, "val/cat": 5, "val/dog": 7})
    shutil.copytree(tmp_path / "other/val", tmp_path / "alone/validation")
    outputs = []
    for name in ("other", "alone"):
        assert run_verb(["evaluate", "runs/test", f"data.root='{tmp_path / name}'"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1].replace("alone/validation", "other/val")

    (tmp_path / "alone/validation/dog").rename(tmp_path / "alone/validation/cow")
    assert run_verb(["evaluate", "runs/test", f"data.root='{tmp_path / 'alone'}'"]) == 2
    assert "does not have the classes of runs/test: 1 missing (dog), 1 new (cow); give" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "alone/validation")
    assert run_verb(["evaluate", "runs/test", f"data.root='{tmp_path / 'alone'}'"]) == 2
    assert "alone has no val/: give the folder that holds val/CLASS/" in capsys.readouterr().err


def test_a_moved_copy_of_the_images_is_recognized(run: Run, trained: Path, tmp_path: Path, capsys):
    """Names alone do not show that val/ is the same; train/ has to be there too."""
    shutil.copytree(trained / "images", tmp_path / "moved")
    shutil.copytree(trained / "images/val", tmp_path / "alone/val")
    for root in (trained / "images", tmp_path / "moved", tmp_path / "alone"):
        assert run_verb(["evaluate", "runs/test", f"data.root='{root}'"]) == 0
    one, moved, alone = np.array_split(capsys.readouterr().out.splitlines(), 3)
    assert list(one) == list(moved)
    assert one[0].endswith(", 17 images")
    assert alone[0].endswith(f", 17 images in {tmp_path}/alone/val, which are not the run's own")
    assert list(one[1:]) == list(alone[1:])


@pytest.mark.parametrize(
    ("classes", "difference"),
    [(("cat", "cow", "emu"), "1 missing (dog), 2 new (cow, emu)"), (("dog",), "1 missing (cat)")],
)
def test_other_classes_are_refused_by_name(run: Run, tmp_path: Path, classes: tuple[str, ...], difference: str, capsys):
    write_images(tmp_path / "other", {f"{split}/{name}": 1 for split in ("train", "val") for name in classes})
    assert run_verb(["evaluate", "runs/test", f"data.root='{tmp_path / 'other'}'"]) == 2
    error = capsys.readouterr().err
    assert f"data.root={tmp_path}/other does not have the classes of runs/test: {difference}; give" in error
    assert error.count("\n") == 1


def test_changed_images_in_its_own_folder_are_refused(run: Run, trained: Path, tmp_path: Path):
    shutil.copytree(trained / "images", tmp_path / "images")
    for path in run.path.rglob("*.yaml"):
        path.write_text(path.read_text().replace(str(trained / "images"), str(tmp_path / "images")))
    (tmp_path / "images/val/cat/0.png").unlink()
    with pytest.raises(UserError, match="no longer has the same images"):
        evaluate(run, run.config, "best")


def test_only_recipe_evaluation_may_be_given(run: Run, capsys: pytest.CaptureFixture[str]):
    before, losses = content(run.path), []
    for overrides in ([], ["recipe.evaluation.image_size=8", "recipe.evaluation.crop_pct=1"]):
        assert run_verb(["evaluate", "runs/test", *overrides]) == 0
        losses.append(float(capsys.readouterr().out.split()[-1]))
    assert not math.isclose(*losses)
    assert run_verb(["evaluate", "runs/test", "recipe.image_size=12"]) == 2
    assert "recipe.image_size was 8 and is now 12" in capsys.readouterr().err
    assert content(run.path) == before


def test_a_checkpoint_of_an_earlier_release_needs_its_run():
    with pytest.raises(UserError, match="use the run directory that it is from"):
        load_network(FIXTURES / "old_run/checkpoints/best.ckpt")
