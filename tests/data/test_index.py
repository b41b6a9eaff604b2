"""Reading an image folder, and every mistake that a folder can have."""

import os
import re
import shutil
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from resnext.config.data import DataConfig
from resnext.data.decode import UnreadableImage
from resnext.data.images import load_images
from resnext.data.index import ImageIndex
from resnext.errors import UserError
from support.small_run import write_images


def load(root: Path, num_classes: int | None = None) -> tuple[ImageIndex, ImageIndex]:
    return load_images(DataConfig(name="image_folder", root=str(root), num_classes=num_classes))


def test_images_and_labels_equal_torchvisions(image_folder: Path):
    write_images(image_folder, {"train/cat/nested": 2})
    train, _ = load(image_folder)
    theirs = ImageFolder(str(image_folder / "train"))
    assert train.classes == tuple(theirs.classes)
    ours = {(str(train.path(image)), int(train.labels[image])) for image in range(len(train))}
    assert ours == set(theirs.samples)


def test_validation_labels_come_from_the_training_classes(image_folder: Path):
    """If val/ has no folder for a class, torchvision's ImageFolder shifts the labels: dog would be 0 here."""
    shutil.rmtree(image_folder / "val/cat")
    _, val = load(image_folder)
    assert val.labels.tolist() == [1, 1]
    assert val.find_empty_classes() == ["cat"]


def test_other_files_and_hidden_files_are_ignored(image_folder: Path):
    before, _ = load(image_folder)
    (image_folder / "train/cat/notes.txt").write_text("no image")
    (image_folder / "train/cat/.hidden.png").write_bytes(b"")
    (image_folder / "train/.ipynb_checkpoints").mkdir()
    after, _ = load(image_folder)
    assert after.fingerprint == before.fingerprint


def test_images_of_a_suffix_that_is_not_read_are_counted(image_folder: Path):
    before = load(image_folder)
    for name in ("train/cat/a.GIF", "train/cat/b.gif", "train/dog/.c.gif", "train/dog/d.heic", "train/dog/e.txt"):
        (image_folder / name).touch()
    train, val = load(image_folder)
    assert (train.unread, val.unread) == ({".gif": 2, ".heic": 1}, {})
    assert [train.fingerprint, val.fingerprint] == [index.fingerprint for index in before]


@pytest.mark.parametrize("name", ["validation", "valid"])
def test_other_names_of_val_are_accepted(image_folder: Path, name: str):
    before = load(image_folder)
    (image_folder / "val").rename(image_folder / name)
    train, val = load(image_folder)
    assert val.root == image_folder / name
    assert [train.fingerprint, val.fingerprint] == [index.fingerprint for index in before]
    write_images(image_folder, {"val/cat": 1})
    with pytest.raises(UserError, match=f"has val/ and {name}/: keep one of them for validation, and move the others"):
        load(image_folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "train/cat/0.png").rename(root / "train/cat/9.png"),
        lambda root: (root / "train/cat/0.png").rename(root / "train/dog/9.png"),
        lambda root: (root / "train/cat/0.png").unlink(),
        lambda root: (root / "train/cat").rename(root / "train/kitten"),
    ],
)
def test_changed_data_changes_the_fingerprint(image_folder: Path, change):
    before, _ = load(image_folder)
    shutil.rmtree(image_folder / "val/cat")
    change(image_folder)
    assert load(image_folder)[0].fingerprint != before.fingerprint


def test_names_that_are_not_utf8_work(image_folder: Path):
    shutil.copy(image_folder / "train/cat/0.png", os.fsencode(image_folder / "train/cat") + b"/\xff\xfe.png")
    train, _ = load(image_folder)
    assert len(train) == 13
    assert all(train.path(image).is_file() for image in range(len(train)))
    assert all(train.read(image) for image in range(len(train)))
    assert any(train.name(image).endswith(r"cat/\xff\xfe.png") for image in range(len(train)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: shutil.rmtree(root), "data.root={root} does not exist: give the folder"),
        (lambda root: shutil.rmtree(root / "train"), "{root}/train does not exist: .* but it has val"),
        (lambda root: shutil.rmtree(root / "val"), "{root}/val does not exist: .* but it has train"),
        (lambda root: write_images(root, {"val/bird": 1}), r"val has 1 class that train/ does not have \(bird\)"),
        (lambda root: (root / "train/bird").mkdir(), "{root}/train/bird has no images .*: add some, or remove"),
        (
            lambda root: unread(root / "train/bird"),
            "train/bird has no images that can be read, only 2 .gif, 1 .heic: con",
        ),
        (
            lambda root: (empty(root / "val"), unread(root / "val/cat")),
            "{root}/val has no images in its class folders that can be read, only 2 .gif, 1 .heic: convert",
        ),
        (lambda root: flatten(root / "val"), "{root}/val has 5 images and no class folders: sort the images into"),
        (lambda root: flatten(root / "train"), "{root}/train has 12 images and no class folders"),
        (lambda root: empty(root / "val"), "{root}/val has no images in its class folders"),
        (lambda root: (root / "train/bird").symlink_to("nowhere"), "train/bird is a broken link: repair it"),
        (lambda root: replace_by_file(root), "data.root={root} is not a folder"),
    ],
)
def test_a_wrong_folder_gives_one_line_with_the_remedy(image_folder: Path, change, message: str):
    change(image_folder)
    with pytest.raises(UserError, match=message.format(root=re.escape(str(image_folder)))) as error:
        load(image_folder)
    assert "\n" not in str(error.value)


def test_another_number_of_classes_is_refused(image_folder: Path):
    with pytest.raises(UserError, match=r"data.num_classes=10, but .*train has 2 classes; give data.num_classes=2"):
        load(image_folder, num_classes=10)


def test_the_error_names_an_unreadable_folder(image_folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The permission error is simulated, because root may read every folder."""
    scandir = os.scandir

    def refuse(path: Path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="train/dog cannot be read: Permission denied"):
        load(image_folder)


def flatten(split: Path) -> None:
    for number, image in enumerate(sorted(split.glob("*/*.png"))):
        image.rename(split / f"{number}.png")
    empty(split)


def unread(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name in ("1.gif", "2.GIF", "3.heic", "notes.txt"):
        (folder / name).touch()


def empty(split: Path) -> None:
    for folder in split.iterdir():
        if folder.is_dir() and not list(folder.glob("*")):
            folder.rmdir()
        elif folder.is_dir():
            for image in folder.iterdir():
                image.unlink()


def replace_by_file(root: Path) -> None:
    shutil.rmtree(root)
    root.write_text("")


def test_the_error_names_a_dangling_link_when_it_is_read(image_folder: Path):
    (image_folder / "train/cat/link.png").symlink_to("nowhere.png")
    train, _ = load(image_folder)
    image = next(image for image in range(len(train)) if train.path(image).name == "link.png")
    with pytest.raises(
        UserError, match=r"cat/link.png cannot be read as an image \(No such file or directory\): replace"
    ):
        train.read(image)


def sparse(path: Path) -> None:
    """Makes a sparse file of eight gigabytes, which takes no space."""
    with path.open("wb") as file:
        file.truncate(2**33)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (sparse, "8,589,934,592 bytes are more than the limit of 536,870,912"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to("/dev"), "not a regular file"),
    ],
)
def test_a_file_that_cannot_be_read_to_its_end_is_refused(image_folder: Path, make, reason: str):
    """Reading it would hang or fill the memory."""
    train, _ = load(image_folder)
    path = train.path(0)
    path.unlink()
    make(path)
    with pytest.raises(UnreadableImage, match=rf"^{path} cannot be read as an image \({reason}\): replace it") as error:
        train.read(0)
    assert error.value.is_damaged  # so data.max_skipped may skip it
