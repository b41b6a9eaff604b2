"""The images of a run: found, checked, and for the embedded data set written."""

from pathlib import Path

from resnext.config import DataConfig
from resnext.data.digits import prepare_digits
from resnext.data.index import ImageIndex, load_splits

HOW_TO_GET = {
    "digits": "remove the broken copy, and it is written again",
    "image_folder": "give the folder that holds train/CLASS/ and val/CLASS/ as DATA=PATH (data.root=PATH)",
    "imagenet": (
        "give the folder of ImageNet that holds train/ and val/, with one folder for each class, as DATA=PATH "
        "(data.root=PATH), or link it there; image-net.org has the archives"
    ),
}


def load_images(config: DataConfig) -> tuple[ImageIndex, ImageIndex]:
    """The training and validation images; raises UserError as `load_splits` does."""
    root = Path(config.root)
    if config.name == "digits":
        prepare_digits(root)
    return load_splits(root, config.num_classes, HOW_TO_GET[config.name])
