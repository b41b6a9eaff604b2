"""The description of a recipe in words."""

from dataclasses import replace
from pathlib import Path

import pytest

from resnext.config.compose import composer
from resnext.config.describe import describe_recipe, lr_warning
from resnext.config.folders import config_names
from support.small_run import small_config


def described(root: Path, **changes: object) -> dict[str, str]:
    return describe_recipe(small_config(root, **{f"recipe__{key}": value for key, value in changes.items()}).recipe)


@pytest.mark.parametrize(
    ("name", "text"),
    [("cross_entropy", "cross-entropy"), ("binary_cross_entropy", "BCE")],
)
def test_a_loss_is_described_by_its_name(tmp_path: Path, name: str, text: str):
    assert described(tmp_path, loss={"name": name})["loss"] == text


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        ({"warmup_epochs": 1, "hold_epochs": 0.5}, "cosine, warm-up 1 epoch, hold 0.5 epochs"),
        ({"cooldown_epochs": 1, "every": "epoch"}, "cosine, cool-down 1 epoch, constant within an epoch"),
        ({"name": "multistep", "milestones": [1, 1.5], "decay_rate": 0.2}, "× 0.2 at epochs 1, 1.5"),
        ({"name": "step", "decay_epochs": 1}, "× 0.1 every 1 epoch"),
    ],
)
def test_a_schedule_is_described_with_its_units(tmp_path: Path, schedule: dict, text: str):
    assert described(tmp_path, schedule=schedule)["schedule"] == text


@pytest.mark.parametrize(
    ("init", "text"),
    [
        ({}, None),
        ({"zero_init_last": False}, "last norm of each block at 1"),
        (
            {"conv": "fan_in", "zero_init_last": True, "zero_classifier_bias": True},
            "convolutions from N(0, 2 / fan_in), last norm of each block at 0, classifier's bias at 0",
        ),
    ],
)
def test_only_the_initialisations_that_a_recipe_sets_are_described(tmp_path: Path, init: dict, text: str | None):
    assert described(tmp_path, init=init).get("init") == text


def test_the_first_lines_of_a_run_are_at_most_150_columns_wide():
    """With each shipped recipe, also for another batch size."""
    with composer() as compose:
        for name in config_names(compose.folders, "recipe"):
            recipe = compose(["experiment=resnext50_imagenet", f"recipe={name}"]).recipe
            other = replace(recipe, batch_size=32, lr_scaling="linear")
            lines = [line for each in (recipe, other) for line in describe_recipe(each).values()]
            lines.append(lr_warning(replace(recipe, batch_size=recipe.batch_size // 2)) or "")
            assert max(map(len, lines)) <= 150 - len("warning: ")


@pytest.mark.parametrize(
    ("weight_decay_on", "text"),
    [
        ("all", "weight decay 0.1"),
        ("all_but_norms_outside_shortcuts", "weight decay 0.1, not on norms except those of shortcuts"),
        ("all_but_norms_and_biases", "weight decay 0.1, not on norms and biases"),
    ],
)
def test_an_optimizer_is_described_with_momentum_and_weight_decay(tmp_path: Path, weight_decay_on: str, text: str):
    optimizer = {
        "name": "momentum",
        "lr": 0.5,
        "momentum": 0.8,
        "weight_decay": 0.1,
        "weight_decay_on": weight_decay_on,
    }
    assert described(tmp_path, optimizer=optimizer)["recipe"] == f"SGD, lr 0.5, momentum 0.8, {text}"


@pytest.mark.parametrize(
    ("teacher", "loss", "text"),
    [
        ({"name": "timm/resnet18", "weight": 1.0}, "the teacher's alone, without labels", "timm/resnet18"),
        (
            {"name": "timm/resnet18", "weight": 0.3, "temperature": 2.0},
            "cross-entropy",
            "timm/resnet18, 0.3 of the loss, temperature 2",
        ),
        ({"name": "timm/resnet18", "weight": 0.0}, "cross-entropy", None),
        ({"weight": 1.0}, "cross-entropy", None),
    ],
)
def test_a_teacher_is_described_with_its_weight_in_the_loss(tmp_path: Path, teacher: dict, loss: str, text: str | None):
    lines = described(tmp_path, teacher=teacher)
    assert (lines["loss"], lines.get("teacher")) == (loss, text)
