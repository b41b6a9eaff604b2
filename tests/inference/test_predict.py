"""Prediction of images outside a dataset: the rows, their order, unreadable files, and the Python interface."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from resnext.__main__ import run_verb
from resnext.errors import UserError
from resnext.inference.network import load_network
from resnext.inference.predict import Predictor
from resnext.run.directory import Run
from resnext.training.fit import fit
from support.small_run import make_run, small_config, write_images

CLASSES = {"=cat": 16, "dog, old": 16, 'a "cow"': 16}  # names that a CSV file or a spreadsheet may misread
FLOATS = np.zeros((3, 9, 9), dtype=np.float32)
EVALUATION = {"image_size": 12, "crop_pct": 0.75, "interpolation": "bicubic"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/test, trained on three classes."""
    folder = tmp_path_factory.mktemp("trained")
    write_images(
        folder / "images", {f"{split}/{name}": count for name, count in CLASSES.items() for split in ("train", "val")}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        changes = {"recipe__evaluation": EVALUATION, "data__mean": [0.3, 0.4, 0.5], "recipe__ema": {"decay": 0.9}}
        fit(make_run(small_config(folder / "images", recipe__batch_size=16, **changes)))
    return folder / "runs/test"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twenty photos of other sizes in two folders, a hidden file and a text."""
    folder = tmp_path / "photos"
    random = np.random.default_rng(1)
    for number in range(20):
        height, width = random.integers(9, 40, 2)
        path = folder / ("b" if number % 2 else "a/deeper") / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    (folder / ".hidden.png").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    return folder


def expected(trained: Path, paths: list[Path]) -> torch.Tensor:
    """Probabilities by torchvision's transforms, one image at a time: float32 [N, classes]."""
    network, metadata, *_ = load_network(trained / "checkpoints/best.ckpt")
    prepare = v2.Compose([v2.Resize(16, v2.InterpolationMode.BICUBIC), v2.CenterCrop(12)])
    steps = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(metadata.mean, metadata.std)])
    with torch.inference_mode():
        return torch.cat([network(steps(prepare(Image.open(path)))[None]).softmax(dim=1) for path in paths])


def predict(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, list[dict[str, str]], str]:
    """The exit code, the rows of the CSV output, and stderr."""
    code = run_verb(["predict", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, list(csv.DictReader(io.StringIO(printed.out, newline=""))), printed.err


@pytest.mark.parametrize("size", [1, 3, 8, 64])
def test_rows_have_the_order_and_the_probabilities_of_the_images(
    trained: Path, photos: Path, size: int, capsys: pytest.CaptureFixture[str]
):
    paths = sorted((photos / "a").rglob("*.png")) + sorted((photos / "b").glob("*.png"))
    code, rows, errors = predict(capsys, trained, photos, "--topk", "2", "--batch-size", size)
    assert (code, errors) == (0, "")
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    assert list(rows[0]) == ["path", "class_1", "probability_1", "class_2", "probability_2"]
    values, labels = expected(trained, paths).topk(2, dim=1)
    names = sorted(CLASSES)
    for row, value, label in zip(rows, values.tolist(), labels.tolist(), strict=True):
        assert [row["class_1"].removeprefix("'"), row["class_2"].removeprefix("'")] == [names[each] for each in label]
        assert [float(row["probability_1"]), float(row["probability_2"])] == pytest.approx(value, rel=1e-4)


def test_json_lines_hold_the_same_predictions(trained: Path, photos: Path, capsys: pytest.CaptureFixture[str]):
    _, rows, _ = predict(capsys, trained, photos)
    assert run_verb(["predict", str(trained), str(photos), "--format", "jsonl", "--output", "p.jsonl"]) == 0
    lines = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == [row["path"] for row in rows]
    for line, row in zip(lines, rows, strict=True):
        assert [each["class"] for each in line["predictions"]] == [
            row[f"class_{n}"].removeprefix("'") for n in (1, 2, 3)
        ]
        assert [each["probability"] for each in line["predictions"]] == [
            float(row[f"probability_{n}"]) for n in (1, 2, 3)
        ]


def test_unreadable_files_are_named_and_left_out(trained: Path, photos: Path, capsys: pytest.CaptureFixture[str]):
    good = photos / "b/01.png"
    odd = {'a, "b".png': good, "line\nbreak.png": good, "=1+1.png": good}
    for name, source in odd.items():
        shutil.copy(source, name)
    Path("text.jpg").write_text("not an image")
    Path("cut.png").write_bytes(good.read_bytes()[:-40])
    code, rows, errors = predict(capsys, trained, "=1+1.png", "text.jpg", 'a, "b".png', "cut.png", "line\nbreak.png")
    assert code == 1
    assert [row["path"] for row in rows] == ["./=1+1.png", 'a, "b".png', "line\nbreak.png"]
    assert len({row["probability_1"] for row in rows}) == 1
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
    text, cut, count = errors.splitlines()
    assert text == "resnext predict: text.jpg cannot be read: a format that Pillow does not know"
    assert cut.startswith("resnext predict: cut.png cannot be read: ")
    assert count == "resnext predict: 2 of 5 files cannot be read"
    assert predict(capsys, trained, "text.jpg", good, "--allow-unreadable")[0] == 0
    assert predict(capsys, trained, "text.jpg")[:2] == (1, [])


def test_a_pattern_a_file_and_a_list_on_stdin_give_their_files(
    trained: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    listed = [photos / "b/03.png", photos / "b/01.png", photos / "a"]
    text = "\n".join(map(str, listed)) + "\n\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    _, rows, _ = predict(capsys, trained, photos / "b/05.png", f"{photos}/b/1*.png", "-")
    b = [photos / f"b/{name}.png" for name in ("05", "11", "13", "15", "17", "19", "03", "01")]
    assert [row["path"] for row in rows] == [str(path) for path in (*b, *sorted((photos / "a").rglob("*.png")))]


def test_mistakes_give_one_line(trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "empty").mkdir()
    for arguments, message in {
        (trained, "nowhere.jpg"): "'nowhere.jpg' does not exist: give image files, folders, patterns",
        (trained, f"{photos}/*.tif"): f"'{photos}/*.tif' does not exist: give image files",
        (trained, tmp_path / "empty"): f"{tmp_path}/empty and its subfolders have no images (.jpg, ",
        (trained, photos, "--topk", "0"): "argument --topk: 0 is not a positive integer",
        (trained,): "the following arguments are required: PATH",
        (photos / "b/01.png", photos): f"{photos}/b/01.png is neither a run, a checkpoint nor a safetensors file",
        (tmp_path / "empty", photos): f"{tmp_path}/empty is not a run directory",
        (
            trained,
            photos,
            "--output",
            tmp_path / "empty",
        ): f"--output {tmp_path}/empty is a folder",
        (trained, photos, "--output", "/nowhere/x.csv"): "--output /nowhere/x.csv: the folder /nowhere does not exist",
    }.items():
        code, rows, errors = predict(capsys, *arguments)
        assert (code, rows) == (2, [])
        assert errors.startswith(f"resnext predict: {message}")
        assert errors.count("\n") == 1


def test_a_failure_leaves_the_earlier_output(trained: Path, photos: Path, tmp_path: Path):
    Path("rows.csv").write_text("earlier")
    (tmp_path / "empty").mkdir()
    assert run_verb(["predict", str(trained), str(photos), str(tmp_path / "empty"), "--output", "rows.csv"]) == 2
    assert Path("rows.csv").read_text() == "earlier"
    assert run_verb(["predict", str(trained), str(photos), "--output", "rows.csv"]) == 0
    assert len(Path("rows.csv").read_text().splitlines()) == 21
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".rows")] == []


@pytest.mark.processes
def test_names_that_are_not_unicode_are_kept(trained: Path, photos: Path, tmp_path: Path):
    """As a process of its own: stdout and the arguments are bytes."""
    name = os.fsencode(tmp_path) + b"/\xff.png"
    shutil.copy(photos / "b/01.png", name)
    command = [sys.executable, "-m", "resnext", "predict", os.fsencode(trained), name]
    found = subprocess.run(command, capture_output=True, check=True, timeout=300)
    assert found.stdout.splitlines()[1].startswith(b'"' + name + b'",')


def test_the_predictor_takes_paths_pictures_and_arrays(trained: Path, photos: Path, tmp_path: Path):
    path = photos / "b/01.png"
    alone = shutil.copy(trained / "checkpoints/best.ckpt", tmp_path / "alone.ckpt")
    for predictor in (Predictor.from_run(trained), Predictor.from_run(alone)):
        found = predictor([path, str(path), Image.open(path), np.asarray(Image.open(path))], topk=3)
        probabilities = dict(zip(sorted(CLASSES), expected(trained, [path])[0].tolist(), strict=True))
        for guesses in found:
            assert [each.name for each in guesses] == sorted(CLASSES, key=lambda name: -probabilities[name])
            assert [each.probability for each in guesses] == pytest.approx(
                sorted(probabilities.values())[::-1], rel=1e-5
            )
        assert predictor([]) == []
    mistakes = {
        r"^nowhere.png cannot be read as an image: No such file": lambda: predictor(["nowhere.png"]),
        r"^an image array must be uint8 \[height, width, 3\], not float32 \[3, 9, 9\]": lambda: predictor([FLOATS]),
        r"^give a list of images": lambda: predictor("nowhere.png"),
        r"and a topk of 1 or more$": lambda: predictor([path], topk=0),
    }
    for message, call in mistakes.items():
        with pytest.raises(UserError, match=message):
            call()


def test_a_picture_of_16_bits_is_predicted_like_its_file(trained: Path, tmp_path: Path):
    levels = np.random.default_rng(0).integers(0, 2**16, (20, 20), dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    predictor = Predictor.from_run(trained)
    assert predictor([tmp_path / "deep.png"]) == predictor([Image.open(tmp_path / "deep.png")])


@pytest.mark.processes
def test_an_error_in_this_process_ends_the_workers(trained: Path, photos: Path):
    """As a process of its own, because Python joins the workers at its exit."""
    code = f"""
from resnext.__main__ import main
from resnext.inference.predict import Predictor
def fail(*_): raise RuntimeError("CUDA error")
Predictor.probabilities = fail
main(["predict", {str(trained)!r}, {str(photos)!r}, "--batch-size", "2"])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert found.returncode == 1
    assert found.stderr.endswith("RuntimeError: CUDA error\n")


def test_paths_that_cannot_be_listed_are_unreadable_files(trained: Path, photos: Path, monkeypatch, capsys):
    """A name that is too long, a missing file, an empty folder, and a link to a folder above, which is not followed."""
    Path("empty").mkdir()
    (photos / "b/loop").symlink_to(photos / "b")
    text = "\n".join(["x" * 300, "missing.png", "empty", str(photos / "b")])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    code, rows, errors = predict(capsys, trained, "-")
    assert code == 1
    assert [row["path"] for row in rows] == [str(photos / f"b/{number:02}.png") for number in range(1, 20, 2)]
    reasons = [line.rpartition(": ")[2] for line in errors.splitlines()]
    assert reasons == ["File name too long", "No such file or directory", "2 of 12 files cannot be read"]


def test_a_pattern_of_subfolders_gives_each_file_once(trained: Path, photos: Path, capsys: pytest.CaptureFixture[str]):
    _, rows, _ = predict(capsys, trained, f"{photos}/**/*.png")
    found = [row["path"] for row in rows]
    _, rows, _ = predict(capsys, trained, f"{photos}/b/**")
    assert sorted(found) == sorted(str(path) for path in photos.rglob("[0-9]*.png"))
    assert [row["path"] for row in rows] == [path for path in found if "/b/" in path]


def test_an_empty_list_is_an_error(trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    message = "resnext predict: standard input is empty: give one path per line\n"
    assert predict(capsys, trained, "-") == (2, [], message)


def test_output_keeps_links_and_fifos(trained: Path, photos: Path):
    Path("link.csv").symlink_to("real.csv")
    assert run_verb(["predict", str(trained), str(photos), "--output", "link.csv"]) == 0
    assert Path("link.csv").is_symlink()
    assert len(Path("real.csv").read_text().splitlines()) == 21
    os.mkfifo("fifo.csv")
    reader = subprocess.Popen(["cat", "fifo.csv"], stdout=subprocess.PIPE, text=True)
    assert run_verb(["predict", str(trained), str(photos), "--output", "fifo.csv"]) == 0
    assert reader.communicate(timeout=60)[0] == Path("real.csv").read_text()
    assert Path("fifo.csv").is_fifo()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "it has no state_dict of tensors"),
        ({"metadata": {}}, "it has no state_dict of tensors"),
        ({"state_dict": [1]}, "it has no state_dict of tensors"),
        ({"state_dict": {"a": torch.zeros(1)}}, "does not hold its network, class names and preprocessing"),
    ],
)
def test_another_file_of_torch_is_refused(content: object, message: str):
    torch.save(content, "x.pt")
    with pytest.raises(UserError, match=message):
        Predictor.from_run("x.pt")


def test_paths_are_read_as_they_are_predicted(trained: Path, photos: Path):
    """A list may be longer than memory: with two workers, at most the batches that they prepare are taken from it."""
    taken = 0

    def paths():
        nonlocal taken
        while True:
            taken += 1
            yield str(photos / "b/01.png")

    batches = Predictor.from_run(trained).predict_files(paths(), batch_size=2, workers=2)
    assert [len(next(batches)) for _ in range(5)] == [2] * 5
    assert taken <= 2 * (5 + 2 * 2 + 1)  # DataLoader prefetches two batches for each worker
    batches.close()


def test_a_run_without_a_validated_checkpoint_is_refused(tmp_path: Path, image_folder: Path):
    run = make_run(small_config(image_folder))
    with pytest.raises(UserError, match=r"best.ckpt does not exist: the run is .* and has not written it"):
        Predictor.from_run(Run(run.path).path)
