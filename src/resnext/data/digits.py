"""scikit-learn's handwritten digits as an image folder, so that the default data uses ImageNet's code path.

1,797 grey images of 8×8 pixels with 17 levels, 10 classes (Alpaydin and Kaynak 1998, UCI optical recognition).
"""

from pathlib import Path

import numpy as np
from PIL import Image

from resnext.files import atomic_folder

VAL_FRACTION = 0.2
FEW = 200  # training images of digits_few, on which networks differ: with 1,437 most of them reach 99 %
SPLIT_SEED = 0


def prepare_digits(root: Path, train_images: int | None = None) -> None:
    """Writes train/DIGIT/NUMBER.png and val/DIGIT/NUMBER.png below `root` atomically, unless `root` exists.

    `train_images`: all other images are for validation; None: a fifth of them.
    """
    if root.exists():
        return
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    levels, digits = load_digits(return_X_y=True)  # 0 … 16
    pixels = np.round(np.asarray(levels) * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    test_size = VAL_FRACTION if train_images is None else len(pixels) - train_images
    splits = train_test_split(np.arange(len(pixels)), test_size=test_size, stratify=digits, random_state=SPLIT_SEED)
    root.parent.mkdir(parents=True, exist_ok=True)  # an OSError names the folder
    try:
        with atomic_folder(root) as aside:
            for split, numbers in zip(("train", "val"), splits, strict=True):
                for number in numbers:
                    folder = aside / split / str(digits[number])
                    folder.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels[number]).save(folder / f"{number:04d}.png")
    except OSError:
        if not root.is_dir():  # if it is, another process wrote it first
            raise
