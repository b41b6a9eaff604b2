"""scikit-learn's handwritten digits as an image folder, so that the embedded default travels ImageNet's road.

1,797 grey images of 8×8 pixels with 17 levels, 10 classes (Alpaydin and Kaynak 1998, UCI optical recognition).
"""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

VAL_FRACTION = 0.2
SPLIT_SEED = 0


def prepare_digits(root: Path) -> None:
    """Writes train/DIGIT/NUMBER.png and val/DIGIT/NUMBER.png below `root`, whole or not at all; nothing if it exists."""
    if root.exists():
        return
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    splits = train_test_split(
        np.arange(len(pixels)), test_size=VAL_FRACTION, stratify=digits.target, random_state=SPLIT_SEED
    )
    root.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    for split, numbers in zip(("train", "val"), splits, strict=True):
        for number in numbers:
            folder = aside / split / str(digits.target[number])
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[number]).save(folder / f"{number:04d}.png")
    aside.chmod(0o755)
    try:
        os.rename(aside, root)
    except OSError:  # another process was faster
        shutil.rmtree(aside)
        if not root.is_dir():
            raise
