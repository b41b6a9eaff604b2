"""Every recipe file trains on digits at 32 pixels: the loss falls, and a resume is exact."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from resnext.config.compose import CONFIGS, apply_overrides, compose
from resnext.config.recipe import RecipeConfig
from resnext.config.schema import Config
from resnext.errors import Interrupted
from resnext.run.directory import Run
from resnext.training.fit import fit
from support.small_run import read_metrics
from support.stopping import Stopper, make_run, with_callbacks

RECIPES = sorted(path.stem for path in (CONFIGS / "recipe").glob("*.yaml"))
EPOCHS, STEPS = 4, 6  # 6 steps per epoch, with 32 of the 200 images each
LR = {"lamb": 0.02, "adamw": 0.01}  # the other recipes use SGD with 0.02
SMALL = (
    *("logger=csv", "logger.every_steps=1", "trainer=cpu", "trainer.precision=32-true"),
    *("data.num_classes=null", "data.workers=0"),
    *("model.name=resnext", "model.layers=[1,1]", "model.cardinality=2", "model.base_width=16", "model.width=16"),
)


@pytest.fixture(scope="session")
def zeros_and_ones(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 training and 20 validation images of each of the digits 0 and 1."""
    root = tmp_path_factory.mktemp("data") / "few"
    for split, count in (("train", 100), ("val", 20)):
        for digit in ("0", "1"):
            (root / split / digit).mkdir(parents=True)
            for image in sorted((digits / split / digit).iterdir())[:count]:
                (root / split / digit / image.name).symlink_to(image)
    return root


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights of a tiny timm network."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    torch.save(timm.create_model("test_resnet", num_classes=2).state_dict(), path)
    return path


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_and_is_exact_under_resume(zeros_and_ones: Path, teacher: Path, name: str):
    """Interrupted in the middle of its second epoch.

    The mean loss falls from the first to the last epoch by 0.06 (a1) to 0.49. For v2_fixres_repeats it falls by 0.08,
    and by 0.025 with the seeds 1 and 2, the smallest of all. With a random network as the teacher, the loss is at
    least halved.
    """
    config = small(name, zeros_and_ones, teacher)
    whole, parts = (make_run(replace(config, run=run)) for run in ("whole", "parts"))
    fit(whole)
    with with_callbacks(Stopper("on_train_batch_start", STEPS + 2)), pytest.raises(Interrupted):
        fit(parts)
    fit(parts)
    assert [start["from_step"] for start in parts.info["starts"]] == [0, STEPS + 3]
    assert (whole.path / "metrics.csv").read_text() == (parts.path / "metrics.csv").read_text()
    assert_same_state(whole, parts, average=config.recipe.ema.decay is not None)
    losses = torch.tensor([float(row["train/loss"]) for row in read_metrics(whole) if row["train/loss"]])
    assert len(losses) == EPOCHS * STEPS
    assert losses.isfinite().all()
    assert losses[-STEPS:].mean() < losses[:STEPS].mean()


def small(name: str, root: Path, teacher: Path) -> Config:
    """The recipe with epochs, batch, learning rate and image size for the digits. All other values are unchanged."""
    composed = compose(["experiment=resnext50_imagenet", f"recipe={name}", f"data.root={root}", *SMALL])
    return apply_overrides(composed, [f"{key}={value}" for key, value in scale(composed.recipe, teacher).items()])


def scale(recipe: RecipeConfig, teacher: Path) -> dict[str, object]:
    """Scales the values in epochs, images or pixels, and the learning rates at the ends of the schedule."""
    own = "recipe.teacher"
    schedule, lr = recipe.schedule, LR.get(recipe.optimizer.name, 0.02)
    return {
        "recipe.epochs": EPOCHS,
        "recipe.batch_size": 32,
        "recipe.lr_batch_size": 32,
        "recipe.image_size": 32,
        "recipe.evaluation.image_size": 32,
        "recipe.optimizer.lr": lr,
        "recipe.schedule.warmup_lr": schedule.warmup_lr / recipe.optimizer.lr * lr,
        "recipe.schedule.min_lr": schedule.min_lr / recipe.optimizer.lr * lr,
        "recipe.schedule.warmup_epochs": min(schedule.warmup_epochs, 1),
        "recipe.schedule.cooldown_epochs": min(schedule.cooldown_epochs, 1),
        "recipe.schedule.decay_epochs": 2,
        **({"recipe.schedule.milestones": "[2,3]"} if schedule.milestones else {}),
        **({"recipe.ema.every_steps": 2, "recipe.ema.warmup_epochs": 1} if recipe.ema.decay else {}),
        **({f"{own}.name": "timm/test_resnet", f"{own}.weights": teacher} if recipe.teacher.name else {}),
    }


def assert_same_state(one: Run, other: Run, *, average: bool) -> None:
    """Weights, batch statistics and the average, bit for bit."""
    ours, theirs = (torch.load(run.checkpoints / "last.ckpt", weights_only=True) for run in (one, other))
    assert ("state_dict_ema" in ours) == average
    for key in ("state_dict", *(["state_dict_ema"] if average else [])):
        assert ours[key].keys() == theirs[key].keys()
        assert all(torch.equal(value, theirs[key][name]) for name, value in ours[key].items())
