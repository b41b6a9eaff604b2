"""`--json`: one JSON object on stdout and nothing else, with values that other files and libraries confirm."""

import csv
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml

from resnext.__main__ import run_verb
from resnext.cli.json_output import only_json, print_json
from support.small_run import make_run, small_config, write_images

RECIPES = Path(__file__).parents[2] / "configs/recipe"
IMAGES = {"train/cat": 8, "train/dog": 10, "val/cat": 4, "val/dog": 5}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images/ and runs/test, which has two epochs of three steps and keeps both checkpoints."""
    from resnext.training.fit import fit

    folder = tmp_path_factory.mktemp("workplace")
    write_images(folder / "images", IMAGES)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        fit(make_run(small_config(folder / "images", recipe__batch_size=6, checkpoint__keep_every_epochs=1)))
    return folder


@pytest.fixture
def validations(workplace: Path, tmp_path: Path) -> list[dict[str, str]]:
    """Copies runs/ into the current folder. Returns the rows of metrics.csv with a validation."""
    shutil.copytree(workplace / "runs", tmp_path / "runs")
    with open("runs/test/metrics.csv") as file:
        return [row for row in csv.DictReader(file) if row["val/top1"]]


def json_of(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """The object that the command prints. Fails if there is anything else, or a number that JSON does not have."""
    assert run_verb([*arguments, "--json"]) == code

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1, lines
    return json.loads(lines[0], parse_constant=refuse)


def test_numbers_that_json_does_not_have_become_null(capsys: pytest.CaptureFixture[str]):
    print_json({"a": [math.nan, (1.5, -math.inf)], "b": {2: Path("x/y")}, "c": True})
    assert json.loads(capsys.readouterr().out) == {"a": [None, [1.5, None]], "b": {"2": "x/y"}, "c": True}


def test_what_a_library_prints_goes_to_stderr(capsys: pytest.CaptureFixture[str]):
    for wanted in (True, False):
        with only_json(wanted):
            print("from a library")
    assert capsys.readouterr() == ("from a library\n", "from a library\n")


def test_a_mistake_leaves_stdout_empty(capsys: pytest.CaptureFixture[str]):
    for arguments in (["status", "nowhere"], ["status", "--watch"], ["models", "--filter", "nothing"]):
        assert run_verb([*arguments, "--json"]) == 2
        output = capsys.readouterr()
        assert output.out == ""
        assert len(output.err.splitlines()) == 1


def test_the_state_of_runs(validations: list[dict[str, str]], capsys: pytest.CaptureFixture[str]):
    (found,) = json_of(capsys, "status")["runs"]
    assert json_of(capsys, "status", "test")["runs"][0].keys() == found.keys()
    assert (found["path"], found["state"], found["step"], found["steps"]) == ("runs/test", "finished", 6, 6)
    best = max(validations, key=lambda row: float(row["val/top1"]))
    assert (found["top1"], found["best_epoch"]) == (float(best["val/top1"]), int(best["epoch"]))
    assert (found["starts"], found["stopped"], found["slurm_job"], found["left_seconds"]) == (1, None, None, None)
    shutil.copytree("runs/test", "runs/broken")
    Path("runs/broken/summary.json").write_text("{")
    states = {Path(each["path"]).name: each for each in json_of(capsys, "status")["runs"]}
    assert states["broken"]["state"] == "damaged"
    assert "summary.json is damaged" in states["broken"]["error"]


def test_the_comparison_of_runs_has_the_exit_code_of_the_text(
    validations: list[dict[str, str]], capsys: pytest.CaptureFixture[str]
):
    shutil.copytree("runs/test", "runs/same")
    found = json_of(capsys, "compare", "runs/test", "runs/same")
    assert found["identical"] is True
    assert {part["name"] for part in found["parts"]} >= {"metrics.csv", "weights", "optimizer"}
    text = Path("runs/same/metrics.csv").read_text()
    Path("runs/same/metrics.csv").write_text(text.replace(validations[0]["val/loss"], "9.0"))
    found = json_of(capsys, "compare", "runs/test", "runs/same", code=1)
    assert [part["name"] for part in found["parts"] if not part["identical"]] == ["metrics.csv"]


def test_a_report_names_the_sections_that_it_leaves_out(
    validations: list[dict[str, str]], capsys: pytest.CaptureFixture[str]
):
    found = json_of(capsys, "report", "runs/test")
    assert (found["path"], found["bytes"]) == ("runs/test/report.html", os.stat("runs/test/report.html").st_size)
    assert found["left_out"]["Confusion"].startswith("the run has no evaluation: ")
    assert "Curves" not in found["left_out"]


def test_an_average_has_the_accuracies_of_the_training(
    validations: list[dict[str, str]], capsys: pytest.CaptureFixture[str]
):
    found = json_of(capsys, "average", "runs/test")
    expected = [float(row["val/top1"]) for row in validations]
    assert sorted(each["top1"] for each in found["checkpoints"]) == sorted(expected)
    assert found["bytes"] == os.stat(found["path"]).st_size
    assert (found["images"], len(found["average"]["checkpoints"])) == (9, 2)


def test_an_export_has_its_size_and_its_difference(
    validations: list[dict[str, str]], capsys: pytest.CaptureFixture[str]
):
    found = json_of(capsys, "export", "runs/test", "--format", "safetensors")
    assert found["bytes"] == os.stat(found["path"]).st_size
    assert (found["image_size"], found["classes"], found["is_ema"]) == (8, 2, False)
    assert 0 <= found["max_difference"] < 1e-4


def test_the_networks_have_the_parameters_of_timm(capsys: pytest.CaptureFixture[str]):
    (found,) = json_of(capsys, "models", "--filter", "resnext50_32x4d")["networks"]
    with torch.device("meta"):
        expected = sum(each.numel() for each in timm.create_model("resnext50_32x4d").parameters())
    assert (found["parameters"], found["cardinality"], found["base_width"]) == (expected, 32, 4)
    names = json_of(capsys, "models", "--timm", "--filter", "resnext50")["networks"]
    assert names == [f"timm/{name}" for name in timm.list_models("*resnext50*")]


def test_recipes_have_the_values_of_their_files(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("resnext.cli.recipes.config_names", lambda *_: ["v1", "v2"])  # to compose two instead of all
    found = json_of(capsys, "recipes")["recipes"]
    assert list(found) == ["v1", "v2"]
    content = yaml.safe_load((RECIPES / "v2.yaml").read_text())
    assert (found["v2"]["epochs"], found["v2"]["batch_size"]) == (content["epochs"], content["batch_size"])
    plan = json_of(capsys, "recipes", "v2", "--images", "10000", "--devices", "2", "trainer.micro_batch_size=64")
    per_epoch = 10_000 // content["batch_size"]
    assert (plan["steps_per_epoch"], plan["steps"]) == (per_epoch, per_epoch * content["epochs"])
    assert plan["micro_batch_size"] * plan["world_size"] * plan["accumulation"] == content["batch_size"]
    assert plan["lr"]["highest"] == pytest.approx(content["optimizer"]["lr"])
    differences = json_of(capsys, "recipes", "--diff", "v1", "v2")["differences"]
    rows = {each["key"]: each["values"] for each in differences}
    assert rows["recipe.epochs"] == [found["v1"]["epochs"], found["v2"]["epochs"]]


def test_a_pack_and_an_index_count_the_images(workplace: Path, capsys: pytest.CaptureFixture[str]):
    shutil.copytree(workplace / "images", "images")
    Path("images/train/cat/2.png").write_bytes(b"no image")
    found = json_of(capsys, "prepare", "pack", "images", "pack")
    expected = {"path": str(Path("pack").absolute()), "train_images": 17, "val_images": 9, "unreadable_images": 1}
    assert found == expected
    cost = json_of(capsys, "benchmark", "index", str(workplace / "images"))
    assert cost["images"] == sum(IMAGES.values())
    assert cost["list_seconds"] > 0
