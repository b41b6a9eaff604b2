"""Test sets for networks with ImageNet's 1,000 classes. timm has their classes and labels."""

import json
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from timm.data import ImageNetInfo

from resnext.data.class_folders import find_val
from resnext.data.index import ImageIndex
from resnext.data.scan import scan_class_folders
from resnext.errors import UserError
from resnext.inference.image_sets import ImageSet, as_set
from resnext.inference.outputs import UNKNOWN
from resnext.terminal import first_three, pluralize

VAL_NAME = re.compile(rb"ILSVRC2012_val_(\d{8})\.\w+$")

Load = Callable[[Path, tuple[str, ...]], list[ImageSet]]


def load_suite(suite: str, root: Path, classes: tuple[str, ...], owner: str) -> list[ImageSet]:
    """The sets of images of a suite, in the folder `root`; several for imagenet-c.

    Raises:
        UserError: if `classes`, which `owner` has, are not ImageNet's, or `root` is not a folder of this suite.
    """
    if list(classes) != ImageNetInfo("imagenet-1k").label_names():
        raise UserError(
            f"--suite {suite} is for networks of ImageNet's 1,000 classes, named n01440764 and so on; {owner} has "
            f"{pluralize(len(classes), 'class', 'classes')} ({first_three(classes)})"
        )
    if not root.is_dir():
        raise UserError(f"--data {root} is not a folder: give the folder of {suite}")
    return SUITES[suite](root, classes)


def _load_v2(root: Path, classes: tuple[str, ...]) -> list[ImageSet]:
    """ImageNetV2 (Recht et al. 2019) names its folders by the label: 0 to 999."""
    index = scan_class_folders(root, root)
    wrong = [name for name in index.classes if not (name.isascii() and name.isdecimal() and int(name) < len(classes))]
    if wrong:
        raise UserError(f"{root} has a folder {wrong[0]}: the folders of imagenet-v2 are 0 to 999")
    return [ImageSet("", index, np.array([int(name) for name in index.classes])[index.labels, None])]


def _load_sketch(root: Path, classes: tuple[str, ...]) -> list[ImageSet]:
    """ImageNet-Sketch (Wang et al. 2019)."""
    return [_by_name(root, classes, "imagenet-sketch")]


def _load_a(root: Path, classes: tuple[str, ...]) -> list[ImageSet]:
    """ImageNet-A (Hendrycks et al. 2021): 200 classes."""
    return [_of_some_classes(root, classes, "a")]


def _load_r(root: Path, classes: tuple[str, ...]) -> list[ImageSet]:
    """ImageNet-R (Hendrycks et al. 2021): 200 classes."""
    return [_of_some_classes(root, classes, "r")]


def _of_some_classes(root: Path, classes: tuple[str, ...], suite: str) -> ImageSet:
    """Only the classes of the suite can be predicted, as its authors and timm evaluate."""
    names = _timms_file(f"imagenet_{suite}_synsets.txt").split()
    images = _by_name(root, classes, f"imagenet-{suite}")
    allowed = np.sort(np.array([classes.index(name) for name in names]))
    wrong = sorted({classes[label] for label in np.unique(images.targets[~np.isin(images.targets, allowed)])})
    if wrong:
        raise UserError(f"{root} has a folder {wrong[0]}, which is not one of the 200 classes of imagenet-{suite}")
    return images._replace(allowed=allowed)


def _load_real(root: Path, classes: tuple[str, ...]) -> list[ImageSet]:
    """ImageNet's validation images with the labels of Beyer et al. 2020. Images without a label do not count."""
    val = find_val(root)
    images = as_set(scan_class_folders(val if val.is_dir() else root, root), classes, "ImageNet")
    return [images._replace(accepted=_real_labels(images.listed))]


def _real_labels(index: ImageIndex) -> np.ndarray:
    labels = json.loads(_timms_file("imagenet_real_labels.json"))
    accepted = []
    for image in range(len(index)):
        found = VAL_NAME.search(index.relative_path(image))
        if found is None or not 1 <= int(found[1]) <= len(labels):
            raise UserError(
                f"{index.name(image)} is not named as in ImageNet, such as ILSVRC2012_val_00000001.JPEG: restore the "
                "names"
            )
        accepted.append(labels[int(found[1]) - 1])
    if not any(accepted):
        raise UserError(f"{index.root} has no image with a label of imagenet-real: give ImageNet's validation images")
    width = max(2, *map(len, accepted))  # two: several correct classes, even if no image here has them
    return np.array([[*each, *[UNKNOWN] * (width - len(each))] for each in accepted], np.int64)


def _load_c(root: Path, classes: tuple[str, ...]) -> list[ImageSet]:
    """ImageNet-C (Hendrycks and Dietterich 2019): a set for each CORRUPTION/SEVERITY."""
    folders = sorted(path for path in root.glob("*/[1-5]") if path.is_dir())
    if not folders:
        raise UserError(
            f"{root} has no CORRUPTION/SEVERITY/CLASS folders, such as gaussian_noise/3/n01440764: give the folder "
            "that holds them"
        )
    names = [str(path.relative_to(root)) for path in folders]
    return [
        _by_name(path, classes, "imagenet-c")._replace(name=name) for path, name in zip(folders, names, strict=True)
    ]


def _by_name(root: Path, classes: tuple[str, ...], suite: str) -> ImageSet:
    return as_set(scan_class_folders(root, root), classes, suite)


def _timms_file(name: str) -> str:
    content = pkgutil.get_data("timm.data", f"_info/{name}")
    assert content is not None, name
    return content.decode()


SUITES: dict[str, Load] = {
    "imagenet-v2": _load_v2,
    "imagenet-r": _load_r,
    "imagenet-a": _load_a,
    "imagenet-sketch": _load_sketch,
    "imagenet-real": _load_real,
    "imagenet-c": _load_c,
}
