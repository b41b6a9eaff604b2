"""Hydra's sweep syntax as Optuna's distributions."""

from itertools import product
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from resnext.config.sweep import SweepConfig
from resnext.errors import UserError
from resnext.sweep.space import SearchSpace


def space_of(*texts: str, **settings: Any) -> SearchSpace:
    return SearchSpace(SweepConfig(space=dict(each.split("=", 1) for each in texts), **settings))


@pytest.mark.parametrize(
    "text", ["0.1,0.2", "range(1,4)", "range(0,1,0.25)", "range(5,1,-2)", "choice(a,b)", "'x,y',z"]
)
def test_a_grid_has_the_values_of_hydras_own_sweep(text: str):
    """`-m` and `sweep` take the same values."""
    values = space_of(f"key={text}").grid["key"]
    hydra = OverridesParser.create().parse_override(f"key={text}")
    assert values is not None
    assert sorted(str(each) for each in values) == sorted(str(each) for each in hydra.sweep_string_iterator())


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("0.1,0.2", CategoricalDistribution(["0.1", "0.2"])),
        ("range(32,129,32)", IntDistribution(32, 128, step=32)),
        ("range(0.5,2,0.5)", FloatDistribution(0.5, 1.5, step=0.5)),
        ("int(interval(1,8))", IntDistribution(1, 8)),
        ("interval(0.0,1)", FloatDistribution(0.0, 1.0)),
        ("tag(log,interval(0.01,1))", FloatDistribution(0.01, 1.0, log=True)),
        ("tag(log,int(interval(1,64)))", IntDistribution(1, 64, log=True)),
    ],
)
def test_a_space_is_a_distribution(text: str, distribution: object):
    assert space_of(f"key={text}", sampler="random", trials=1).distributions["key"] == distribution


def test_the_size_is_the_product_and_the_examples_have_every_edge():
    space = space_of("a=1,2,3", "b=range(1,3)", "c=x,y")
    assert space.size == 12
    seen = [example for pair in space.examples() for example in pair]
    assert {each["a"] for each in seen} == {"1", "2", "3"}
    assert {each["b"] for each in seen} == {1, 2}
    assert set(product(("x",), ("1",), (1,))) <= {(each["c"], each["a"], each["b"]) for each in seen}
    assert space.overrides({"a": "1", "b": 2}) == ["a=1", "b=2"]


def test_named_points_are_their_overrides():
    points = {"deep": {"2": ("model.options.layers=[2,2]",)}, "wide": {"8": ("model.options.width=8", "seed=1")}}
    space = SearchSpace(SweepConfig(points=points))
    assert space.grid == {"point": ["deep 2", "wide 8"]}
    assert space.overrides({"point": "wide 8"}) == ["model.options.width=8", "seed=1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("range(3,3)", r"key=range\(3,3\): the space is empty"),
        ("interval(2,1)", r"key=interval\(2,1\): the space is empty"),
        ("tag(log,interval(0,1))", r"key=tag\(log,interval\(0,1\)\): a logarithmic interval must be above 0"),
        ("tag(log,interval(-1,1))", r"key=tag\(log,interval\(-1,1\)\): a logarithmic interval must be above 0"),
        ("tag(log,range(1,5))", r"key=tag\(log,range\(1,5\)\): only an interval can be logarithmic"),
        ("shuffle(range(1,5))", r"key=shuffle\(range\(1,5\)\): the sampler chooses the order"),
        ("1,2,1", r"key=1,2,1: a value appears twice"),
        ("glob(*)", r"key=glob\(\*\): a sweep takes A,B,C, choice\(…\), range\(…\) and interval\(…\)"),
    ],
)
def test_a_wrong_space_is_one_line(text: str, message: str):
    with pytest.raises(UserError, match=f"^{message}"):
        space_of(f"key={text}", sampler="random", trials=1)


def test_a_grid_refuses_an_interval():
    with pytest.raises(
        UserError, match=r"^key=interval\(0,1\): a grid cannot list all values of an interval; give values"
    ):
        space_of("key=interval(0,1)")
