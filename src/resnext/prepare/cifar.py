"""prepare_cifar: downloads CIFAR-10 or CIFAR-100 with torchvision and writes an image folder of PNG files."""

import shutil
from pathlib import Path

from resnext.errors import UserError
from resnext.files import resumable_folder
from resnext.terminal import progress


def prepare_cifar(name: str, target: Path) -> tuple[int, int]:
    """Writes target/train/CLASS/NUMBER.png and target/val/CLASS/NUMBER.png; val is CIFAR's test set.

    Everything, the download included, is written to TARGET.part, which is renamed at the end. Returns the numbers of
    training and validation images.

    Raises:
        UserError: if `target` exists or the download fails.
    """
    from torchvision import datasets

    if target.exists():
        raise UserError(f"{target} exists already: remove it to write it again, or give another folder")
    target = target.absolute()
    dataset = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    with resumable_folder(target) as aside:
        download = aside / ".download"
        download.mkdir(exist_ok=True)
        counts = []
        for split in ("train", "val"):
            try:
                images = dataset(str(download), train=split == "train", download=True)
            except (OSError, RuntimeError) as error:  # no network, or a damaged file
                raise UserError(
                    f"{name} cannot be downloaded ({error}): try again, or put {dataset.filename} ({dataset.url}) "
                    f"into {download} and run the command again"
                ) from error
            with progress(f"writing {split}", len(images)) as advance:
                for number, (image, label) in enumerate(images):
                    folder = aside / split / images.classes[label]
                    folder.mkdir(parents=True, exist_ok=True)
                    image.save(folder / f"{number:05d}.png")
                    advance(1)
            counts.append(len(images))
        shutil.rmtree(download)
    return counts[0], counts[1]
