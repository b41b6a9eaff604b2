"""Every image file is checked once: damaged files are found early, and later starts check only those again."""

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
from resnext.data.image_file import looks_complete
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


def check_images(root: Path, allowed: int = 0) -> None:
    """Checks the images like a start of a run, and raises its error."""
    check = ImageCheck(root, *load_splits(root), allowed, Path("damaged.txt"))
    check.start()
    check._thread.join()
    check.report()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize("kind", KINDS)
def test_complete_files_pass_the_check(tmp_path: Path, kind: str):
    (tmp_path / "image").write_bytes(encode(kind))
    assert looks_complete(tmp_path / "image")


@pytest.mark.parametrize("kind", KINDS[:4])
def test_truncated_files_fail_the_check(tmp_path: Path, kind: str):
    whole = encode(kind)
    for length in range(0, len(whole) - 1, 97):
        (tmp_path / "image").write_bytes(whole[:length])
        assert not looks_complete(tmp_path / "image")


def test_a_folder_of_complete_images_gives_no_error(image_folder: Path):
    check_images(image_folder)
    assert not Path("damaged.txt").exists()


def test_the_error_names_a_truncated_validation_image(image_folder: Path):
    path = image_folder / "val/dog/1.png"
    truncate(path)
    with pytest.raises(UserError, match=rf"^{path} cannot be read as an image \(.*truncated.*\): replace it") as error:
        check_images(image_folder, allowed=100)
    assert "\n" not in str(error.value)


def test_several_damaged_images_are_counted_and_listed(image_folder: Path):
    for number in range(3):
        truncate(image_folder / f"val/cat/{number}.png")
    with pytest.raises(UserError, match=r"^3 validation images cannot be read \(damaged.txt lists them\); .*cat/0.png"):
        check_images(image_folder)
    lines = Path("damaged.txt").read_text().splitlines()
    assert [re.search(r"cat/(\d)", line)[1] for line in lines] == ["0", "1", "2"]


def test_more_damaged_training_images_than_the_budget_are_refused(image_folder: Path, caplog: pytest.LogCaptureFixture):
    for number in range(2):
        truncate(image_folder / f"train/cat/{number}.png")
    with pytest.raises(UserError, match=r"^2 training images .*; data.max_skipped=2 would skip 2 training images"):
        check_images(image_folder, allowed=1)
    check_images(image_folder, allowed=2)
    assert "2 training images cannot be read and will be skipped; see damaged.txt" in caplog.text


def test_a_file_that_only_looks_damaged_gives_no_error(image_folder: Path):
    """Pillow and simplejpeg decode it: bytes after the end marker change no pixel."""
    (image_folder / "val/cat/0.png").write_bytes(encode("JPEG") + b"appended by some camera" * 3)
    assert not looks_complete(image_folder / "val/cat/0.png")
    check_images(image_folder)


def test_failing_storage_is_not_reported_as_damage(
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
    assert "not every image was checked" in caplog.text


def test_later_starts_replace_the_list(image_folder: Path, caplog: pytest.LogCaptureFixture):
    """The list holds the images of both splits, each once."""
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


def test_a_list_that_cannot_be_written_gives_a_warning(image_folder: Path, caplog: pytest.LogCaptureFixture):
    Path("damaged.txt").mkdir()
    truncate(image_folder / "train/cat/3.png")
    check_images(image_folder, allowed=1)
    assert "damaged.txt cannot be written: " in caplog.text


@pytest.mark.parametrize("broken", ["looks_complete", "load_damaged"])
def test_any_other_error_gives_a_warning(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
):
    """If a thread died silently, its images would remain unchecked while the split is marked as checked."""

    def fail(*arguments):
        raise RuntimeError("unexpected")

    kept: list[object] = []
    monkeypatch.setattr(image_check, "save_damaged", lambda *arguments: kept.append(arguments))
    monkeypatch.setattr(image_check, broken, fail)
    check_images(image_folder)
    assert "not every image was checked: RuntimeError: unexpected" in caplog.text
    assert not kept


def test_the_plugins_of_pil_are_imported_before_the_threads_start(image_folder: Path, monkeypatch: pytest.MonkeyPatch):
    """If a thread is importing a module when the validation's workers are forked, the import never ends in a worker."""
    monkeypatch.setattr(Image, "_initialized", 0)  # as in a new process
    states: list[int] = []
    monkeypatch.setattr(
        image_check, "looks_complete", lambda path: states.append(Image._initialized) or looks_complete(path)
    )
    check_images(image_folder)
    assert set(states) == {2}  # all plugins


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records every file that is checked."""
    paths: list[str] = []
    monkeypatch.setattr(image_check, "looks_complete", lambda path: paths.append(path.name) or looks_complete(path))
    return paths


def test_a_later_start_checks_only_damaged_files(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch, checked: list[str]
):
    truncate(image_folder / "train/cat/3.png")
    age(image_folder)
    settle(monkeypatch)
    check_images(image_folder, allowed=1)
    assert len(checked) == 17
    checked.clear()
    check_images(image_folder, allowed=1)
    assert checked == ["3.png"]


def test_a_changed_folder_is_checked_again(image_folder: Path, monkeypatch: pytest.MonkeyPatch, checked: list[str]):
    settle(monkeypatch)
    check_images(image_folder)
    checked.clear()
    (image_folder / "val/cat/0.png").rename(image_folder / "val/cat/new.png")
    settle(monkeypatch)
    check_images(image_folder)
    assert len(checked) == 17


def test_files_that_another_process_listed_meanwhile_are_checked(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch, checked: list[str]
):
    """The results belong to the images that this process listed, not to the newer index on the disk."""
    settle(monkeypatch)
    check = ImageCheck(image_folder, *load_splits(image_folder), 0, Path("damaged.txt"))
    (image_folder / "val/cat/0.png").rename(image_folder / "val/cat/new.png")
    settle(monkeypatch)
    load_splits(image_folder)  # the other process
    check.start()
    check._thread.join()
    checked.clear()
    check_images(image_folder)
    assert len(checked) == 17


@pytest.mark.parametrize("damaged", ["[1]", "null", '{"training": 1}', '{"training": ["3"]}', '{"training": [-1]}'])
def test_stored_results_of_other_types_are_ignored(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checked: list[str], damaged: str
):
    settle(monkeypatch)
    check_images(image_folder)
    checked.clear()
    (kept,) = (tmp_path / "cache/resnext").glob(f"*{index_cache.DAMAGED}")
    kept.write_text(f'{{"index": {json.loads(kept.read_text())["index"]}, "damaged": {damaged}}}')
    check_images(image_folder)
    assert len(checked) == 17


@pytest.mark.parametrize("content", ["", "[1]", '{"index": 1}', "null"])
def test_damaged_stored_results_are_ignored(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checked: list[str], content: str
):
    settle(monkeypatch)
    check_images(image_folder)
    checked.clear()
    (kept,) = (tmp_path / "cache/resnext").glob(f"*{index_cache.DAMAGED}")
    kept.write_text(content)
    check_images(image_folder)
    assert len(checked) == 17


def test_a_damaged_image_ends_the_training_in_its_first_epoch(image_folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Here the training waits for the check, because an epoch of twelve images is too short."""
    from resnext.training.fit import fit

    truncate(image_folder / "val/dog/1.png")
    start = ImageCheck.start
    monkeypatch.setattr(ImageCheck, "start", lambda check: (start(check), check._thread.join()))
    run = make_run(small_config(image_folder, recipe__batch_size=4))
    with pytest.raises(UserError, match=r"val/dog/1.png cannot be read as an image"):
        fit(run)
    assert not run.summary.get("steps")
