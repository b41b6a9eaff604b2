"""`resnext recipes`: the table, the training plan of a recipe, and the difference of two recipes."""

import math
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from omegaconf import OmegaConf

from resnext.__main__ import run_verb
from resnext.config import compose as composition

PLAN = ["recipes", "a3", "--network", "resnext50_32x4d", "--devices", "8"]
SMALLEST = "epochs: 3\nbatch_size: 4\noptimizer: {name: sgd, lr: 0.1}\n"


@pytest.fixture
def recipe_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of configs/recipe/ that a test may change; the current folder stays empty."""
    shutil.copytree(composition.CONFIGS, tmp_path / "copy/configs")
    monkeypatch.setattr(composition, "CONFIGS", tmp_path / "copy/configs")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "copy/configs/recipe"


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_verb(["recipes", *arguments]) == 0
    return capsys.readouterr().out


def labelled(output: str) -> dict[str, str]:
    """Label → text of a plan; wrapped lines are joined."""
    lines: dict[str, str] = {}
    for line in output.splitlines():
        label = line[:9].strip() or list(lines)[-1]
        lines[label] = " ".join([*([lines[label]] if label in lines else []), line[10:]])
    return lines


def leaves(tree: Any, key: str = "") -> dict[str, Any]:
    """Dotted key → value, from nested dicts."""
    if not isinstance(tree, dict):
        return {key: tree}
    return {
        leaf: value for name, each in tree.items() for leaf, value in leaves(each, f"{key}.{name}"[not key :]).items()
    }


def test_the_table_lists_every_recipe_with_its_numbers(capsys: pytest.CaptureFixture[str]):
    rows = output_of(capsys).splitlines()
    files = {path.stem: OmegaConf.load(path) for path in (composition.CONFIGS / "recipe").glob("*.yaml")}
    assert [row.split()[0] for row in rows[1:] if row[0] != " "] == sorted(files)
    assert max(map(len, rows)) <= 80
    text = " ".join(" ".join(rows).split())
    for name, file in files.items():
        assert f"published: {file.published}" in text, name
        if "defaults" not in file:
            lr = f"{float(file.optimizer.lr):g} at {file.batch_size} {file.epochs} "
            assert any(" ".join(row.split()).endswith(lr.strip()) for row in rows if row.split()[0] == name), name


def test_the_plan_of_a_recipe_for_eight_devices(capsys: pytest.CaptureFixture[str]):
    """1,281,167 images in batches of 2,048 are 625 steps; the warm-up ends after a twentieth of the cosine."""
    lines = labelled(output_of(capsys, *PLAN[1:]))
    file = OmegaConf.load(composition.CONFIGS / "recipe/a3.yaml")
    highest = 1e-6 + (8e-3 - 1e-6) * 0.5 * (1 + math.cos(math.pi * 0.05))
    last = 1e-6 + (8e-3 - 1e-6) * 0.5 * (1 + math.cos(math.pi * 0.99))
    assert (lines["source"], lines["published"]) == (file.source, file.published)
    assert lines["batch"] == "2048 = 256 images × 8 devices × 1 micro-step"
    assert lines["steps"] == "62,500 = 100 epochs × 625"
    assert lines["warm-up"] == "3,125 steps"
    assert lines["rate"] == f"0.0001 first, {highest:.6g} at step 3,125 (highest), {last:.3g} last"


@pytest.mark.parametrize("name", sorted(path.stem for path in (composition.CONFIGS / "recipe").glob("*.yaml")))
def test_every_plan_fits_into_a_terminal(name: str, capsys: pytest.CaptureFixture[str]):
    output = output_of(capsys, name, "--devices", "2")
    assert max(map(len, output.splitlines())) <= 80
    assert labelled(output)["recipe"] == name
    assert "None" not in output


def test_a_picture_is_drawn_only_with_its_option(recipe_folder: Path, capsys: pytest.CaptureFixture[str]):
    assert "picture" not in labelled(output_of(capsys, *PLAN[1:]))
    assert list(Path().iterdir()) == []
    assert labelled(output_of(capsys, *PLAN[1:], "--picture", "a.svg"))["picture"] == "a.svg"
    assert list(Path().iterdir()) == [Path("a.svg")]
    picture = ElementTree.parse("a.svg").getroot()
    (line,) = (each for each in picture.iter() if "stroke: #1f6fb4" in each.attrib.get("style", ""))
    points = [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", line.attrib["d"])]
    assert points == sorted(points, key=lambda point: point[0])
    peak = min(points, key=lambda point: point[1])  # y grows downwards
    left, right = points[0][0], points[-1][0]
    assert (peak[0] - left) / (right - left) == pytest.approx(0.05, abs=0.001)
    assert points[-1][1] > points[0][1] > peak[1]


def test_a_plan_with_overrides_devices_and_fewer_images(capsys: pytest.CaptureFixture[str]):
    overrides = ["recipe.epochs=2", "recipe.batch_size=512", "recipe.lr_scaling=linear", "trainer.micro_batch_size=32"]
    output = output_of(capsys, "v1", "--devices", "4", "--nodes", "2", "--images", "2048", *overrides)
    lines = labelled(output)
    assert lines["batch"] == "512 = 32 images × 8 devices × 2 micro-steps"
    assert lines["steps"] == "8 = 2 epochs × 4"
    assert lines["optimizer"] == "SGD, lr 0.2, momentum 0.9, weight decay 0.0001"
    assert lines["lr"] == "0.2 at batches of 512, linear from 0.1 at batches of 256"


@pytest.mark.parametrize(
    ("steps", "rate"),
    [(100, "0 first, 0.001 last"), (1, "0 first, 0 last")],  # the warm-up to 0.1 has 10,008 steps
)
def test_a_learning_rate_that_only_rises_is_shown_without_a_peak(
    steps: int, rate: str, capsys: pytest.CaptureFixture[str]
):
    expected = rate.replace("0.001", f"{0.1 * (steps - 1) / 10_008:.3g}")
    arguments = ["v1", "recipe.schedule.warmup_epochs=2", f"recipe.max_steps={steps}"]
    assert labelled(output_of(capsys, *arguments))["rate"] == expected


def test_an_override_takes_precedence_over_an_option_and_may_choose_a_group(
    recipe_folder: Path, capsys: pytest.CaptureFixture[str]
):
    (recipe_folder.parent / "trainer/ours.yaml").write_text("devices: 4\nnodes: 2\n")
    assert labelled(output_of(capsys, "v1"))["batch"].startswith("256 = 256 images × 1 device ")
    assert labelled(output_of(capsys, "v1", "trainer=ours"))["batch"].startswith("256 = 32 images × 8 devices ")
    given = ["--devices", "2", "--network", "resnext101_32x8d"]
    assert labelled(output_of(capsys, "v1", "trainer=ours", *given))["batch"].startswith("256 = 64 images × 4 devices ")
    lines = labelled(output_of(capsys, "v1", *given, "trainer.devices=16", "model.name=resnext101_64x4d"))
    assert lines["batch"].startswith("256 = 16 images × 16 devices ")
    assert lines["network"] == "resnext101_64x4d"
    assert labelled(output_of(capsys, "v1", "model=resnext_small"))["network"] == "resnext"


def test_a_recipe_may_omit_its_source(recipe_folder: Path, capsys: pytest.CaptureFixture[str]):
    (recipe_folder / "mine.yaml").write_text(SMALLEST)
    (recipe_folder / "nulls.yaml").write_text(f"source: null\npublished: null\n{SMALLEST}")
    for name in ("mine", "nulls"):
        lines = labelled(output_of(capsys, name))
        assert lines["recipe"] == name
        assert not {"source", "published"} & lines.keys()
    table = output_of(capsys)
    for name, following in (("mine", "nulls"), ("nulls", "nvidia")):
        rows = table[table.index(f"\n{name} ") :].splitlines()[1:5]
        assert rows[0].split() == [name, "Nesterov", "SGD", "0.1", "at", "4", "3"]
        assert rows[3].split()[0] == following  # rows[1:3] are the schedule and the augmentation
    assert "None" not in table


def test_a_recipe_with_defaults_equals_the_one_that_train_composes(
    recipe_folder: Path, capsys: pytest.CaptureFixture[str]
):
    (recipe_folder / "mine.yaml").write_text(
        "defaults: [v2_fixres, _self_]\npublished: here 1 %\nepochs: 7\naugmentation: {repeats: 2}\n"
    )
    assert run_verb(["train", "experiment=resnext50_imagenet", "recipe=mine", "--cfg", "job", "--resolve"]) == 0
    composed = yaml.safe_load(capsys.readouterr().out)["recipe"]
    lines = labelled(output_of(capsys, "mine"))
    assert lines["source"] == composed["source"] == OmegaConf.load(recipe_folder / "v2_fixres.yaml").source
    assert lines["published"] == composed["published"] == "here 1 %"
    assert lines["steps"].startswith(f"{1281167 // 1024 * 7:,} = {composed['epochs']} epochs × ")
    assert f"{composed['augmentation']['repeats']} repeats" in lines["augment"]
    assert f"of {composed['image_size']} pixels" in lines["images"]
    assert composed["image_size"] == 176


def test_the_difference_of_two_recipes_equals_the_difference_of_their_files(capsys: pytest.CaptureFixture[str]):
    a2, a3 = (
        leaves(OmegaConf.to_container(OmegaConf.load(composition.CONFIGS / f"recipe/{name}.yaml")))
        for name in ("a2", "a3")
    )
    defaults = {"drop_path_rate": 0.0, "augmentation.repeats": 1}  # a3 omits these keys
    keys = [key for key in a2 if a2[key] != a3.get(key) and key not in ("source", "published")]
    expected = [(key, str(a2[key]), str(a3.get(key, defaults.get(key)))) for key in keys]
    head, *rows = (line.split() for line in output_of(capsys, "--diff", "a2", "a3").splitlines())
    assert head == ["recipe.", "a2", "a3"]
    assert a3.keys() <= a2.keys()
    assert sorted(map(tuple, rows)) == sorted(expected)
    positions = [key for key, *_ in rows]
    assert positions.index("epochs") < positions.index("optimizer.lr") < positions.index("augmentation.repeats")


@pytest.mark.parametrize("names", [("distill", "v1"), ("v1", "distill")])
def test_a_long_value_wraps_within_its_column(names: tuple[str, str], capsys: pytest.CaptureFixture[str]):
    head, *lines = output_of(capsys, "--diff", *names).splitlines()
    teacher = OmegaConf.load(composition.CONFIGS / "recipe/distill.yaml").teacher.name
    columns = (
        slice(0, head.index(names[0])),
        slice(head.index(names[0]), head.index(names[1])),
        slice(head.index(names[1]), 80),
    )
    start = next(number for number, line in enumerate(lines) if line.startswith("teacher.name "))
    end = next(number for number, line in enumerate(lines) if line.startswith("teacher.weight "))
    cells = ["".join(line[column].strip() for line in lines[start:end]) for column in columns]
    expected = {"distill": teacher, "v1": "null"}
    assert cells == ["teacher.name", *(expected[name] for name in names)]
    assert end - start > 1
    assert max(map(len, lines)) <= 80


def test_equal_recipes_take_one_line(recipe_folder: Path, capsys: pytest.CaptureFixture[str]):
    (recipe_folder / "same.yaml").write_text("defaults: [a1, _self_]\nsource: mine\npublished: nothing\n")
    assert output_of(capsys, "--diff", "a1", "same") == "a1 and same do not differ\n"


BROKEN = {
    "epochs: [1\n": "is not valid YAML",
    f"{SMALLEST}epoch: 4\n": "recipe.epoch is not a configuration key; did you mean recipe.epochs?",
    SMALLEST.replace("epochs: 3\n", ""): "recipe.epochs is missing",
    SMALLEST.replace("epochs", "epoch"): "recipe.epoch is not a configuration key; did you mean recipe.epochs?",
    "": "recipe.batch_size, recipe.epochs, recipe.optimizer.lr, recipe.optimizer.name are missing",
    "- 1\n": "Cannot merge",
    "3\n": "cannot be composed",
    SMALLEST.replace("3", "many"): "recipe.epochs=many is not allowed",
    "defaults: [broken]\n": "RecursionError",
    "defaults: [v11]\n": "recipe=v11 does not exist",
    SMALLEST.replace("3", "${nowhere}"): "recipe.epochs: Interpolation key 'nowhere' not found",
}


@pytest.mark.parametrize("text", BROKEN)
def test_one_line_names_a_broken_file(text: str, recipe_folder: Path, capsys: pytest.CaptureFixture[str]):
    (recipe_folder / "broken.yaml").write_text(text)
    for arguments in (["broken"], ["broken", "trainer.nodes=2"], ["--diff", "a1", "broken"]):
        assert run_verb(["recipes", *arguments]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        (line,) = printed.err.splitlines()
        assert line.startswith("resnext recipes: ")
        assert "configs/recipe/broken.yaml" in line
        assert BROKEN[text] in line


def test_broken_files_do_not_hide_other_recipes_in_the_table(recipe_folder: Path, capsys: pytest.CaptureFixture[str]):
    whole = output_of(capsys)
    (recipe_folder / "a2_broken.yaml").write_text("epochs: [1\n")
    (recipe_folder / "small.yaml").write_text("")
    (recipe_folder / "folder.yaml").mkdir()
    assert run_verb(["recipes"]) == 2
    printed = capsys.readouterr()
    assert printed.out == whole[: whole.index("small ")] + whole[whole.index("v1 ") :]
    first, second = printed.err.splitlines()
    assert "configs/recipe/a2_broken.yaml" in first
    assert "configs/recipe/small.yaml: recipe." in second


def test_an_override_may_set_a_key_that_a_file_omits(recipe_folder: Path, capsys: pytest.CaptureFixture[str]):
    (recipe_folder / "short.yaml").write_text(SMALLEST.replace("epochs: 3\n", ""))
    lines = labelled(output_of(capsys, "short", "recipe.epochs=5", "--images", "9"))
    assert lines["steps"] == "10 = 5 epochs × 2"


def test_a_learning_rate_for_another_batch_size_gives_a_warning(capsys: pytest.CaptureFixture[str]):
    output = " ".join(output_of(capsys, "nvidia", "recipe.batch_size=256", "recipe.max_steps=1").split())
    assert "meant for batches of 1024, not of 256: recipe.lr_scaling=linear would make it 0.256, sqrt 0.512" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a4"], "a4 is not a recipe; the recipes are a1, a2"),
        (["../recipe/a1"], "../recipe/a1 is not a recipe; the recipes are a1, a2"),
        (["--diff", "a1", "v2_fixre"], "v2_fixre is not a recipe; the recipes are a1, a2"),
        (["--diff", "a1", "v2_fixre"], "; did you mean v2_fixres?"),
        (["--diff", "a1", "a2", "recipe.epochs=3"], "--diff takes two recipe names and no other arguments: remove"),
        (["--diff", "a1", "a2", "--devices", "3"], "remove --devices"),
        (["--picture", "a.svg"], "--picture needs a recipe: resnext recipes NAME --picture"),
        (["trainer.devices=2"], "trainer.devices=2 needs a recipe name first"),
        (["v1", "recipe=v2"], "recipe=v2 conflicts with the recipe name v1: remove recipe=v2"),
        (["v1", "recipe.epochs=1,2"], "recipe.epochs=1,2: a run has one value for each key"),
        (["v1", "trainer=nope"], "trainer=nope does not exist; trainer is one of auto, cpu"),
        (["v1", "hydra.run.dir=elsewhere"], "hydra.run.dir=elsewhere cannot be set"),
        (
            ["v1", "--devices", "3"],
            "recipe.batch_size=256 cannot be divided among 3 devices; the nearest sizes that can: 255 or",
        ),
        (["v1", "--network", "resnet"], "model.name=resnet is not a registered network"),
        (["v1", "recipe.epoch=3"], "recipe.epoch is not a configuration key; did you mean recipe.epochs?"),
        (["v1", "--images", "100"], "recipe.batch_size=256 is more than the 100 training images"),
        (["v1", "recipe.schedule.name=wsd", "recipe.epochs=9"], "recipe.schedule.name=wsd over 9 epochs: "),
        (["v1", "--picture", "nowhere/a.svg"], "nowhere/a.svg: No such file or directory"),
    ],
)
def test_mistakes_give_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert run_verb(["recipes", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert "configs/recipe/" not in error  # the mistake is not in the file
    assert not list(Path().glob("*.svg"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a2", "a3"], "give one recipe; to compare two: resnext recipes --diff a2 a3"),
        (["--diff", "a1"], "argument --diff: expected 2 arguments"),
        (["a1", "--picture", "x.png"], "'x.png' must end with .svg"),
        (["a1", "--devices", "0"], "'0' is not a positive integer"),
    ],
)
def test_arguments_that_cannot_be_parsed(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert run_verb(["recipes", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(Path().iterdir())
