"""The options of a recipe besides optimizer and schedule, in complete runs: their effect, and an exact resume."""

import json
import signal

import pytest
import timm
import torch

from resnext.config.recipe import TeacherConfig
from resnext.config.schema import Config
from resnext.errors import Interrupted, UserError
from resnext.models.factory import build_model
from resnext.run.directory import Run
from resnext.task.classification import ClassificationTask
from resnext.task.loss import distillation_loss
from resnext.task.teacher import build_teacher
from resnext.training.fit import fit
from support.small_run import make_run, read_metrics, small_config

EVERYTHING = {
    "recipe__ema": {"decay": 0.9, "every_steps": 3, "warmup_epochs": 0.5},
    "recipe__mixing": {"mixup_alpha": 0.2, "cutmix_alpha": 1.0},
    "recipe__loss": {"name": "binary_cross_entropy", "target_threshold": 0.2},
    "recipe__augmentation": {"auto_augment": "rand-m5-mstd0.5", "repeats": 3, "erasing": 0.3},
    "recipe__optimizer": {
        "name": "lamb",
        "lr": 0.005,
        "weight_decay": 0.02,
        "weight_decay_on": "all_but_norms_and_biases",
    },
    "recipe__drop_path_rate": 0.2,
    "recipe__image_size_schedule": [[2, 12]],
    "trainer__micro_batch_size": 16,
}


@pytest.fixture
def teacher(tmp_path) -> str:
    """A file of weights of a tiny timm network."""
    torch.manual_seed(3)
    path = tmp_path / "teacher.pt"
    torch.save(timm.create_model("test_resnet", num_classes=10).state_dict(), path)
    return str(path)


def test_all_options_together_are_exact_under_resume(digits, monkeypatch, teacher: str):
    """Interrupted in the first epoch, at its end, and in the second epoch, which has larger images."""
    distilled = {"recipe__teacher": {"name": "timm/test_resnet", "weights": teacher, "weight": 0.3, "temperature": 2.0}}
    options = {"recipe__batch_size": 64, "data__workers": 1, **EVERYTHING, **distilled}
    whole, parts = (make_run(small_config(digits, **options, run=name)) for name in ("whole", "parts"))
    fit(whole)
    for step in (10, 22, 30):
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            interrupt_at(step, patch)
            fit(parts)
    fit(parts)
    assert [start["from_step"] for start in parts.info["starts"]] == [0, 10, 22, 30]
    assert (whole.path / "metrics.csv").read_text() == (parts.path / "metrics.csv").read_text()
    ours, theirs = (read_checkpoint(run) for run in (whole, parts))
    for key in ("state_dict", "state_dict_ema"):
        assert all(torch.equal(value, theirs[key][name]) for name, value in ours[key].items())


def test_images_grow_with_the_epochs(digits, monkeypatch):
    seen: list[tuple[int, int]] = []
    step = ClassificationTask.training_step

    def watch(task: ClassificationTask, batch, batch_idx: int):
        seen.append((task.current_epoch, batch[0].shape[-1]))
        return step(task, batch, batch_idx)

    monkeypatch.setattr(ClassificationTask, "training_step", watch)
    sizes = [[2, 12], [4, 16]]
    options = {"recipe__epochs": 4, "recipe__batch_size": 720, "recipe__image_size_schedule": sizes}
    config = small_config(digits, **options, data__workers=2)
    fit(make_run(config))
    assert seen == [(0, 8), (1, 12), (2, 12), (3, 16)]
    assert config.recipe.eval_image_size == 16


def test_a_schedule_of_sizes_must_end_with_the_training(digits):
    with pytest.raises(UserError, match=r"recipe.image_size_schedule has epoch 9, but recipe.epochs=2"):
        small_config(digits, recipe__image_size_schedule=[[9, 12]])


def test_a_schedule_of_sizes_must_rise(digits):
    with pytest.raises(UserError, match=r"recipe.image_size_schedule has epochs \[3, 2\], which must increase"):
        small_config(digits, recipe__image_size_schedule=[[3, 12], [2, 16]])


def test_the_first_loss_with_a_teacher_is_the_formula(digits, teacher: str):
    """(1 - w) · cross-entropy + w · T² KL, from the logits of the network and the teacher for the first batch."""
    distilled = {"name": "timm/test_resnet", "weights": teacher, "weight": 0.3, "temperature": 2.0}
    config = small_config(digits, recipe__max_steps=1, recipe__teacher=distilled)
    images, targets = first_batch(config)
    torch.manual_seed(config.seed)
    network = build_model(config.model, 10).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    other = timm.create_model("test_resnet", num_classes=10, checkpoint_path=teacher).eval()
    with torch.no_grad():
        logits, answers = network(images), other(images)
    expected = 0.7 * torch.nn.functional.cross_entropy(logits, targets) + 0.3 * distillation_loss(logits, answers, 2.0)
    run = make_run(config)
    fit(run)
    assert float(read_metrics(run)[0]["train/loss"]) == pytest.approx(float(expected), rel=1e-5)
    assert not any("teacher" in name for name in read_checkpoint(run)["state_dict"])


def test_another_teacher_under_the_same_name_is_refused(digits, teacher: str, monkeypatch):
    run = make_run(
        small_config(digits, recipe__max_steps=4, recipe__teacher={"name": "timm/test_resnet", "weights": teacher})
    )
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt_at(2, patch)
        fit(run)
    torch.save(timm.create_model("test_resnet", num_classes=10).state_dict(), teacher)
    with pytest.raises(UserError, match=r"the weights of recipe.teacher.name=timm/test_resnet are not those"):
        fit(run)


@pytest.mark.parametrize(
    ("teacher_config", "message"),
    [
        (
            {"name": "timm/test_resnett"},
            r"recipe.teacher.name=timm/test_resnett is not a network of timm .*test_resnet\?",
        ),
        ({"name": "resnext50_32x4d"}, "recipe.teacher.name=resnext50_32x4d needs recipe.teacher.weights"),
        ({"name": "timm/test_resnet", "weights": "nowhere.pt"}, "recipe.teacher.weights=nowhere.pt is not a file"),
    ],
)
def test_a_teacher_that_cannot_be_loaded_is_refused(digits, teacher_config: dict, message: str):
    with pytest.raises(UserError, match=message):
        fit(make_run(small_config(digits, recipe__teacher=teacher_config)))


def test_a_teacher_from_the_hub_gets_its_own_normalization(digits, monkeypatch):
    """It uses the mean and standard deviation of its weights. A teacher from a file uses those of the student."""
    network = timm.create_model("test_resnet", num_classes=10).eval()
    network.pretrained_cfg = network.pretrained_cfg | {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    monkeypatch.setattr("resnext.task.teacher.build_model", lambda *_arguments: network)
    monkeypatch.setattr("resnext.task.teacher.load_weights", lambda _name, _section: network.state_dict())
    data = small_config(digits, data__mean=[0.1, 0.2, 0.3], data__std=[0.5, 0.5, 0.5]).data
    teacher = build_teacher(TeacherConfig(name="timm/test_resnet", weight=1.0), 10, data)
    assert teacher is not None
    torch.manual_seed(0)
    pixels, logits = torch.rand(2, 3, 32, 32), torch.randn(2, 10)
    student, theirs = (
        (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        for mean, std in ((data.mean, data.std), ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    )
    expected = distillation_loss(logits, network(theirs), 1.0)
    torch.testing.assert_close(teacher.blend(torch.tensor(5.0), student, logits), expected)


def test_a_teacher_of_other_classes_is_refused(digits, tmp_path):
    torch.save(timm.create_model("test_resnet", num_classes=7).state_dict(), tmp_path / "seven.pt")
    config = small_config(digits, recipe__teacher={"name": "timm/test_resnet", "weights": str(tmp_path / "seven.pt")})
    with pytest.raises(UserError, match=r"does not fit recipe.teacher.name=timm/test_resnet: .* of another shape"):
        fit(make_run(config))


def test_gradients_are_clipped_by_their_norm(digits, monkeypatch):
    """A step of plain SGD moves the weights by lr · norm."""
    optimizer = {"name": "momentum", "lr": 0.5, "momentum": 0.0, "clip_grad_norm": 0.01}
    config = small_config(digits, recipe__max_steps=1, recipe__optimizer=optimizer)
    torch.manual_seed(config.seed)
    before = dict(build_model(config.model, 10).named_parameters())
    run = make_run(config)
    fit(run)
    after = read_checkpoint(run)["state_dict"]
    moved = torch.cat([(after[f"network.{name}"] - value.detach()).flatten() for name, value in before.items()])
    assert float(moved.norm()) == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_the_first_lines_name_the_options_that_are_on(digits, capsys):
    run = make_run(small_config(digits, recipe__max_steps=1, recipe__lr_batch_size=256, **EVERYTHING))
    fit(run)
    output = capsys.readouterr().out
    for line in (
        "recipe    LAMB, lr 0.005, weight decay 0.02, not on norms and biases",
        "loss      BCE of targets above 0.2, mixup 0.2, cutmix 1",
        "augment   crop 0.08-1, flip, rand-m5-mstd0.5, erase 0.3, 3 repeats",
        "depth     stochastic, 0.2 at the last block",
        "ema       EMA, 0.9 every 3 steps, from epoch 1.5 on; chooses best.ckpt",
        "images    8 → 12 pixels in training, 12 in evaluation",
        "warning: recipe.optimizer.lr=0.005 is meant for batches of 256, not of 32: recipe.lr_scaling=linear",
    ):
        assert line in output
    assert json.loads((run.path / "run.json").read_text())["starts"][0]["lr"] == 0.005


def test_a_scaled_rate_is_printed_and_kept(digits, capsys):
    config = small_config(digits, recipe__max_steps=1, recipe__lr_batch_size=256, recipe__lr_scaling="linear")
    run = make_run(config)
    fit(run)
    assert "lr        0.00625 at batches of 32, linear from 0.05 at batches of 256" in capsys.readouterr().out
    assert run.info["starts"][0]["lr"] == 0.00625
    assert float(read_metrics(run)[0]["lr"]) == 0.00625


def interrupt_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """Sends this process a SIGINT in optimizer step `step`."""
    whole = ClassificationTask.training_step

    def interrupting(task: ClassificationTask, batch, batch_idx: int):
        if task.global_step == step - 1 and batch_idx % task.trainer.accumulate_grad_batches == 0:
            signal.raise_signal(signal.SIGINT)
        return whole(task, batch, batch_idx)

    patch.setattr(ClassificationTask, "training_step", interrupting)


def first_batch(config: Config) -> tuple[torch.Tensor, torch.Tensor]:
    """The first batch of a run with `config`."""
    seen: list = []
    with pytest.MonkeyPatch.context() as patch:
        whole = ClassificationTask.training_step
        patch.setattr(
            ClassificationTask,
            "training_step",
            lambda task, batch, batch_idx: (
                seen.append([each.clone() for each in batch]) or whole(task, batch, batch_idx)
            ),
        )
        fit(make_run(small_config(config.data.root, run="look", recipe__max_steps=1)))
    return seen[0][0], seen[0][1]


def read_checkpoint(run: Run) -> dict:
    return torch.load(run.checkpoints / "last.ckpt", weights_only=True)
