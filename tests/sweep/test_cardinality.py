"""The networks of the cardinality study have the same number of parameters, and the paper's are the paper's."""

from collections.abc import Iterator

import pytest
import torch

from resnext.config.compose import CONFIGS, Composer, composer
from resnext.config.schema import Config
from resnext.config.sweep import parse_sweep
from resnext.models.factory import build_model
from resnext.sweep.check_space import check_space


@pytest.fixture(scope="module")
def compose() -> Iterator[Composer]:
    with composer() as compose_one:
        yield compose_one


def configs(name: str, compose: Composer) -> dict[str, dict[str, Config]]:
    sweep = parse_sweep([f"sweep={name}"], [CONFIGS]).sweep
    return {
        family: {label: compose([*sweep.overrides, *overrides]) for label, overrides in labels.items()}
        for family, labels in sweep.points.items()
    }


def parameters(config: Config) -> int:
    with torch.device("meta"):
        return sum(each.numel() for each in build_model(config.model, config.data.num_classes or 10).parameters())


def test_the_networks_of_the_study_have_the_same_parameters(compose: Composer):
    families = configs("cardinality", compose)
    counts = [parameters(config) for labels in families.values() for config in labels.values()]
    assert max(counts) <= 1.02 * min(counts)
    found = [config.model.options.cardinality for config in families["cardinality"].values()]
    assert found == [1, 2, 4, 8, 16, 32]


def test_only_cardinality_and_group_width_change_along_the_cardinality(compose: Composer):
    options = [config.model.options for config in configs("cardinality", compose)["cardinality"].values()]
    assert len({(each.layers, each.width, each.stem) for each in options}) == 1


def test_the_networks_for_imagenet_are_named_in_the_paper(compose: Composer):
    for family, labels in configs("cardinality_imagenet", compose).items():
        depth = "50" if family.startswith("50") else "101"
        assert {config.model.name for config in labels.values()} == {f"resnext{depth}_{label}" for label in labels}


@pytest.mark.parametrize("name", [path.stem for path in (CONFIGS / "sweep").glob("*.yaml")])
def test_every_sweep_of_the_project_composes(name: str, compose: Composer):
    check_space(parse_sweep([f"sweep={name}"], [CONFIGS]).sweep, compose)
