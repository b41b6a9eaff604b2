"""Families of named points: Welch's interval against its definition, costs, and the sentences."""

import math
import statistics

import pytest

from resnext.config.compose import composer
from resnext.sweep.costs import Cost, measure_costs
from resnext.sweep.families import Member, compare, conclusions, member_rows

COST = Cost(parameters=1000, macs=2_000_000, step_ms=3.0)


def member(family: str, label: str, values: list[float], parameters: int = 1000) -> Member:
    return Member(family, label, values, COST._replace(parameters=parameters))


def t_quantile(probability: float, degrees: float) -> float:
    """By bisection of the integral of Student's density."""

    def density(t: float) -> float:
        norm = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(degrees * math.pi) / 2
        return math.exp(norm - (degrees + 1) / 2 * math.log1p(t * t / degrees))

    def below(t: float, steps: int = 2000) -> float:
        width = t / steps
        inner = sum((4 if at % 2 else 2) * density(at * width) for at in range(1, steps))
        return 0.5 + width / 3 * (density(0) + inner + density(t))

    low, high = 0.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < probability else (low, middle)
    return low


@pytest.mark.parametrize(
    ("one", "other"), [([1, 2, 3], [2, 4, 6]), ([93.1, 93.4, 92.9, 93.2, 93.0], [92.0, 93.5, 92.8])]
)
def test_the_interval_is_welchs(one: list[float], other: list[float]):
    shares = [statistics.variance(each) / len(each) for each in (one, other)]
    degrees = sum(shares) ** 2 / sum(s**2 / (len(x) - 1) for s, x in zip(shares, (one, other), strict=True))
    half = t_quantile(0.975, degrees) * math.sqrt(sum(shares))
    difference = compare(member("a", "1", one), member("b", "1", other))
    expected = statistics.fmean(one) - statistics.fmean(other)
    assert difference == pytest.approx((expected, expected - half, expected + half), abs=1e-6)


def test_the_conclusions_name_what_exceeds_the_spread():
    wide = member("cardinality", "C=1", [90.0, 90.1, 90.2])
    narrow = member("cardinality", "C=8", [92.0, 92.1, 92.2], parameters=1010)
    deep = member("depth", "2", [91.0, 92.0, 93.2])
    said = conclusions([wide, narrow, deep])
    none = "contains 0: the seeds do not show a difference."
    some = "does not contain 0: the seeds show a difference."
    wide_name, narrow_name = "cardinality C=1 (90.10)", "cardinality C=8 (92.10)"
    assert said == [
        "The networks have 1,000 to 1,010 parameters: they differ by 1 %.",
        f"{narrow_name} and {wide_name} differ by +2.00. The 95 % interval, +1.77 to +2.23, {some}",
        f"depth 2 (92.07) and {wide_name} differ by +1.97. The 95 % interval, -0.74 to +4.67, {none}",
        f"{narrow_name} and depth 2 (92.07) differ by +0.03. The 95 % interval, -2.67 to +2.74, {none}",
    ]


def test_one_seed_says_nothing():
    said = conclusions([member("a", "1", [90.0]), member("a", "2", [91.5])])
    assert (
        said[1]
        == "a 2 (91.50) and a 1 (90.00) have one seed each: nothing can be said about their difference of +1.50."
    )
    assert member_rows([member("a", "1", [90.0])])[1] == ["a 1", "90.00", "-", "1", "1,000", "2.0 M", "3.0"]


def test_costs_are_those_of_the_network():
    """Counted by hand, for a network of one block."""
    with composer() as compose:
        options = ["model.options.layers=[1]", "model.options.cardinality=2", "model.options.base_width=8"]
        config = compose(["experiment=resnext_digits", *options, "model.options.width=8", "recipe.batch_size=4"])
    cost = measure_costs({"one": config}, 10)["one"]
    inner, outer, pixels = 2, 32, 64  # 8 · 8 / 64 · 2 channels, 4 · 8 channels, 8 × 8
    weights = 9 * 3 * 8 + 8 * inner + 9 * inner * inner // 2 + inner * outer + 8 * outer
    norms = 2 * (8 + inner + inner + outer + outer)
    assert cost.parameters == weights + norms + outer * 10 + 10
    assert cost.macs == weights * pixels + outer * 10
    assert cost.step_ms is not None
    assert cost.step_ms > 0
