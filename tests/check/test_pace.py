"""Hours and limits, from the arithmetic of the speeds."""

from types import SimpleNamespace
from typing import Any

import pytest

from resnext.check.pace import Pace, World, _duration, _find_limit, count_hours


def plan(**changes: Any) -> Any:
    """90 epochs of 1,000 steps of 256 images, and 50,000 validation images."""
    ema = SimpleNamespace(decay=changes.pop("decay", None))
    recipe = SimpleNamespace(batch_size=256, epochs=90, ema=ema)
    parts = SimpleNamespace(val=range(50_000))
    return SimpleNamespace(config=SimpleNamespace(recipe=recipe), parts=parts, steps=90_000, steps_per_epoch=1000)


def test_the_hours_are_those_of_all_images():
    """23.04 million images at 200 a second, and 4.5 million forward passes at three times the speed of a step."""
    pace = Pace(loader=2000, step=250, together=200)
    assert count_hours(plan(), pace, World(1, 1)) == pytest.approx((90_000 * 256 / 200 + 90 * 50_000 / 750) / 3600)
    averaged = count_hours(plan(decay=0.9), pace, World(1, 1))
    assert averaged == pytest.approx((90_000 * 256 / 200 + 2 * 90 * 50_000 / 750) / 3600)


def test_the_loader_of_a_machine_limits_its_devices():
    pace = Pace(loader=1000, step=250, together=200)
    hours = (90_000 * 256 / 1000 + 90 * 50_000 / 1000) / 3600
    assert count_hours(plan(), pace, World(8, 1)) == pytest.approx(hours)
    assert count_hours(plan(), pace, World(8, 4)) == pytest.approx(hours / 4)


@pytest.mark.parametrize(
    ("loader", "step", "devices", "level", "said"),
    [
        (500, 100, 1, "ok", "the step limits the training"),
        (100, 100, 1, "ok", "both limit the training"),
        (500, 100, 8, "warn", "8 devices can take 800: the training waits for images"),
        (50, 100, 1, "warn", "a step can take 100: the training waits for images"),
    ],
)
def test_what_limits_the_training_is_said(loader: float, step: float, devices: int, level: str, said: str):
    found = _find_limit(Pace(loader, step, min(loader, step)), devices)
    assert (found.level, said in found.text) == (level, True)


def test_the_cores_that_would_feed_the_steps(monkeypatch: pytest.MonkeyPatch):
    """4 cores give 100 images a second: 10 cores give 250."""
    monkeypatch.setattr("resnext.check.pace.count_cores", lambda: 4)
    assert _find_limit(Pace(100, 250, 100), 1).remedy.startswith("10 cores instead of 4")


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        (0.0001, "1 s"),
        (0.01, "36 s"),
        (0.5, "30 min"),
        (1.25, "1 h 15 min"),
        (0.9999, "1 h 0 min"),
        (2000, "2,000 h 0 min"),
    ],
)
def test_durations_are_words(hours: float, text: str):
    assert _duration(hours) == text
