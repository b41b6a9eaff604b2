"""`resnext recipes`: the table, and what a recipe would run."""

import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

from resnext.__main__ import run_verb
from resnext.cli.composition import CONFIGS

PLAN = ["recipes", "a3", "--network", "resnext50_32x4d", "--devices", "8"]


def test_the_table_has_every_recipe_with_its_numbers(capsys: pytest.CaptureFixture[str]):
    assert run_verb(["recipes"]) == 0
    output = capsys.readouterr().out
    names = [line.split()[0] for line in output.splitlines()[1:] if not line.startswith(" ")]
    assert names == sorted(path.stem for path in (CONFIGS / "recipe").glob("*.yaml"))
    assert max(map(len, output.splitlines())) <= 80
    assert "a3           LAMB          0.008 at 2048  100     cosine, warm-up 5, by epoch" in output
    assert "resnext50_32x4d 79.26 % top-1 at 224 px" in output


def test_the_plan_of_a_recipe_for_eight_devices(capsys: pytest.CaptureFixture[str]):
    """1,281,167 images in batches of 2,048 are 625 steps; after the warm-up it is a twentieth into the cosine."""
    assert run_verb(PLAN) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line[0] != " ")
    highest = 1e-6 + (8e-3 - 1e-6) * 0.5 * (1 + math.cos(math.pi * 0.05))
    assert lines["batch"] == "2048 = 256 images × 8 devices × 1 micro-step"
    assert lines["steps"] == "62,500 = 100 epochs × 625"
    assert lines["warm-up"] == "3,125 steps"
    assert lines["rate"].startswith(f"0.0001 first, {highest:.6g} from step 3,125")


def test_the_picture_shows_the_learning_rate():
    assert run_verb([*PLAN, "--picture", "a.svg"]) == 0
    picture = ElementTree.parse("a.svg").getroot()
    (line,) = (element for element in picture.iter() if element.tag.endswith("polyline"))
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert points == sorted(points, key=lambda point: point[0])
    peak = min(points, key=lambda point: point[1])  # y goes down
    left, right = points[0][0], points[-1][0]
    assert (peak[0] - left) / (right - left) == pytest.approx(0.05, abs=0.001)
    assert points[-1][1] > points[0][1] > peak[1]


def test_overrides_devices_and_a_smaller_set(capsys: pytest.CaptureFixture[str]):
    overrides = ["recipe.epochs=2", "recipe.batch_size=512", "recipe.lr_scaling=linear", "trainer.micro_batch_size=32"]
    assert run_verb(["recipes", "v1", "--devices", "4", "--nodes", "2", "--images", "2048", *overrides]) == 0
    output = capsys.readouterr().out
    assert "512 = 32 images × 8 devices × 2 micro-steps" in output
    assert "8 = 2 epochs × 4" in output
    assert "SGD, lr 0.2, weight decay 0.0001" in output
    assert "lr        0.2 at batches of 512, linear from 0.1 at batches of 256" in output
    assert Path("lr-v1.svg").is_file()


def test_a_rate_meant_for_another_batch_is_doubted(capsys: pytest.CaptureFixture[str]):
    assert run_verb(["recipes", "nvidia", "recipe.batch_size=256", "recipe.max_steps=1"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "meant for batches of 1024, not of 256: recipe.lr_scaling=linear would take 0.256, sqrt 0.512" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a4"], "a4 is not a recipe; there are a1, a2"),
        (
            ["v1", "--devices", "3"],
            "recipe.batch_size=256 does not divide among 3 devices; the nearest that do: 255 or",
        ),
        (["v1", "--network", "resnet"], "model.name=resnet is not a network of ours"),
        (["v1", "recipe.epoch=3"], "recipe.epoch is not a configuration key; did you mean recipe.epochs?"),
        (["v1", "--images", "100"], "recipe.batch_size=256 is more than the 100 training images"),
        (["v1", "trainer.devices=auto"], "trainer.devices=auto: say how many"),
        (["v1", "recipe.schedule.name=wsd", "recipe.epochs=9"], "recipe.schedule.name=wsd over 9 epochs: "),
        (["v1", "--picture", "nowhere/a.svg"], "nowhere/a.svg: No such file or directory"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert run_verb(["recipes", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(Path().glob("*.svg"))
