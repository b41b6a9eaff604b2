"""SearchSpace: the values of each key, in Hydra's sweep syntax, as Optuna's distributions."""

import math
from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from resnext.config.sweep import SweepConfig, parse_argument
from resnext.errors import UserError

POINT = "point"  # the parameter of a sweep over named points: `FAMILY LABEL`
Params = Mapping[str, Any]


class SearchSpace:
    """Raises UserError for a space that is empty, or that the sampler cannot take.

    Attributes:
        distributions: key → Optuna's distribution.
        grid: key → all its values; None for an interval.
    """

    def __init__(self, sweep: SweepConfig) -> None:
        self.distributions: dict[str, BaseDistribution] = {}
        self.grid: dict[str, list[Any] | None] = {}
        self._points = {
            f"{family} {label}": overrides
            for family, labels in sweep.points.items()
            for label, overrides in labels.items()
        }
        if self._points:
            self.distributions[POINT], self.grid[POINT] = CategoricalDistribution([*self._points]), [*self._points]
        for key, text in sweep.space.items():
            override = parse_argument(f"{key}={text}")
            self.distributions[key], self.grid[key] = _convert(override)
            if sweep.sampler == "grid" and self.grid[key] is None:
                raise UserError(
                    f"{key}={text}: a grid cannot list all values of an interval; give values, as {key}=A,B,C or "
                    f"{key}='range(FROM,TO,STEP)', or sweep.sampler=tpe and sweep.trials=N"
                )

    @property
    def size(self) -> int | None:
        """The number of combinations; None if a key has an interval."""
        values = list(self.grid.values())
        return None if None in values else math.prod(len(each) for each in values if each is not None)

    def overrides(self, params: Params) -> list[str]:
        """A trial's values as overrides of the command line."""
        if POINT in params and self._points:
            return list(self._points[params[POINT]])
        return [f"{key}={value}" for key, value in params.items()]

    def examples(self) -> list[tuple[Params, Params]]:
        """For each value of each key (of a number, its lowest and highest): two sets of values that have it.

        The other keys have their first value in one set, and their last value in the other.
        """
        edges = {key: _edges(each) for key, each in self.distributions.items()}
        first, last = ({key: values[at] for key, values in edges.items()} for at in (0, -1))
        pairs = [(first | {key: value}, last | {key: value}) for key, values in edges.items() for value in values]
        return [(first, last), *(pair for pair in pairs if pair[0] != first)]


def _convert(override: Override) -> tuple[BaseDistribution, list[Any] | None]:
    """The distribution, and its values if they can be counted."""
    text, space = override.input_line, override.value()
    if getattr(space, "shuffle", False):
        raise UserError(f"{text}: the sampler chooses the order; leave shuffle out")
    if override.is_choice_sweep() and not isinstance(space, Glob):
        values = list(override.sweep_string_iterator())
        if len(set(values)) < len(values):
            raise UserError(f"{text}: a value appears twice; remove one")
        if not values:
            raise UserError(f"{text}: the space is empty; give at least one value")
        return CategoricalDistribution(values), values
    if isinstance(space, RangeSweep):
        return _convert_range(text, space, list(override.sweep_iterator()))
    if isinstance(space, IntervalSweep):
        return _convert_interval(text, space), None
    raise UserError(f"{text}: a sweep takes A,B,C, choice(…), range(…) and interval(…)")


def _convert_range(text: str | None, space: RangeSweep, values: list[Any]) -> tuple[BaseDistribution, list[Any]]:
    if not values:
        raise UserError(f"{text}: the space is empty; range(FROM,TO) goes from FROM up to, but not including, TO")
    low, high, is_log = values[0], values[-1], "log" in space.tags
    if high < low:
        values, low, high = sorted(values), min(values), max(values)
    if is_log:
        raise UserError(f"{text}: only an interval can be logarithmic: tag(log, interval(FROM,TO))")
    if all(isinstance(each, int) for each in values):
        return IntDistribution(low, high, step=abs(int(space.step))), values
    return FloatDistribution(float(low), float(high), step=abs(float(space.step))), [float(each) for each in values]


def _convert_interval(text: str | None, space: IntervalSweep) -> BaseDistribution:
    low, high, is_log = space.start, space.end, "log" in space.tags
    assert low is not None
    assert high is not None
    if high < low:
        raise UserError(f"{text}: the space is empty; an interval goes from its lower to its higher end")
    if is_log and low <= 0:
        raise UserError(f"{text}: a logarithmic interval must be above 0")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=is_log)
    return FloatDistribution(float(low), float(high), log=is_log)


def _edges(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return [distribution.low, distribution.high]
