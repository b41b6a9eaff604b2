"""The report: its values against the files of the run, read by other code; damaged and missing files; several runs."""

import base64
import csv
import io
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnext.__main__ import run_verb
from resnext.cli.report import main
from resnext.report.html import Html
from resnext.report.page import build_page
from resnext.report.record import RunRecord
from resnext.run.directory import Run
from support.pages import PageReader
from support.small_run import make_run, small_config

SECTIONS = (
    *("status", "curves", "evaluation", "accuracy-by-class-calibration", "confusion", "worst-mistakes"),
    *("most-confused-pairs", "what-the-network-sees", "validation-images", "data", "schedule"),
    *("differences-from-the-experiment", "starts", "identity"),
)


@pytest.fixture(scope="module")
def read(page: str) -> PageReader:
    return PageReader(page)


@pytest.fixture
def copy(reported: Run, tmp_path: Path) -> Run:
    return Run(Path(shutil.copytree(reported.path, tmp_path / "copy")))


def rows_of(run: Run) -> list[dict[str, str]]:
    with open(run.path / "metrics.csv") as file:
        return list(csv.DictReader(file))


def evaluation_of(run: Run) -> dict:
    return json.loads((run.path / "evaluations/best-val.json").read_text())


def test_every_section_is_on_the_page_and_linked(read: PageReader):
    assert tuple(each["id"] for each in read.attributes("section")) == SECTIONS
    assert [each["href"] for each in read.attributes("a")] == [f"#{name}" for name in SECTIONS]


def test_the_page_refers_to_nothing_outside_itself(page: str, read: PageReader):
    """No script, no address, and only data in the place of files."""
    names = {name for name, _ in read.elements}
    assert not names & {"script", "link", "iframe", "object", "base", "form", "image"}
    references = [each[key] for _, each in read.elements for key in ("src", "href", "xlink:href") if key in each]
    assert {each.partition(":")[0] if each[0] != "#" else "#" for each in references} == {"data", "#"}
    assert not re.search(r"https?:|@import|url\((?!#)", page)
    assert len(page.encode()) < 3_000_000


def test_names_of_classes_are_text_and_never_markup(read: PageReader, reported: Run):
    attributes = {key for name, each in read.elements if name in ("img", "b", "td") for key in each}
    assert not any(key.startswith("on") for key in attributes)
    assert all(each["src"].startswith("data:image/jpeg;base64,") for each in read.attributes("img"))
    shown = [row[0] for row in read.tables["data"][0][1:]]
    names = [name.replace("\x1b", "\\x1b") for name in reported.data_identity.classes]
    assert sorted(shown) == sorted(names)


def test_the_best_accuracy_and_the_validations_are_those_of_metrics_csv(read: PageReader, reported: Run):
    rows = [row for row in rows_of(reported) if row["val/top1"]]
    best = max(float(row["val_ema/top1"]) for row in rows)
    assert f"{100 * best:.2f} %top-1 (EMA, epoch " in read.text["status"]
    assert "9 of 9steps" in read.text["status"]
    head, *shown = read.tables["curves"][0]
    assert len(shown) == len(rows) == 3
    for cells, row in zip(shown, rows, strict=True):
        for name, cell in zip(head, cells, strict=True):
            assert float(cell.removesuffix(" %")) == pytest.approx(
                float(row[name]) * (100 if "%" in cell else 1), abs=5e-3
            )


def test_the_metrics_are_those_of_the_evaluation(read: PageReader, reported: Run):
    content = evaluation_of(reported)
    (head, *rows), *_ = read.tables["evaluation"]
    for name, row in zip(("ema", "raw"), rows, strict=True):
        found, cells = content["networks"][name], dict(zip(head, row, strict=True))
        assert cells["top-1"] == f"{100 * found['top1']['value']:.2f} %"
        assert cells["95 % interval"] == f"{100 * found['top1']['low']:.2f} to {100 * found['top1']['high']:.2f} %"
        assert cells["loss"] == f"{found['loss']:.4f}"
    accuracies = {row[0]: row[2] for row in read.tables["accuracy-by-class-calibration"][0][1:]}
    expected = {
        each["class"].replace("\x1b", "\\x1b"): f"{100 * each['top1']:.1f} %"
        for each in content["networks"]["ema"]["per_class"]
    }
    assert accuracies == expected


def test_the_confusion_matrix_has_the_counts_of_the_evaluation(page: str, reported: Run):
    section = page.partition('<section id="confusion">')[2].partition("</section>")[0]
    counts = sorted(int(each) for each in re.findall(r">(\d+)</text>", section))
    assert counts == sorted(images for *_, images in evaluation_of(reported)["networks"]["ema"]["confusion"])
    assert sum(counts) == 36


def test_the_points_of_the_calibration_give_the_calibration_error(reported: Run):
    """The expected calibration error is the mean gap of the bins, weighted by their images."""
    from resnext.report.evaluation import find_evaluation

    confidences, accuracies, images = find_evaluation(RunRecord(reported)).predictions.bins()
    error = (np.abs(confidences - accuracies) * images).sum() / images.sum()
    assert error == pytest.approx(evaluation_of(reported)["networks"]["ema"]["calibration_error"], abs=1e-6)


def test_the_worst_mistakes_are_the_most_confident_wrong_images(page: str, reported: Run):
    with np.load(reported.path / "evaluations/best-val.npz") as arrays:
        wrong = np.flatnonzero(arrays["ema_classes"][:, 0] != arrays["targets"])
        wrong = wrong[np.argsort(-arrays["ema_probabilities"][wrong, 0], kind="stable")]
        paths = [bytes(arrays["paths"][each]).decode() for each in wrong]
        percents = [f"{100 * each:.0f} %" for each in arrays["ema_probabilities"][wrong, 0]]
    section = page.partition('<section id="worst-mistakes">')[2].partition("</section>")[0]
    assert f"{len(wrong)} of 36 images are misclassified" in section
    assert re.findall(r", (\d+ %)</figcaption>", section) == percents[:24]
    for data, path in zip(re.findall(r"base64,([^\"]+)", section), paths, strict=False):
        shown = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
        source = Image.open(Path(reported.config.data.root) / "val" / path)
        pixels = np.asarray(source.resize(shown.size, Image.Resampling.NEAREST), float)
        assert np.abs(np.asarray(shown, float) - pixels).mean() < 12  # JPEG


def test_the_differences_from_the_experiment_are_listed(read: PageReader):
    changed = {key: (was, now) for key, was, now in read.tables["differences-from-the-experiment"][0][1:]}
    assert changed["recipe.epochs"] == ("100", "3")
    assert changed["recipe.ema.decay"] == ("null", "0.5")
    assert "recipe.loss.name" not in changed


def test_each_start_is_listed_with_its_machine_and_speed(read: PageReader, reported: Run):
    (start,) = reported.info["starts"]
    head, row = read.tables["starts"][0]
    cells = dict(zip(head, row, strict=True))
    assert cells["host"] == start["host"]
    assert cells["device"].startswith(start["device"])
    with open(reported.path / "perf.csv") as file:
        speeds = [float(each["perf/images_per_sec"]) for each in csv.DictReader(file)]
    assert int(cells["images/s"].replace(",", "")) == pytest.approx(np.median(speeds), abs=1)
    assert dict(read.tables["starts"][1][1:])["torch"] == start["versions"]["torch"]


def test_a_run_without_a_step_is_reported(image_folder: Path, capsys: pytest.CaptureFixture[str]):
    run = make_run(small_config(image_folder, recipe__batch_size=6))
    assert main([str(run.path)]) == 0
    assert "left out  Curves: runs/test/metrics.csv has no row yet" in capsys.readouterr().out
    read = PageReader((run.path / "report.html").read_text())
    assert "`resnext evaluate runs/test` makes one, after the first validation" in read.text["evaluation"]
    others = "Accuracy by class, calibration, Confusion, Worst mistakes, Most confused pairs"
    assert f"For the same reason: {others}." in read.text["evaluation"]
    assert "confusion" not in read.text
    assert "no start has reached its first step yet" in read.text["starts"]
    assert "12 images" in read.text["data"]
    assert len([each for each in read.attributes("img") if each["alt"].startswith("training image")]) == 12


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text('{"networks": {"ema": {"top1": 3, "per_class": [7]}}}\n[')


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 4])


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 9)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("damage", [empty, text, cut, binary, fifo, Path.unlink])
def test_a_damaged_file_is_one_line_and_costs_only_its_sections(copy: Run, damage, monkeypatch: pytest.MonkeyPatch):
    """Files that are read row by row lose rows, and may lose all of them."""
    monkeypatch.setattr("resnext.report.plots.render", lambda *arguments, **sizes: Html("<svg></svg>"))
    names = ["config.yaml", "starts/1.yaml", "run.json", "summary.json", "metrics.csv", "perf.csv"]
    for name in [*names, "evaluations/best-val.json", "evaluations/best-val.npz"]:
        path = copy.path / name
        kept = path.read_bytes()
        damage(path)
        found = build_page([copy])
        reasons = list(found.left_out.values())
        assert not any("could not be made" in reason or "\n" in reason for reason in reasons), (name, reasons)
        if name.startswith(("run", "summary", "evaluations", "starts")):
            missing = damage == Path.unlink and name == "evaluations/best-val.json"
            named = "the run has no evaluation" if missing else Path(name).name
            assert any(named in reason for reason in reasons), (name, reasons)
        path.unlink(missing_ok=True)
        path.write_bytes(kept)


def test_images_that_are_gone_cost_only_their_sections(copy: Run, tmp_path: Path):
    content = evaluation_of(copy)
    content["data"] = str(tmp_path / "gone")
    (copy.path / "evaluations/best-val.json").write_text(json.dumps(content))
    start = copy.path / "starts/1.yaml"
    start.write_text(start.read_text().replace(f"root: {copy.config.data.root}", f"root: {tmp_path}/gone"))
    found = build_page([copy])
    gone = {"Worst mistakes", "Most confused pairs", "What the network sees", "Validation images", "Data"}
    assert set(found.left_out) == gone
    assert all(f"{tmp_path}/gone" in reason for reason in found.left_out.values())
    assert not (tmp_path / "gone").exists()


def test_an_image_that_was_removed_is_named_in_its_place(copy: Run, tmp_path: Path):
    data = shutil.copytree(copy.config.data.root, tmp_path / "images")
    content = evaluation_of(copy) | {"data": str(data), "is_own": False}
    (copy.path / "evaluations/best-val.json").write_text(json.dumps(content))
    for path in (data / "val").glob("*/[0-4].png"):
        path.unlink()
    assert "the image is not in this folder any more" in build_page([copy]).text


def test_a_failed_run_shows_the_end_of_its_log(copy: Run):
    copy.update_summary(status="failed")
    with open(copy.path / "log.txt", "a") as file:
        file.write("2026-11-28 05:10:09 ERROR the training failed\nRuntimeError: <b>out of memory</b>\n")
    page = build_page([copy]).text
    assert '<span class="state failed">failed</span>' in page
    assert "RuntimeError: &lt;b&gt;out of memory&lt;/b&gt;" in page


def test_runs_are_compared_by_their_curves_and_by_the_keys_that_differ(
    reported: Run, copy: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    start = copy.path / "starts/1.yaml"
    start.write_text(start.read_text().replace("lr: 0.05", "lr: 0.1").replace("nodes: 1\n", "nodes: 2\n", 1))
    assert main([str(reported.path), str(copy.path), "--output", str(tmp_path / "both.html")]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    read = PageReader((tmp_path / "both.html").read_text())
    keys, *rows = read.tables["differences-of-the-configurations"][0]
    assert keys == ["key", "test", "copy"]
    assert rows == [["recipe.optimizer.lr", "0.05", "0.1"], ["trainer.nodes", "1", "2"]]
    assert [row[0] for row in read.tables["results"][0]] == ["run", "test", "copy"]
    plots = [each["aria-label"] for each in read.attributes("svg")]
    assert plots[:3] == ["Training loss", "Validation loss", "Top-1, %"]
    assert read.text["curves"].count("copy") == len(plots)


def test_several_runs_need_the_name_of_a_file(reported: Run, capsys: pytest.CaptureFixture[str]):
    assert run_verb(["report", str(reported.path), str(reported.path)]) == 2
    line = "resnext report: 2 runs on one page: say where to write it, --output FILE.html\n"
    assert capsys.readouterr() == ("", line)
    assert list(Path().iterdir()) == []


def test_a_long_training_with_many_classes_has_a_small_page(copy: Run):
    """300 epochs with 500 rows each, 1,000 classes, and 20,000 evaluated images that are gone."""
    with open(copy.path / "metrics.csv", "w") as file:
        file.write("epoch,step,lr,train/loss,val/loss,val/top1,val/top5,val_ema/loss,val_ema/top1,val_ema/top5\n")
        for step in range(1, 150_001):
            epoch = (step + 499) // 500
            file.write(f"{epoch},{step},0.1,{1000 / step + step % 7},,,,,,\n")
            if step % 500 == 0:
                file.write(f"{epoch},{step},,,1.5,0.5,0.9,1.25,{epoch / 1000},0.9\n")
    random = np.random.default_rng(0)
    targets, predicted = random.integers(0, 1000, (2, 20_000))
    content = evaluation_of(copy) | {"data": "/nowhere"}
    metrics = content["networks"]["ema"]
    metrics["per_class"] = [{"class": f"n{number:08}", "images": 20, "top1": 0.5} for number in range(1000)]
    pairs, counts = np.unique(np.stack([targets, predicted], 1), axis=0, return_counts=True)
    metrics["confusion"] = [[*pair, count] for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True)]
    content["networks"] = {"ema": metrics}
    (copy.path / "evaluations/best-val.json").write_text(json.dumps(content))
    shares = random.random((20_000, 1)).astype(np.float32)
    paths = np.array([b"a.jpg"] * 20_000)
    arrays = {"paths": paths, "targets": targets, "ema_classes": predicted[:, None], "ema_probabilities": shares}
    np.savez(copy.path / "evaluations/best-val.npz", **arrays)
    found = build_page([copy])
    assert set(found.left_out) == {"Worst mistakes", "Most confused pairs"}
    assert len(found.text.encode()) < 1_500_000
    assert "30.00 %" in PageReader(found.text).text["status"]
    assert "20 of 1,000 classes" in found.text


def test_matplotlib_is_named_with_the_command_that_installs_it(
    reported: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("resnext.report.plots.is_available", lambda: False)
    assert run_verb(["report", str(reported.path)]) == 2
    line = "a report needs matplotlib, which is not installed: pip install -e '.[report]' installs it"
    assert capsys.readouterr() == ("", f"resnext report: {line}\n")


@pytest.mark.parametrize(
    ("target", "reason"), [("nowhere/a.html", "No such file"), ("folder", "is a folder"), ("link", "is a device")]
)
def test_a_page_that_cannot_be_written_is_one_line(
    copy: Run, target: str, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("resnext.report.plots.render", lambda *arguments, **sizes: Html("<svg></svg>"))
    Path("folder").mkdir()
    Path("link").symlink_to("/dev/null")
    assert run_verb(["report", str(copy.path), "--output", target]) == 2
    assert Path("link").is_symlink()
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
    assert [path.name for path in Path().rglob("*.html*")] == []
