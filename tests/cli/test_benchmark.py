"""`resnext benchmark`: its output. These tests do not check how fast the code is."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnext.__main__ import run_verb
from resnext.bench import data_path as benchmark
from resnext.bench.data_path import PEERS, read_jpegs
from resnext.data import index_cache


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(benchmark, "ROUNDS", 2)
    monkeypatch.setattr(benchmark, "LOADER_ROUNDS", 1)
    monkeypatch.setattr(benchmark, "LOADER_IMAGES", 8)
    folder = tmp_path / "photos/train/cat"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    for number in range(3):
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    Image.fromarray(pixels).convert("CMYK").save(folder / "cmyk.jpg")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8")
    Image.fromarray(pixels).save(folder / "another.png")
    return folder.parents[1]


def test_json_is_one_object_with_the_promised_keys(photos: Path, capsys: pytest.CaptureFixture[str]):
    assert run_verb(["benchmark", "data", "--images", str(photos), "--workers", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["ratio"]) == {"ours", "pil_torchvision", "torchvision_v2", "timm"}
    assert found["ratio"]["pil_torchvision"] == 1.0
    assert found["loader"]["ours"]["bytes_per_image"] == 224 * 224 * 3
    assert found["loader"]["pil_torchvision"]["bytes_per_image"] == 4 * 224 * 224 * 3


def test_a_pack_adds_one_row(photos: Path, capsys: pytest.CaptureFixture[str]):
    (photos / "val/cat").mkdir(parents=True)
    (photos / "train/cat/0.jpg").rename(photos / "val/cat/0.jpg")
    assert run_verb(["prepare", "pack", str(photos), "pack", "--short-side", "64"]) == 0
    assert run_verb(["benchmark", "data", "--images", str(photos), "--pack", "pack", "--workers", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("ours, on the pack") for line in lines)
    assert max(map(len, lines[3:])) <= 80  # the first lines hold paths, which may be longer


def test_every_compared_library_makes_crops_of_the_same_size(photos: Path):
    data = read_jpegs(photos).files[0]
    assert {tuple(build()(data).shape) for build in PEERS.values()} == {(3, 224, 224)}


def test_a_folder_without_photos_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run_verb(["benchmark", "data", "--images", str(tmp_path)]) == 2
    assert "has no JPEG files: give a folder of photos, or a pack" in capsys.readouterr().err


def test_benchmark_index_prints_its_lines(
    image_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert run_verb(["benchmark", "index", str(image_folder)]) == 2
    assert "was not saved: the folder has just changed (try again)" in capsys.readouterr().err
    monkeypatch.setattr(index_cache, "CLOCK_TICK_NS", 0)
    assert run_verb(["benchmark", "index", str(image_folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"17 images below {image_folder}"
    assert len(lines) == 3
