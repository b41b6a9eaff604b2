"""Which folders of data.root are splits, and which are classes."""

import os
from pathlib import Path
from typing import NamedTuple, Self

from resnext.errors import UserError
from resnext.terminal import first_three

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
VAL_NAMES = ("val", "validation", "valid")
SPLITS = ("train", *VAL_NAMES, "test")


class FolderStamp(NamedTuple):
    """The state of a folder when it was listed. If a time or the inode differs, the content may differ.

    `changed_ns` is the inode's change time, which no program can set. `modified_ns` alone is not enough: tar and rsync
    restore it.
    """

    path: str
    modified_ns: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, folder: Path) -> Self:
        found = folder.stat()
        return cls(str(folder), found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def find_val(root: Path) -> Path:
    """root/val, validation or valid, whichever exists; root/val if none does. Raises UserError for more than one."""
    found = [root / name for name in VAL_NAMES if (root / name).is_dir()]
    if len(found) > 1:
        names = " and ".join(f"{path.name}/" for path in found)
        raise UserError(f"{root} has {names}: keep one of them for validation, and move the others away")
    return found[0] if found else root / "val"


def find_unsplit(root: Path, val_fraction: float) -> Path:
    """The folder whose class folders `data.val_fraction` splits: root/train, or `root` itself.

    Raises:
        UserError: if `root` has a validation split already, or only one class folder.
    """
    train, val, asked = root / "train", find_val(root), f"data.val_fraction={val_fraction:g}"
    if val.is_dir() and (_holds_folders(train) or _holds_folders(val)):
        raise UserError(f"{asked}, but {root} has {val.name}/: leave out data.val_fraction")
    names = _folder_names(root, root, [])
    if _holds_folders(train):
        if others := [name for name in names if name != "train" and _holds_images(root / name)]:
            raise UserError(
                f"{asked} splits {train}, but {root} has other folders with images ({first_three(others)}): move them "
                "into train/, or away"
            )
        return train
    if loose := [name for name in names if name in SPLITS and name != "train"]:
        raise UserError(
            f"{asked}, but {root / loose[0]} has images and no class folders: rename it if it is a class, or move it "
            "away"
        )
    if len(names) == 1:
        raise UserError(f"{asked}, but {root} has one class folder, {names[0]}/: is data.root={root / names[0]} meant?")
    return root


def list_classes(split: Path, root: Path, folders: list[FolderStamp]) -> tuple[str, ...]:
    """The names of the class folders in `split`, which is a folder in `root`, or `root` itself.

    Raises:
        UserError: if `split` is missing or has no class folders.
    """
    if not split.is_dir():
        raise UserError(_describe_missing(split, root))
    if names := _folder_names(split, root, folders):
        return names
    images = sum(1 for entry in list_entries(split, []) if is_image(entry.name))
    found = f"{images} images and no class folders" if images else "nothing to train on"
    raise UserError(f"{split} has {found}: sort the images into one folder for each class, {split}/CLASS/")


def find_train_classes(root: Path) -> tuple[str, ...]:
    """The classes of root/train, or else the class folders in `root` itself; there may be none."""
    train = root / "train"
    return _folder_names(train if _holds_folders(train) else root, root, [])


def check_classes(split: Path, names: tuple[str, ...], classes: tuple[str, ...]) -> None:
    """Raises UserError if `split` has a class that is not in `classes`, those of the training images."""
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise UserError(
            f"{split} has {len(unknown)} class{'es' if len(unknown) > 1 else ''} that train/ does not have "
            f"({first_three(unknown)}): rename or remove them, or add them to train/"
        )


def list_entries(folder: Path, folders: list[FolderStamp]) -> list[os.DirEntry[str]]:
    """The entries, sorted, without hidden files. Takes the folder's stamp first, so that a later change is noticed."""
    try:
        folders.append(FolderStamp.of(folder))
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from error


def is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _folder_names(split: Path, root: Path, folders: list[FolderStamp]) -> tuple[str, ...]:
    """In `root` itself, a folder with the name of a split is a split if it holds folders; else it is a class."""
    entries = list_entries(split, folders)
    dangling = [entry.name for entry in entries if entry.is_symlink() and not Path(entry.path).exists()]
    if dangling:
        raise UserError(
            f"{split / dangling[0]} is a broken link: repair it, or remove it with its class from both splits"
        )
    names = (entry.name for entry in entries if entry.is_dir())
    return tuple(name for name in names if split != root or name not in SPLITS or not _holds_folders(root / name))


def _describe_missing(split: Path, root: Path) -> str:
    """One line for a missing train/ or val/. Names data.val_fraction if it would work."""
    found = [entry.name for entry in list_entries(root, []) if entry.is_dir()]
    has = f"it has {first_three(found)}" if found else "it has no folders"
    line = f"{split} does not exist: data.root must hold train/CLASS/ and val/CLASS/, but {has}"
    if not _can_be_split(root):
        return line
    return f"{line}; data.val_fraction=0.1 (`prepare pack`: --val-fraction 0.1) takes a tenth of each class as val/"


def _can_be_split(root: Path) -> bool:
    """Whether `data.val_fraction` would find images in every class folder."""
    try:
        unsplit = find_unsplit(root, 0.1)
        names = _folder_names(unsplit, root, [])
        return bool(names) and all(_may_hold_images(unsplit / name) for name in names)
    except UserError:
        return False


def _holds_images(folder: Path) -> bool:
    return any(is_image(entry.name) for entry in list_entries(folder, []))


def _may_hold_images(folder: Path) -> bool:
    return any(entry.is_dir() or is_image(entry.name) for entry in list_entries(folder, []))


def _holds_folders(folder: Path) -> bool:
    return folder.is_dir() and any(entry.is_dir() for entry in list_entries(folder, []))
