"""prepare_imagenet: turns ILSVRC2012's archives, or Kaggle's folders, into train/WNID/ and val/WNID/.

Everything is written to TARGET.part, which is renamed at the end. An interrupted call continues where it stopped.
"""

import csv
import hashlib
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from resnext.errors import UserError
from resnext.files import atomic_write, resumable_folder
from resnext.terminal import progress

CHUNK = 2**22
LINK_THREADS = 16
STAMPS = ".checked.json"
GROUND_TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
META = "ILSVRC2012_devkit_t12/data/meta.mat"
KAGGLE_IMAGES = "ILSVRC/Data/CLS-LOC"
KAGGLE_SOLUTION = "LOC_val_solution.csv"
WNID = re.compile(r"n\d{8}", re.ASCII)  # a class and the name of its folder: no other text may become a path


@dataclass(frozen=True)
class Release:
    """The names and md5 of the archives, and the expected numbers of classes and images."""

    train: tuple[str, str] = ("ILSVRC2012_img_train.tar", "1d675b47d978889d74fa0da5fadfb00e")
    val: tuple[str, str] = ("ILSVRC2012_img_val.tar", "29b22e2961454d5413ddabcf34fc5622")
    devkit: tuple[str, str] = ("ILSVRC2012_devkit_t12.tar.gz", "fa75699e90414af021442c21a62c3abf")
    classes: int = 1000
    train_images: int = 1_281_167
    val_images: int = 50_000


def prepare_imagenet(source: Path, target: Path, release: Release | None = None) -> tuple[int, int]:
    """Writes target/train/WNID/*.JPEG and target/val/WNID/*.JPEG; returns both numbers of images.

    Raises:
        UserError: if `source` has neither layout, an archive is damaged, a label is missing, or a count is wrong.
    """
    release, target = release or Release(), target.absolute()
    if target.exists() and any(target.iterdir()):
        return _check_counts(target, release, "it is not a complete ImageNet; give another folder")
    if not source.is_dir():
        raise UserError(
            f"{source} is not a folder: give the folder with the archives of ILSVRC2012, or Kaggle's download"
        )
    if not (source / release.train[0]).is_file() and not (source / KAGGLE_IMAGES).is_dir():
        raise UserError(
            f"{source} has neither {release.train[0]} nor {KAGGLE_IMAGES}/: give the folder with the three archives of "
            f"ILSVRC2012 (image-net.org), or the unpacked download of Kaggle's imagenet-object-localization-challenge"
        )
    with resumable_folder(target) as aside:
        try:
            if (source / release.train[0]).is_file():
                _from_archives(source, aside, release)
            else:
                _from_kaggle(source, aside)
        except tarfile.TarError as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{source}: an archive is damaged ({reason}): download it again") from error
        counts = _check_counts(aside, release, f"{source} is incomplete; complete it and run the same command again")
        (aside / STAMPS).unlink(missing_ok=True)
    return counts


def _from_archives(source: Path, aside: Path, release: Release) -> None:
    for name, md5 in (release.devkit, release.val, release.train):
        _check_md5(source / name, md5, aside / STAMPS)
    wnids = _read_val_wnids(source / release.devkit[0])
    _extract_val(source / release.val[0], aside / "val", wnids)
    _extract_train(source / release.train[0], aside / "train", release.classes)


def _check_md5(archive: Path, md5: str, stamps: Path) -> None:
    """Checks each archive once: `stamps` holds the size and modification time of the archives that passed."""
    if not archive.is_file():
        raise UserError(f"{archive} does not exist: all three archives of ILSVRC2012 are needed")
    known = json.loads(stamps.read_text()) if stamps.exists() else {}
    stamp = [archive.stat().st_size, archive.stat().st_mtime_ns]
    if known.get(archive.name) == stamp:
        return
    digest = hashlib.md5(usedforsecurity=False)
    with progress(f"checking {archive.name}, MiB", archive.stat().st_size >> 20) as advance, archive.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            advance(len(chunk) >> 20)
    if digest.hexdigest() != md5:
        raise UserError(f"{archive} has md5 {digest.hexdigest()}, not {md5}: it is damaged, download it again")
    atomic_write(stamps, json.dumps({**known, archive.name: stamp}))


def _read_val_wnids(devkit: Path) -> list[str]:
    """The WordNet id of each validation image, in the order of their numbers."""
    from scipy.io import loadmat

    with tarfile.open(devkit) as archive:
        meta, truth = (_read_member(archive, devkit, name) for name in (META, GROUND_TRUTH))
    try:
        synsets = loadmat(BytesIO(meta), squeeze_me=True)["synsets"]
        wnids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets if row["num_children"] == 0}
        found = [wnids[int(line)] for line in truth.split()]
    except Exception as error:  # scipy raises many types if the file is not a MATLAB file
        raise UserError(f"{devkit}: the labels cannot be read ({error}): download it again") from error
    return [_checked_class(wnid, devkit) for wnid in found]


def _read_member(archive: tarfile.TarFile, path: Path, name: str) -> bytes:
    for member in _files(archive, path):
        if member.name == name:
            file = archive.extractfile(member)
            assert file is not None, "a regular file has content"
            return file.read()
    raise UserError(f"{path} has no {name}: download it again")


def _files(archive: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """The files of an archive. Raises UserError for links and devices: ILSVRC2012's archives have none."""
    for member in archive:
        if not (member.isfile() or member.isdir()):
            raise UserError(f"{path}: {member.name} is not a regular file: download the archive again, from its source")
        if member.isfile():
            yield member


def _checked_class(name: str, where: Path) -> str:
    if not WNID.fullmatch(name):
        raise UserError(f"{where}: {name!r} is not an ImageNet class, such as n01440764: download it again")
    return name


def _extract_val(archive: Path, val: Path, wnids: list[str]) -> None:
    """The number in a file name is a line of the ground truth: ILSVRC2012_val_00000001.JPEG is the first image."""
    with tarfile.open(archive) as images, progress(f"extracting {archive.name}", len(wnids)) as advance:
        for member in _files(images, archive):
            number = Path(member.name).stem.rpartition("_")[2]
            if not (number.isascii() and number.isdecimal() and 1 <= int(number) <= len(wnids)):
                raise UserError(f"{archive}: {member.name} is not among the {len(wnids)} labels of the devkit")
            _extract(images, member, val / wnids[int(number) - 1])
            advance(1)


def _extract_train(archive: Path, train: Path, classes: int) -> None:
    """The archive holds one tar per class. A class folder is renamed into place when it is complete."""
    with tarfile.open(archive) as outer, progress(f"extracting {archive.name}", classes) as advance:
        for member in _files(outer, archive):
            folder = train / _checked_class(Path(member.name).stem, archive)
            if not folder.exists():
                aside = folder.with_name(f".{folder.name}.part")
                with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                    for image in _files(inner, archive / member.name):
                        _extract(inner, image, aside)
                aside.rename(folder)
            advance(1)


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Skips a file that is already complete. tar's data filter refuses a path outside `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / member.name
    if path.is_file() and path.stat().st_size == member.size:
        return
    try:
        archive.extract(member, folder, filter="data")
    except tarfile.FilterError as error:
        raise UserError(f"{archive.name}: {error}: download the archive again, from its source") from error


def _from_kaggle(source: Path, aside: Path) -> None:
    images = source / KAGGLE_IMAGES
    if not (source / KAGGLE_SOLUTION).is_file():
        raise UserError(f"{source / KAGGLE_SOLUTION} does not exist: without it the validation images have no labels")
    val = _read_kaggle_labels(source / KAGGLE_SOLUTION)
    folders = sorted(folder.name for folder in (images / "train").iterdir() if folder.is_dir())
    classes = [_checked_class(name, images / "train") for name in folders]
    with progress("linking train", len(classes)) as advance:
        for wnid in classes:
            _link_all((images / "train" / wnid).iterdir(), aside / "train" / wnid)
            advance(1)
    files = sorted((images / "val").iterdir())
    unlabelled = [path.name for path in files if path.stem not in val]
    if unlabelled:
        raise UserError(f"{source / KAGGLE_SOLUTION} has no label for {unlabelled[0]}: download it again")
    with progress("linking val", len(files)) as advance:
        for path in files:
            _link_all([path], aside / "val" / val[path.stem])
            advance(1)


def _read_kaggle_labels(solution: Path) -> dict[str, str]:
    """Image → class. PredictionString lists a class and a box for each object in the image."""
    try:
        with solution.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        labels = {row["ImageId"]: ((row["PredictionString"] or "").split() or [""])[0] for row in rows}
    except KeyError:
        raise UserError(f"{solution} has no columns ImageId and PredictionString: download it again") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{solution} is not a CSV file ({error}): download it again") from error
    return {image: _checked_class(name, solution) for image, name in labels.items()}


def _link_all(files: Iterable[Path], folder: Path) -> None:
    """Makes hard links, which take no space, or copies if `folder` is on another file system."""
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(LINK_THREADS) as pool:
        list(pool.map(lambda path: _link(path, folder / path.name), files))


def _link(path: Path, link: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} is not a regular file: remove it, or unpack the download again")
    if link.exists() and link.stat().st_size == path.stat().st_size:
        return
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:
        shutil.copyfile(path, link)


def _check_counts(root: Path, release: Release, advice: str) -> tuple[int, int]:
    counts = []
    for split, images in (("train", release.train_images), ("val", release.val_images)):
        folders = [path for path in root.glob(f"{split}/*") if path.is_dir() and not path.name.startswith(".")]
        found = sum(len(os.listdir(folder)) for folder in folders)
        if (len(folders), found) != (release.classes, images):
            raise UserError(
                f"{root / split} has {found:,} images in {len(folders)} classes, not {images:,} in {release.classes}: "
                f"{advice}"
            )
        counts.append(found)
    return counts[0], counts[1]
