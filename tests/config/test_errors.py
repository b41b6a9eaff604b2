"""Proposals for an unknown name: a similar name, or else the allowed names."""

import pytest

from resnext.config.errors import find_near, find_unknown, unknown_key
from resnext.config.schema import schema_defaults


@pytest.mark.parametrize(
    ("name", "names", "near"),
    [
        ("foo", ["loss", "ema", "epochs"], None),
        ("b1", ["a1", "a2", "v1"], None),
        ("adamww", ["adam", "adamw", "sgd"], "adamw"),
        ("bf16", ["32-true", "16-mixed", "bf16-mixed"], "bf16-mixed"),
        ("resnext50", ["image_folder", "resnext50_imagenet", "resnext_digits"], "resnext50_imagenet"),
        ("sg", ["sgdp", "adam"], "sgdp"),
        ("x", ["xception"], None),
    ],
)
def test_only_a_similar_name_is_proposed(name: str, names: list[str], near: str | None):
    assert find_near(name, names) == near


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("recipe.optimizer.lrr", "did you mean recipe.optimizer.lr?"),
        ("recipe.optimiser.name", "did you mean recipe.optimizer.name?"),
        ("epochs", "did you mean recipe.epochs?"),
        ("seed.x", "did you mean seed?"),
        ("recipe.mixing.zzz", "recipe.mixing has mixup_alpha, cutmix_alpha, prob, switch_prob"),
        ("recipe.nowhere.zzz", "recipe has file, source, published, epochs, "),
        ("zzz", "a configuration has experiment, run, seed, model, data, "),
    ],
)
def test_the_message_for_an_unknown_key_has_a_similar_key_or_the_allowed_keys(key: str, line: str):
    assert unknown_key(key, schema_defaults()).startswith(f"{key} is not a configuration key; {line}")


def test_the_first_unknown_key_of_a_tree_is_found():
    assert find_unknown({"seed": 1, "recipe": {"epoch": 3}, "x": 1}, schema_defaults()) == "recipe.epoch"
    assert find_unknown({"seed": 1, "recipe": {"epochs": 3}}, schema_defaults()) is None
