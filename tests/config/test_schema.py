"""The schema: the values that it accepts, and its one-line error for the others."""

import pytest

from resnext.config.schema import parse_config, to_dict
from resnext.errors import UserError
from support.small_run import small_config


def test_a_configuration_is_equal_after_writing_and_reading(tmp_path):
    config = small_config(tmp_path, recipe__max_steps=7, recipe__augmentation={"auto_augment": "rand-m7"})
    assert parse_config(to_dict(config)) == config


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("recipe__optimizer__lr", 0.0, "recipe.optimizer.lr=0.0 is not allowed: it should be greater than 0"),
        ("recipe__optimizer__lr", "abc", "recipe.optimizer.lr=abc is not allowed: it should be a valid number"),
        ("recipe__optimizer__lr", float("inf"), "recipe.optimizer.lr=inf is not allowed: it should be a finite number"),
        (
            "recipe__optimizer__lrr",
            0.1,
            "recipe.optimizer.lrr is not a configuration key; did you mean recipe.optimizer.lr?",
        ),
        ("recipe__optimizer", {"name": "sgd"}, "recipe.optimizer.lr is missing: give it as recipe.optimizer.lr=VALUE"),
        ("recipe__epochs", 0, "recipe.epochs=0 is not allowed: it should be greater than or equal to 1"),
        ("recipe__epochs", True, "recipe.epochs=true is not allowed: it should be a valid integer"),
        ("recipe__epochs", 1.5, "recipe.epochs=1.5 is not allowed: it should be a valid integer"),
        ("recipe__augmentation", {"scale": [1]}, "recipe.augmentation.scale=[1] is not allowed"),
        ("recipe__augmentation", {"scale": [0.9, 0.1]}, "recipe.augmentation.scale=[0.9,0.1] must be [low,high]"),
        ("data__std", [0.0, 0.0, 0.0], "data.std=0.0 is not allowed: it should be greater than 0"),
        ("trainer__precision", "bf16", "did you mean bf16-mixed?"),
        ("trainer__compile", "maybe", "trainer.compile=maybe is not allowed: it should be a valid boolean or 'auto'"),
        ("trainer__devices", 0, "trainer.devices=0 is not allowed"),
        ("epochs", 3, "epochs is not a configuration key; did you mean recipe.epochs?"),
        ("model__cardinality", 0, "model.options.cardinality=0 is not allowed"),
        ("model__base_width", 12, "model.options.cardinality=2 does not divide the 3 channels of the first 3×3"),
        (
            "model",
            {"name": "resnext"},
            "model.options.layers is missing: give it as model.options.layers=VALUE (2 more mistakes after this)",
        ),
        (
            "model",
            {"name": "resnext50_32x4d", "cardinality": 16},
            "model.options.cardinality is not an option of model.name=resnext50_32x4d, which has no options; begin",
        ),
        (
            "model",
            {"name": "resnext50_32x4d", "zero_init_last": True},
            "model.zero_init_last is not a configuration key; did you mean recipe.init.zero_init_last?",
        ),
        (
            "recipe__init",
            {"conv": "fan_avg"},
            "recipe.init.conv=fan_avg is not allowed: it should be 'fan_in' or 'fan_out'",
        ),
        ("recipe__init", {"zero_init_last": "yes"}, "recipe.init.zero_init_last=yes is not allowed"),
        ("recipe__source", "a\nb", "recipe.source has more than one line: 'a\\nb'"),
        ("recipe__schedule", {"hold_epochs": -1.0}, "recipe.schedule.hold_epochs=-1.0 is not allowed"),
        ("run", 20250101, "to give text, quote it twice: run='\"20250101\"'"),
        ("run", "../elsewhere", "must be a plain folder name"),
        ("experiment", "../elsewhere", "experiment='../elsewhere' must be a plain folder name"),
        ("logger__project", "a\nb", "logger.project has more than one line: 'a\\nb'"),
        ("slurm__sbatch", ["--a", "--b\n"], "slurm.sbatch has more than one line: '--b\\n'"),
        ("seed", None, "seed=null is not allowed: it should be a valid integer"),
        ("recipe", 3, "recipe=3 is not allowed: it should be an object"),
    ],
)
def test_mistakes_give_one_line_with_the_key(key: str, value: object, message: str, tmp_path):
    with pytest.raises(UserError) as error:
        small_config(tmp_path, **{key: value})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_further_mistakes_are_counted(tmp_path):
    with pytest.raises(UserError, match=r"\(1 more mistake after this\)"):
        small_config(tmp_path, recipe__epochs=0, trainer__nodes=0)


def test_the_identity_excludes_keys_that_may_differ_between_starts(tmp_path):
    config = small_config(tmp_path)
    moved = small_config(
        "/elsewhere",
        data__workers=7,
        trainer__micro_batch_size=4,
        logger__project="p",
        checkpoint__every_steps=3,
        run="n",
    )
    assert moved.identity() == config.identity()
    texts = small_config(tmp_path, recipe__source="a paper", recipe__published="77.6 %")
    assert texts.identity() == config.identity()
    for key, value in {
        "recipe__init": {"zero_init_last": True},
        "seed": 1,
        "recipe__epochs": 3,
        "model__width": 16,
        "data__mean": [0, 0, 0],
    }.items():
        assert small_config(tmp_path, **{key: value}).identity() != config.identity()
