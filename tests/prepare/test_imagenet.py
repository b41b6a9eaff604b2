"""Preparation of ImageNet from small artificial archives of the same format."""

import hashlib
import os
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from resnext.errors import UserError
from resnext.prepare.imagenet import GROUND_TRUTH, KAGGLE_IMAGES, KAGGLE_SOLUTION, META, Release, prepare_imagenet

WNIDS = ("n01440764", "n01443537", "n01484850")
VAL_IDS = (3, 1, 1, 2, 3)  # ILSVRC2012_ID of each validation image
TRAIN_IMAGES = 2


def tar(path: Path, members: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, BytesIO(data))


def tar_bytes(members: dict[str, bytes], path: Path) -> bytes:
    tar(path, members)
    return path.read_bytes()


def val_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def devkit(folder: Path) -> dict[str, bytes]:
    """The devkit's files. meta.mat holds the leaves of WordNet and its inner nodes, which have children."""
    kind = [(name, object) for name in ("ILSVRC2012_ID", "WNID", "words", "num_children")]
    rows = [(number + 1, wnid, f"words of {wnid}", 0) for number, wnid in enumerate(WNIDS)]
    synsets = np.array([*rows, (4, "n00001740", "entity", 3)], dtype=kind).reshape(-1, 1)
    savemat(folder / "meta.mat", {"synsets": synsets})
    meta = (folder / "meta.mat").read_bytes()
    (folder / "meta.mat").unlink()
    return {META: meta, GROUND_TRUTH: "".join(f"{number}\n" for number in VAL_IDS).encode()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "archives"
    folder.mkdir()
    classes = {
        f"{wnid}.tar": tar_bytes(
            {f"{wnid}_{n}.JPEG": f"{wnid} {n}".encode() for n in range(TRAIN_IMAGES)}, folder / "x"
        )
        for wnid in WNIDS
    }
    (folder / "x").unlink()
    tar(folder / "ILSVRC2012_img_train.tar", classes)
    tar(
        folder / "ILSVRC2012_img_val.tar",
        {val_name(n + 1): f"val {n + 1}".encode() for n in reversed(range(len(VAL_IDS)))},
    )
    tar(folder / "ILSVRC2012_devkit_t12.tar.gz", devkit(folder), "w:gz")
    return folder


def release(source: Path, **changes: object) -> Release:
    """The description of the artificial archives, as a release."""
    names = {split: getattr(Release(), split)[0] for split in ("train", "val", "devkit")}
    md5 = {
        split: (name, hashlib.md5((source / name).read_bytes()).hexdigest() if (source / name).exists() else "")
        for split, name in names.items()
    }
    counts = {"classes": 3, "train_images": 6, "val_images": 5}
    return Release(**{**md5, **counts, **changes})


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


EXPECTED = {f"train/{wnid}/{wnid}_{n}.JPEG": f"{wnid} {n}".encode() for wnid in WNIDS for n in range(TRAIN_IMAGES)} | {
    f"val/{WNIDS[label - 1]}/{val_name(n)}": f"val {n}".encode() for n, label in enumerate(VAL_IDS, 1)
}


def test_the_checksums_of_ilsvrc2012_equal_torchvisions():
    from torchvision.datasets.imagenet import ARCHIVE_META

    theirs = {split: ARCHIVE_META[split] for split in ("train", "val", "devkit")}
    assert {split: getattr(Release(), split) for split in theirs} == theirs
    assert (Release().classes, Release().train_images, Release().val_images) == (1000, 1_281_167, 50_000)


def test_archives_become_class_folders(source: Path, tmp_path: Path):
    assert prepare_imagenet(source, tmp_path / "imagenet", release(source)) == (6, 5)
    assert tree(tmp_path / "imagenet") == EXPECTED
    assert not (tmp_path / "imagenet.part").exists()
    assert prepare_imagenet(source, tmp_path / "imagenet", release(source)) == (6, 5)  # counted, not written again


@pytest.mark.parametrize("after", range(0, 11, 2))
def test_an_interrupted_call_can_be_continued(
    source: Path, tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
):
    extract, calls = tarfile.TarFile.extract, []

    def interrupted(self, member, *arguments, **options):
        if len(calls) == after:
            (Path(arguments[0]) / member.name).write_bytes(b"ha")  # an incomplete file
            raise KeyboardInterrupt
        calls.append(1)
        return extract(self, member, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extract", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare_imagenet(source, tmp_path / "imagenet", release(source))
    assert not (tmp_path / "imagenet").exists()
    monkeypatch.undo()
    assert prepare_imagenet(source, tmp_path / "imagenet", release(source)) == (6, 5)
    assert tree(tmp_path / "imagenet") == EXPECTED


def test_checked_archives_are_not_checked_again(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    right = release(source)
    with pytest.raises(UserError, match="has 6 images in 3 classes, not 7 in 3"):
        prepare_imagenet(source, tmp_path / "imagenet", release(source, train_images=7))
    monkeypatch.setattr(hashlib, "md5", None)
    assert prepare_imagenet(source, tmp_path / "imagenet", right) == (6, 5)


def test_kaggles_layout_is_linked(source: Path, tmp_path: Path):
    kaggle = make_kaggle(tmp_path / "kaggle")
    assert prepare_imagenet(kaggle, tmp_path / "imagenet", release(source)) == (6, 5)
    assert tree(tmp_path / "imagenet") == EXPECTED
    assert (tmp_path / "imagenet/val/n01440764" / val_name(2)).stat().st_nlink == 2


def make_kaggle(root: Path) -> Path:
    lines = ["ImageId,PredictionString"]
    for number, label in enumerate(VAL_IDS, 1):
        lines.append(f"{Path(val_name(number)).stem},{WNIDS[label - 1]} 1 2 3 4 {WNIDS[0]} 5 6 7 8")
    for name, data in EXPECTED.items():
        split, wnid, file = name.split("/")
        path = root / KAGGLE_IMAGES / (f"train/{wnid}" if split == "train" else "val") / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (root / KAGGLE_SOLUTION).write_text("\n".join(lines) + "\n")
    return root


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda source: (source / "ILSVRC2012_img_train.tar").unlink(), "has neither ILSVRC2012_img_train.tar nor"),
        (lambda source: (source / "ILSVRC2012_img_val.tar").unlink(), "ILSVRC2012_img_val.tar does not exist"),
        (lambda source: flip_a_bit(source / "ILSVRC2012_img_val.tar"), "ILSVRC2012_img_val.tar has md5 .* damaged"),
    ],
)
def test_damaged_archives_are_refused(source: Path, tmp_path: Path, damage, message: str):
    right = release(source)
    damage(source)
    with pytest.raises(UserError, match=message):
        prepare_imagenet(source, tmp_path / "imagenet", right)
    assert not (tmp_path / "imagenet").exists()


def test_an_archive_cannot_write_outside_its_folder(source: Path, tmp_path: Path):
    name = source / "ILSVRC2012_img_train.tar"
    inner = tar_bytes({"../../../escaped.JPEG": b"x"}, source / "x")
    tar(name, {"n01440764.tar": inner})
    with pytest.raises(UserError, match=r"would be extracted to .*outside the destination"):
        prepare_imagenet(source, tmp_path / "imagenet", release(source))
    assert not list(tmp_path.rglob("escaped*"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / KAGGLE_SOLUTION).unlink(), f"{KAGGLE_SOLUTION} does not exist"),
        (lambda root: (root / KAGGLE_SOLUTION).write_text("ImageId,PredictionString\n"), "has no label for ILSVRC"),
        (lambda root: (root / KAGGLE_IMAGES / "val" / val_name(1)).unlink(), "has 4 images in 3 classes, not 5 in 3"),
    ],
)
def test_incomplete_kaggle_downloads_are_refused(source: Path, tmp_path: Path, damage, message: str):
    kaggle = make_kaggle(tmp_path / "kaggle")
    damage(kaggle)
    with pytest.raises(UserError, match=message):
        prepare_imagenet(kaggle, tmp_path / "imagenet", release(source))
    assert not (tmp_path / "imagenet").exists()


@pytest.mark.parametrize("name", ["../../escaped", "{root}/escaped", "n01440764/x", "..", "", "cat"])
def test_kaggles_labels_must_be_known_classes(source: Path, tmp_path: Path, name: str):
    kaggle, name = make_kaggle(tmp_path / "kaggle"), name.format(root=tmp_path)
    text = (kaggle / KAGGLE_SOLUTION).read_text()
    (kaggle / KAGGLE_SOLUTION).write_text(text.replace(f"{WNIDS[2]} 1", f"{name} 1"))
    label = name or "1"
    with pytest.raises(UserError, match=rf"{KAGGLE_SOLUTION}: .* is not an ImageNet class") as error:
        prepare_imagenet(kaggle, tmp_path / "imagenet", release(source))
    assert repr(label) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "escaped").exists()
    assert not list((tmp_path / "imagenet.part").glob("*/*"))


@pytest.mark.parametrize(
    ("solution", "message"),
    [
        ("ImageId,Prediction\nx,y\n", "has no columns ImageId and PredictionString"),
        ("ImageId,PredictionString\nx\n", "'' is not an ImageNet class"),
        ("ImageId,PredictionString\nx,  \n", "'' is not an ImageNet class"),
        ("\udcff\udcfe", "is not a CSV file"),
        ('ImageId,PredictionString\n"' + 200_000 * "x", "is not a CSV file"),
    ],
)
def test_a_broken_solution_gives_one_line(source: Path, tmp_path: Path, solution: str, message: str):
    kaggle = make_kaggle(tmp_path / "kaggle")
    (kaggle / KAGGLE_SOLUTION).write_bytes(solution.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=rf"{KAGGLE_SOLUTION}.*{message}"):
        prepare_imagenet(kaggle, tmp_path / "imagenet", release(source))


def test_kaggles_class_folders_must_be_known_classes(source: Path, tmp_path: Path):
    kaggle = make_kaggle(tmp_path / "kaggle")
    (kaggle / KAGGLE_IMAGES / "train/cat").mkdir()
    with pytest.raises(UserError, match=r"train: 'cat' is not an ImageNet class"):
        prepare_imagenet(kaggle, tmp_path / "imagenet", release(source))


@pytest.mark.parametrize("split", ["train/n01440764", "val"])
def test_kaggles_images_must_be_files(source: Path, tmp_path: Path, split: str):
    """Otherwise a FIFO would be linked, and reading it would hang."""
    kaggle = make_kaggle(tmp_path / "kaggle")
    path = next((kaggle / KAGGLE_IMAGES / split).iterdir())
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=rf"{path.name} is not a regular file"):
        prepare_imagenet(kaggle, tmp_path / "imagenet", release(source))


def special(name: str, kind: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/dev/zero"
    return info.tobuf()


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("where", ["train", "class", "val", "devkit"])
def test_an_archive_holds_only_files(source: Path, tmp_path: Path, where: str, kind: bytes):
    names = {"train": "n01440764.tar", "class": "n01440764_0.JPEG", "val": val_name(1), "devkit": META}
    content = special(names[where], kind) + bytes(tarfile.RECORDSIZE)
    if where == "class":
        (source / "x").write_bytes(content)
        tar(source / "ILSVRC2012_img_train.tar", {"n01440764.tar": content})
    else:
        name = getattr(Release(), "train" if where == "train" else where)[0]
        (source / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{names[where]} is not a regular file: download the archive again"):
        prepare_imagenet(source, tmp_path / "imagenet", release(source))


@pytest.mark.parametrize(
    ("archive", "members", "message"),
    [
        ("ILSVRC2012_img_train.tar", {"cat.tar": b""}, "'cat' is not an ImageNet class"),
        ("ILSVRC2012_img_train.tar", {"...tar": b""}, "'..' is not an ImageNet class"),
        ("ILSVRC2012_img_val.tar", {"photo.JPEG": b""}, "photo.JPEG is not among the 5 labels"),
        ("ILSVRC2012_devkit_t12.tar.gz", {"readme": b""}, "has no ILSVRC2012_devkit_t12/data/meta.mat"),
        ("ILSVRC2012_devkit_t12.tar.gz", {META: b"junk", GROUND_TRUTH: b"1"}, "the labels cannot be read"),
    ],
)
def test_an_archive_of_other_content_gives_one_line(source: Path, tmp_path: Path, archive: str, members, message: str):
    tar(source / archive, members)
    with pytest.raises(UserError, match=message):
        prepare_imagenet(source, tmp_path / "imagenet", release(source))


def test_the_devkits_classes_must_be_valid(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules[__name__], "WNIDS", ("../escaped", *WNIDS[1:]))
    tar(source / "ILSVRC2012_devkit_t12.tar.gz", devkit(source), "w:gz")
    with pytest.raises(UserError, match=r"'../escaped' is not an ImageNet class"):
        prepare_imagenet(source, tmp_path / "imagenet", release(source))


def test_a_folder_of_other_content_is_not_changed(source: Path, tmp_path: Path):
    (tmp_path / "mine/train/cat").mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"mine/train has 0 images in 1 classes, .*: it is not a complete ImageNet; give another"
    ):
        prepare_imagenet(source, tmp_path / "mine", release(source))
    (tmp_path / "empty").mkdir()
    assert prepare_imagenet(source, tmp_path / "empty", release(source)) == (6, 5)
