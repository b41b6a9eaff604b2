"""Files of weights: the one in a folder of `export --format timm`, and the kind of a file. Imports no torch."""

import json
from pathlib import Path

from resnext.errors import UserError

# the files in a folder of `export --format timm`, and in timm's repositories on the hub
TIMM_CARD, TIMM_CONFIG, TIMM_WEIGHTS = "README.md", "config.json", "model.safetensors"


def find_weights_file(asked: object, path: Path) -> Path:
    """`path`, or the weights in a folder of `export --format timm`. Raises UserError if there are none."""
    if path.is_dir():
        if all((path / name).is_file() for name in (TIMM_CONFIG, TIMM_WEIGHTS)):
            return path / TIMM_WEIGHTS
        best = path / "checkpoints/best.ckpt"
        remedy = f"give {best}" if best.is_file() else f"it needs {TIMM_CONFIG} and {TIMM_WEIGHTS}"
        raise UserError(f"{asked} is a folder, but not one of `export --format timm`: {remedy}")
    if not path.is_file():
        raise UserError(f"{asked} is not a file, and neither torchvision:NAME nor timm:NAME")
    return path


def is_safetensors(path: Path) -> bool:
    """Whether the file begins with eight bytes, the size of its header, and JSON. It may have any name."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def read_safetensors_header(path: Path) -> dict[str, str]:
    """The metadata that a safetensors file begins with. Raises ValueError or LookupError if there are none."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError("the file is incomplete")
        return json.loads(file.read(size))["__metadata__"]
