"""Every file is looked at once: what is damaged is found early, and later starts look at nothing again."""

import json
import os
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnext.data import image_check, index_cache
from resnext.data.image_check import ImageCheck
from resnext.data.image_file import looks_whole
from resnext.data.index_cache import load_splits
from resnext.errors import UserError
from support.old_folders import age, settle
from support.small_run import make_run, small_config

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
KINDS = ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM"]


def encode(kind: str) -> bytes:
    buffer = BytesIO()
    NOISE.save(buffer, kind)
    return buffer.getvalue()


def look(root: Path, allowed: int = 0) -> None:
    """What a start does, and what it raises."""
    check = ImageCheck(root, *load_splits(root), allowed, Path("damaged.txt"))
    check.start()
    check._thread.join()
    check.report()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_look_whole(tmp_path: Path, kind: str):
    (tmp_path / "image").write_bytes(encode(kind))
    assert looks_whole(tmp_path / "image")


@pytest.mark.parametrize("kind", KINDS[:4])
def test_truncated_files_do_not(tmp_path: Path, kind: str):
    whole = encode(kind)
    for length in range(0, len(whole) - 1, 97):
        (tmp_path / "image").write_bytes(whole[:length])
        assert not looks_whole(tmp_path / "image")


def test_whole_images_are_no_finding(image_folder: Path):
    look(image_folder)
    assert not Path("damaged.txt").exists()


def test_a_truncated_validation_image_is_named(image_folder: Path):
    path = image_folder / "val/dog/1.png"
    truncate(path)
    with pytest.raises(UserError, match=rf"^{path} cannot be read as an image \(.*truncated.*\): replace it") as error:
        look(image_folder, allowed=100)
    assert "\n" not in str(error.value)


def test_several_are_counted_and_listed(image_folder: Path):
    for number in range(3):
        truncate(image_folder / f"val/cat/{number}.png")
    with pytest.raises(UserError, match=r"^3 validation images cannot be read \(damaged.txt lists them\); .*cat/0.png"):
        look(image_folder)
    lines = Path("damaged.txt").read_text().splitlines()
    assert [re.search(r"cat/(\d)", line)[1] for line in lines] == ["0", "1", "2"]


def test_training_images_are_refused_beyond_the_budget(image_folder: Path, caplog: pytest.LogCaptureFixture):
    for number in range(2):
        truncate(image_folder / f"train/cat/{number}.png")
    with pytest.raises(UserError, match=r"^2 training images .*; data.max_skipped=2 would leave 2 training images out"):
        look(image_folder, allowed=1)
    look(image_folder, allowed=2)
    assert "2 training images cannot be read and will be left out: damaged.txt" in caplog.text


def test_a_file_that_only_looks_damaged_is_none(image_folder: Path):
    """Pillow and simplejpeg decode it: what follows the end marker harms no pixel."""
    (image_folder / "val/cat/0.png").write_bytes(encode("JPEG") + b"appended by some camera" * 3)
    assert not looks_whole(image_folder / "val/cat/0.png")
    look(image_folder)


def test_storage_that_fails_is_no_finding(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(*arguments, **options):
        raise OSError(5, "Input/output error")

    splits = load_splits(image_folder)
    check = ImageCheck(image_folder, *splits, 0, Path("damaged.txt"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        check.start()
        check._thread.join()
    check.report()
    assert "not every image was looked at" in caplog.text


def test_later_starts_replace_the_list(image_folder: Path, caplog: pytest.LogCaptureFixture):
    """Both splits' images are in it, each once."""
    for name in ("val/cat/0.png", "train/cat/3.png"):
        truncate(image_folder / name)
    for _ in range(3):
        check = ImageCheck(image_folder, *load_splits(image_folder), 1, Path("damaged.txt"))
        check._allowed["validation"] = 1
        check.start()
        check._thread.join()
        check.report()
    lines = Path("damaged.txt").read_text().splitlines()
    assert [re.search(r"\w+/cat/\d", line)[0] for line in lines] == ["val/cat/0", "train/cat/3"]


def test_a_list_that_cannot_be_written_is_a_warning(image_folder: Path, caplog: pytest.LogCaptureFixture):
    Path("damaged.txt").mkdir()
    truncate(image_folder / "train/cat/3.png")
    look(image_folder, allowed=1)
    assert "damaged.txt cannot be written: " in caplog.text


@pytest.mark.parametrize("broken", ["looks_whole", "load_damaged"])
def test_any_error_is_a_warning(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
):
    """A thread that dies silently would leave its images unseen, and the split marked as looked at."""

    def fail(*arguments):
        raise RuntimeError("nobody expects it")

    kept: list[object] = []
    monkeypatch.setattr(image_check, "keep_damaged", lambda *arguments: kept.append(arguments))
    monkeypatch.setattr(image_check, broken, fail)
    look(image_folder)
    assert "not every image was looked at: RuntimeError: nobody expects it" in caplog.text
    assert not kept


def test_the_plugins_of_pil_are_imported_before_the_threads_start(image_folder: Path, monkeypatch: pytest.MonkeyPatch):
    """An import that a thread has begun when the validation's loader processes are forked never ends in them."""
    monkeypatch.setattr(Image, "_initialized", 0)  # as in a new process
    states: list[int] = []
    monkeypatch.setattr(image_check, "looks_whole", lambda path: states.append(Image._initialized) or looks_whole(path))
    look(image_folder)
    assert set(states) == {2}  # all plugins


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every file that is looked at."""
    paths: list[str] = []
    monkeypatch.setattr(image_check, "looks_whole", lambda path: paths.append(path.name) or looks_whole(path))
    return paths


def test_a_later_start_looks_only_at_what_was_damaged(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch, looked_at: list[str]
):
    truncate(image_folder / "train/cat/3.png")
    age(image_folder)
    settle(monkeypatch)
    look(image_folder, allowed=1)
    assert len(looked_at) == 17
    looked_at.clear()
    look(image_folder, allowed=1)
    assert looked_at == ["3.png"]


def test_a_changed_folder_is_looked_at_anew(image_folder: Path, monkeypatch: pytest.MonkeyPatch, looked_at: list[str]):
    settle(monkeypatch)
    look(image_folder)
    looked_at.clear()
    (image_folder / "val/cat/0.png").rename(image_folder / "val/cat/new.png")
    settle(monkeypatch)
    look(image_folder)
    assert len(looked_at) == 17


def test_what_another_process_listed_anew_is_looked_at(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch, looked_at: list[str]
):
    """The results are those of the images that this process listed, not of the index that lies there now."""
    settle(monkeypatch)
    check = ImageCheck(image_folder, *load_splits(image_folder), 0, Path("damaged.txt"))
    (image_folder / "val/cat/0.png").rename(image_folder / "val/cat/new.png")
    settle(monkeypatch)
    load_splits(image_folder)  # the other process
    check.start()
    check._thread.join()
    looked_at.clear()
    look(image_folder)
    assert len(looked_at) == 17


@pytest.mark.parametrize("damaged", ["[1]", "null", '{"training": 1}', '{"training": ["3"]}', '{"training": [-1]}'])
def test_memories_of_other_types_are_passed_over(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looked_at: list[str], damaged: str
):
    settle(monkeypatch)
    look(image_folder)
    looked_at.clear()
    (kept,) = (tmp_path / "cache/resnext").glob(f"*{index_cache.DAMAGED}")
    kept.write_text(f'{{"index": {json.loads(kept.read_text())["index"]}, "damaged": {damaged}}}')
    look(image_folder)
    assert len(looked_at) == 17


@pytest.mark.parametrize("content", ["", "[1]", '{"index": 1}', "null"])
def test_damaged_memories_are_passed_over(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looked_at: list[str], content: str
):
    settle(monkeypatch)
    look(image_folder)
    looked_at.clear()
    (kept,) = (tmp_path / "cache/resnext").glob(f"*{index_cache.DAMAGED}")
    kept.write_text(content)
    look(image_folder)
    assert len(looked_at) == 17


def test_a_training_ends_before_its_first_epoch_is_over(image_folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The check is waited for here, as twelve images are one moment."""
    from resnext.training.fit import fit

    truncate(image_folder / "val/dog/1.png")
    start = ImageCheck.start
    monkeypatch.setattr(ImageCheck, "start", lambda check: (start(check), check._thread.join()))
    run = make_run(small_config(image_folder, recipe__batch_size=4))
    with pytest.raises(UserError, match=r"val/dog/1.png cannot be read as an image"):
        fit(run)
    assert not run.summary.get("steps")
