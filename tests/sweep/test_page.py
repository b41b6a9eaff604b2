"""The page of a sweep: its values, its plots, damaged runs, and the commands that write it."""

import json
import re
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from resnext.__main__ import run_verb
from resnext.cli import sweep as sweep_verb
from resnext.config.sweep import make_sweep
from resnext.report import plots
from resnext.sweep import page as page_module
from resnext.sweep.folder import SweepFolder
from resnext.sweep.journal import Journal
from resnext.sweep.page import build_page, write_page
from resnext.sweep.page_curves import find_marks, mean_curve
from resnext.sweep.page_metric import Metric
from resnext.sweep.result import read_result
from resnext.sweep.sampling import propose
from resnext.sweep.space import SearchSpace
from support.pages import PageReader
from support.sweeps import made_result, made_trial

LR = {"recipe.optimizer.lr": FloatDistribution(0.001, 1, log=True)}
NOISE = {"recipe.noise": FloatDistribution(0, 1)}
SHORT = ["experiment=resnext_digits", "recipe.epochs=3"]
PRUNED = r'stroke-dasharray[^"]*stroke: var\(--muted\)|stroke: var\(--muted\)[^"]*stroke-dasharray'


def lr(value: float) -> dict:
    return {"recipe.optimizer.lr": value}


def section(text: str, name: str) -> str:
    return text.partition(f'<section id="{name}">')[2].partition("</section>")[0]


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    """A sweep with one complete trial; its run is damaged."""
    monkeypatch.chdir(tmp_path)
    config = make_sweep({"space": {"recipe.optimizer.lr": "0.1,0.2"}, "overrides": SHORT})
    folder = SweepFolder.create("lr", config)
    journal, space = Journal(folder.path / "optuna.journal", "maximize"), SearchSpace(config)
    trial = propose(config, space, [])
    journal.add(trial, space.overrides(trial.params), (3,))
    journal.report(0, 3, 0.875)
    journal.complete(0, 0.875)
    run = tmp_path / "runs/lr-0"
    run.mkdir()
    (run / "config.yaml").write_text("a: [\n")
    (run / "run.json").write_text("{}")
    return folder


def test_the_best_trial_its_spread_and_its_command_are_on_the_page():
    trials = [
        made_trial(0, lr(0.1), [[0.1, 0.5, 0.4], [0.2, 0.6, 0.6]]),
        made_trial(1, lr(0.3), [[0.3, 0.7, 0.8], [0.3, 0.9, 0.7]]),
    ]
    page = build_page(made_result(trials, LR, overrides=SHORT, seeds=[0, 1]))
    read = PageReader(page.text)
    assert "85.00 % ± 7.07 %, n = 2" in read.text["result"]  # the sample standard deviation of 0.8 and 0.9
    assert "resnext train experiment=resnext_digits recipe.optimizer.lr=0.3 run=made-best" in read.text["result"]
    assert "without recipe.epochs=3" in read.text["result"]
    head, *rows = read.tables["trials"][0]
    assert head[:6] == ["trial", "state", "epochs", "val/top1", "std", "n"]
    assert [row[:6] for row in rows] == [
        ["1", "complete", "3", "85.00 %", "7.07 %", "2"],
        ["0", "complete", "3", "55.00 %", "7.07 %", "2"],
    ]
    assert [*page.left_out] == ["Importance of the keys"]


def test_the_sections_are_in_order_and_points_have_families_in_place_of_slices():
    ids = ["result", "trials", "learning-curves", "slices", "importance-of-the-keys", "settings"]
    page = build_page(made_result([made_trial(0, lr(0.1), [[0.5]])], LR))
    assert [each["id"] for each in PageReader(page.text).attributes("section")] == ids
    points = {"stem": {"7x7": ["a=1"], "3x3": ["a=2"]}, "se": {"none": []}}
    names = ["stem 7x7", "stem 3x3", "se none"]
    trials = [made_trial(at, {"point": name}, [[0.5 + at / 10]]) for at, name in enumerate(names)]
    page = build_page(made_result(trials, {"point": CategoricalDistribution(names)}, points=points))
    ids = ["result", "trials", "learning-curves", "families", "costs-and-conclusions", "settings"]
    assert [each["id"] for each in PageReader(page.text).attributes("section")] == ids
    drawn = texts(section(page.text, "families"))
    assert [each for each in drawn if each in ("7x7", "3x3", "none")] == ["7x7", "3x3", "none"]
    assert {"stem", "se"} <= {*drawn}
    assert ["points.stem.7x7", "a=1"] in PageReader(page.text).tables["settings"][0]


def test_a_curve_is_the_mean_at_the_epochs_that_all_seeds_have():
    trial = made_trial(0, lr(0.1), [[0.2, 0.4, 0.9], [0.4, 0.8]])
    assert mean_curve(trial) == pytest.approx({1: 0.3, 2: 0.6})


def test_pruned_curves_are_dashed_and_end_in_a_marker_and_failed_ones_are_left_out():
    complete = made_trial(0, lr(0.1), [[0.1, 0.3, 0.5]], rungs=(1, 3))
    pruned = made_trial(1, lr(0.2), [[0.1, 0.2]], rungs=(1, 3), state="pruned")
    failed = made_trial(2, lr(0.3), [[0.1, 0.2]], rungs=(1, 3), state="failed", error="lr-2: out of memory")
    result = made_result([complete, pruned, failed], LR, pruner="asha")
    assert find_marks(result) == [1]
    text = build_page(result).text
    curves = section(text, "learning-curves")
    assert len(re.findall(PRUNED, curves)) == 2  # the rung, and the pruned trial
    assert curves.count("var(--series-1)") == 2  # the complete trial, and its key
    assert "var(--series-2)" not in curves
    assert len(re.findall(r"<use [^>]*stroke: var\(--muted\)", curves)) == 1
    assert "lr-2: out of memory" in PageReader(text).text["trials"]


def test_a_logarithmic_key_has_a_logarithmic_axis_and_categories_are_in_order():
    values = {"recipe.optimizer.lr": 0.01, "recipe.noise": 0.5, "data.batch": "16"}
    more = CategoricalDistribution(["32", "16", "8"])
    trials = [made_trial(at, values | lr(10.0**-at), [[0.5 + at / 100]]) for at in range(4)]
    slices = section(build_page(made_result(trials, LR | NOISE | {"data.batch": more})).text, "slices")
    logarithmic, linear, categories = sorted(
        slices.split("<figure")[1:], key=lambda each: ("lr" not in each, "noise" not in each)
    )
    assert {"0.001", "0.01", "0.1", "1"} <= {*texts(logarithmic)}
    assert "0.01" not in texts(linear)
    assert [each for each in texts(categories) if each in ("8", "16", "32")] == ["8", "16", "32"]


def test_pruned_points_are_hollow():
    trials = [made_trial(0, lr(0.1), [[0.5]]), made_trial(1, lr(0.2), [[0.4]], state="pruned")]
    slices = section(build_page(made_result(trials, LR)).text, "slices")
    assert "Hollow" in slices
    assert re.search(r'fill(?:: |-opacity: |=")(?:none|0)[^"]*stroke: var\(--muted\)', slices)


def test_the_importances_are_a_plot_and_without_matplotlib_a_table(monkeypatch: pytest.MonkeyPatch):
    values = [0.001, 0.01, 0.1, 0.5, 0.9]
    trials = [made_trial(at, lr(each) | {"recipe.noise": 0.5}, [[each]]) for at, each in enumerate(values)]
    result = made_result(trials, LR | NOISE)
    assert "<svg" in section(build_page(result).text, "importance-of-the-keys")
    monkeypatch.setattr(plots, "is_available", lambda: False)
    monkeypatch.setattr(page_module, "is_available", lambda: False)
    page = build_page(result)
    assert PageReader(page.text).tables["importance-of-the-keys"][0][1] == ["recipe.optimizer.lr", "100.0 %"]
    assert [*page.left_out] == ["Learning curves", "Slices"]
    assert "pip install" in page.left_out["Slices"]
    assert "<svg" not in page.text


def test_values_are_text_and_a_notification_is_not_shown():
    value = '<img src=x onerror="alert(1)">'
    keys = {"a.b": CategoricalDistribution([value])}
    result = made_result([made_trial(0, {"a.b": value}, [[0.5]])], keys, overrides=["notify.command=secret", "a=<b>"])
    page = build_page(result).text
    read = PageReader(page)
    assert not read.attributes("img")
    assert "secret" not in page
    assert read.tables["trials"][0][1][-1] == value
    assert ["overrides", "'notify.command=…' 'a=<b>'"] in read.tables["settings"][0]


def test_a_large_sweep_shows_its_best_trials_and_says_so():
    trials = [made_trial(at, lr(0.1), [[at / 1000]]) for at in range(203)]
    read = PageReader(build_page(made_result(trials, LR)).text)
    rows = read.tables["trials"][0][1:]
    assert (len(rows), rows[0][0], rows[-1][0]) == (200, "202", "3")
    assert "The best 200 of 203 trials" in read.text["trials"]


def test_a_sweep_without_a_trial_has_a_page():
    page = build_page(made_result([], {}, space={"a.b": "1,2"}))
    assert page.left_out["Result"] == page.left_out["Trials"] == "no trial has begun yet"
    assert "For the same reason: Trials." in page.text


def test_a_metric_that_is_no_accuracy_has_no_percent():
    assert Metric("val/loss").shown(0.51234) == "0.5123"
    assert Metric("val_ema/top5").shown(0.51234) == "51.23 %"
    assert Metric("val/top1").shown(float("nan")) == Metric("val/top1").shown(None) == ""


def test_the_page_is_written_with_the_error_of_a_damaged_run_in_one_line(
    folder: SweepFolder, capsys: pytest.CaptureFixture[str]
):
    assert run_verb(["report", "lr"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("report    runs/lr/report.html, ")
    read = PageReader((folder.path / "report.html").read_text())
    row = dict(zip(*read.tables["trials"][0], strict=True))
    assert (row["state"], row["value"], row["steps"]) == ("complete", "0.8750", "")
    assert "lr-0" in row["error"]
    assert "\n" not in row["error"]


def test_the_page_may_be_elsewhere_and_json_names_it(folder: SweepFolder, capsys: pytest.CaptureFixture[str]):
    assert run_verb(["report", "runs/lr", "--output", "page.html", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == "page.html"
    assert Path("page.html").is_file()
    assert not (folder.path / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["lr", "--wandb"], "--wandb is for one run"), (["lr", "other", "--output", "a.html"], "give it alone")],
)
def test_what_a_sweep_refuses_is_one_line(
    folder: SweepFolder, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
):
    assert run_verb(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1


def test_a_sweep_that_is_done_names_its_page_and_survives_without_it(
    folder: SweepFolder, capsys: pytest.CaptureFixture[str]
):
    sweep_verb._write_page(folder, read_result(folder))
    assert capsys.readouterr().out == "report    runs/lr/report.html\n"
    (folder.path / "report.html").unlink()
    (folder.path / "report.html").mkdir()
    sweep_verb._write_page(folder, read_result(folder))
    assert capsys.readouterr().out.startswith("warning: the page of runs/lr is not written: ")


def test_write_page_returns_its_path(tmp_path: Path):
    path = write_page(tmp_path, made_result([made_trial(0, lr(0.1), [[0.5]])], LR))
    assert path == tmp_path / "report.html"
    assert path.read_text().startswith("<!doctype html>")
