"""Compares every recipe file with the training that its source's code builds, field by field.

A second test changes each field of each file in turn. `make test ARGS="tests/recipes -rP"` prints the tables.
"""

import functools
import hashlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from torchvision.models import ResNeXt50_32X4D_Weights, ResNeXt101_32X8D_Weights, ResNeXt101_64X4D_Weights

from recipes.observation import Approximately, Training, observe
from recipes.ours import of_recipe
from recipes.sources import SOURCES
from resnext.config.compose import CONFIGS, compose
from resnext.config.schema import Config, parse_config, to_dict
from resnext.errors import UserError

RECIPES = sorted(path.stem for path in (CONFIGS / "recipe").glob("*.yaml"))
OURS = {"finetune", "scratch", "small"}  # our own choices, which have no source
TEXTS = {"source", "published"}  # they do not affect a training; torchvision's published accuracies are tested below
WORDS = (  # for each field with a word as its value, at least one of these is another valid value
    *("cosine", "poly", "step", "constant", "epoch", "bilinear", "bicubic", "random", "const", "rand", "pixel"),
    *("all", "all_but_norms", "all_but_norms_outside_shortcuts", "all_but_norms_and_biases", "fan_in", "fan_out"),
    *("cross_entropy", "binary_cross_entropy"),
)
NAMES = {
    "optimizer.name": ("sgd", "momentum", "adamw", "lamb"),
    "augmentation.auto_augment": ("ta_wide", "rand-m7-mstd0.5", "rand-m6-mstd0.5-inc1", "rand-m7-mstd0.5-inc1"),
    "teacher.name": ("timm/resnetv2_101x1_bit.goog_in21k_ft_in1k",),
}


class Row(NamedTuple):
    """A field as our code and the source's code build it; `difference` says why they may differ."""

    name: str
    ours: Any
    theirs: Any
    difference: str

    @property
    def is_equal(self) -> bool:
        return are_equal(self.ours, self.theirs)

    @property
    def is_wrong(self) -> bool:
        """Also true if a listed difference does not exist."""
        return self.is_equal == bool(self.difference)


@functools.cache
def theirs(name: str) -> tuple[Training, dict[str, Any]]:
    source = SOURCES[name]()
    return source, observe(source)


@functools.cache
def composed(name: str) -> Config:
    experiment = "resnext29_cifar10" if name == "cifar_paper" else "resnext50_imagenet"
    return compose([f"experiment={experiment}", f"recipe={name}"])


def compare(name: str, config: Config) -> list[Row]:
    source, expected = theirs(name)
    found = observe(of_recipe(config.recipe, config.data, source.steps_per_epoch))
    names = list(dict.fromkeys([*found, *expected]))
    return [Row(each, found.get(each), expected.get(each), source.differences.get(each, "")) for each in names]


def test_every_recipe_has_a_source_or_is_ours():
    assert set(RECIPES) == SOURCES.keys() | OURS
    for name in RECIPES:
        recipe = composed(name).recipe
        assert recipe.source is not None
        assert recipe.source.startswith("ours") == (name in OURS)
        assert recipe.published
        text = (CONFIGS / f"recipe/{name}.yaml").read_text()
        assert text.startswith(f"# {recipe.epochs} epochs")
        assert ("We have not run this recipe at full length" in " ".join(text.replace("\n#", "").split())) == (
            name not in OURS
        )


@pytest.mark.parametrize("name", SOURCES)
def test_every_field_equals_the_sources(name: str):
    rows = compare(name, composed(name))
    print(f"{name:37} {'file':40} {'source':40} equal", *map(describe, rows), sep="\n")
    assert [row for row in rows if row.is_wrong] == []


@pytest.mark.parametrize("name", SOURCES)
def test_every_change_of_a_field_is_detected(name: str):
    """Simulates a typing mistake: another number or another word. `-rP` prints how many changes were made.

    The schema itself refuses every other word for two fields: a schedule with milestones, a loss with a threshold.
    """
    fields = dict(fields_of(name))
    changes = {path: list(changes_of(name, path, value)) for path, value in fields.items()}
    unchanged = [path for path, found in changes.items() if not found]
    assert set(unchanged) <= {"schedule.name", "loss.name"}
    wrong = {
        path: [other for other, config in found if not is_detected(name, config)] for path, found in changes.items()
    }
    print(f"{name}: {sum(map(len, changes.values()))} changes of {len(fields)} fields")
    assert {path: others for path, others in wrong.items() if others} == {}


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("v1", ResNeXt50_32X4D_Weights.IMAGENET1K_V1),
        ("v1", ResNeXt101_32X8D_Weights.IMAGENET1K_V1),
        ("v2", ResNeXt50_32X4D_Weights.IMAGENET1K_V2),
        ("v2_fixres", ResNeXt101_32X8D_Weights.IMAGENET1K_V2),
        ("v2_fixres_repeats", ResNeXt101_64X4D_Weights.IMAGENET1K_V1),
    ],
)
def test_published_accuracy_equals_torchvisions(name: str, weights: Any):
    network = type(weights).__name__.removesuffix("_Weights").lower()
    published = re.search(rf"{network} ([\d.]+) %", composed(name).recipe.published or "")
    assert published is not None
    assert float(published[1]) == round(weights.meta["_metrics"]["ImageNet-1K"]["acc@1"], 2)


def fields_of(name: str) -> Iterator[tuple[str, Any]]:
    """The dotted keys that the file itself sets, with their values; each entry of a list is a field."""
    tree = OmegaConf.load(CONFIGS / f"recipe/{name}.yaml")
    assert isinstance(tree, DictConfig)
    tree.pop("defaults", None)
    for key in TEXTS:
        tree.pop(key)
    yield from leaves(OmegaConf.to_container(tree))


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, tree


def changes_of(name: str, path: str, value: Any) -> Iterator[tuple[Any, Config]]:
    """Other values that the schema accepts, with the configuration: one for a number, every other word for a word."""
    if isinstance(value, str):
        others: list[Any] = [word for word in NAMES.get(path, WORDS) if word != value]
    elif isinstance(value, bool):
        others = [not value]
    else:
        others = [value + 1] if isinstance(value, int) else [value * 1.25 or 0.1, value * 0.8]
    for other in others:
        tree = to_dict(composed(name))
        set_leaf(tree["recipe"], path.split("."), other)
        try:
            yield other, parse_config(tree)
        except UserError:
            continue
        if not isinstance(value, str):
            return


def is_detected(name: str, config: Config) -> bool:
    """Whether a builder refuses the configuration, or a field no longer equals the source's."""
    try:
        return any(row.is_wrong for row in compare(name, config))
    except UserError:
        return True


def set_leaf(tree: Any, path: list[str], value: Any) -> None:
    for key in path[:-1]:
        tree = tree[int(key) if isinstance(tree, list) else key]
    tree[int(path[-1]) if isinstance(tree, list) else path[-1]] = value


def are_equal(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray):
        return ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=1e-5, atol=1e-6 * np.abs(ours).max())
    if isinstance(ours, Approximately) and isinstance(theirs, Approximately):
        return len(ours) == len(theirs) and np.allclose(ours, theirs, rtol=0.1)
    return bool(ours == theirs)


def describe(row: Row) -> str:
    verdict = "yes" if row.is_equal else f"no: {row.difference}" if row.difference else "NO"
    return f"{row.name:37} {shorten(row.ours):40} {shorten(row.theirs):40} {verdict}"


def shorten(value: Any) -> str:
    """The value in at most 40 characters: if it is longer, its beginning and a digest."""
    if isinstance(value, np.ndarray):
        text = ", ".join(f"{each:.4g}" for each in value.flatten())
    elif isinstance(value, Approximately):
        text = ", ".join(f"{each:.3f}" for each in value)
    else:
        text = str(value)
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return text if len(text) <= 40 else f"{text[:31]}… {digest}"
