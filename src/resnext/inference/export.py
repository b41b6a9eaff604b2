"""export(network): writes a trained network in another format, and compares what was written with the network."""

import os
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.fx.experimental.optimization import fuse

from resnext.config.checkpoint_metadata import CheckpointMetadata
from resnext.data.augment import build_eval_transform, normalize
from resnext.data.images import load_images
from resnext.errors import RunFailed, UserError
from resnext.inference.formats import FORMATS, Format, find_refusal
from resnext.inference.network import TrainedNetwork
from resnext.run.directory import Run

LARGEST_DIFFERENCE = 1e-4  # of two logits, relative to the largest logit
IMAGES = 8
GRAPHS = ("onnx", "torchexport")  # formats that hold the computation, and not the weights by name


class Export(NamedTuple):
    """`difference` is the largest one of the logits, relative to the largest logit, over `images` images."""

    path: Path
    difference: float
    images: int


def export(
    trained: TrainedNetwork,
    format: str,
    output: Path,
    images: Tensor,
    *,
    fold_batchnorm: bool = False,
    opset: int | None = None,
) -> Export:
    """Writes `output`, which appears only after it was read back and compared on `images`, see `sample_images`.

    Raises:
        UserError: if the format cannot hold the network or does not take an option, or if `output` is a folder.
        RunFailed: if the logits differ by more than LARGEST_DIFFERENCE.
    """
    check_export(trained.metadata, format, output, fold_batchnorm=fold_batchnorm, opset=opset)
    chosen = FORMATS[format]
    with torch.inference_mode():
        expected = trained.network(images)
    if fold_batchnorm:
        trained = trained._replace(network=fuse(trained.network))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name[:100]}-", dir=output.parent) as aside:
        path = Path(aside, output.name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporters about their own code
            chosen.write(trained, path, opset)
            difference = _compare(chosen, path, trained.metadata, images, expected)
        if not difference <= LARGEST_DIFFERENCE:
            raise RunFailed(
                f"{output} is not written: read back by {chosen.library}, its logits differ by {difference:.1e} of the "
                f"largest logit, more than {LARGEST_DIFFERENCE:.0e}"
            )
        os.replace(path, output)
    return Export(output, difference, len(images))


def check_export(
    metadata: CheckpointMetadata, format: str, output: Path, *, fold_batchnorm: bool, opset: int | None
) -> None:
    if (refusal := find_refusal(format, metadata.model)) is not None:
        raise UserError(refusal)
    if opset is not None and format != "onnx":
        raise UserError(f"--opset is an option of --format onnx, and not of --format {format}")
    if fold_batchnorm and format not in GRAPHS:
        raise UserError(
            f"--fold-batchnorm changes the names of the weights, which --format {format} needs; it works with "
            f"{' and '.join(GRAPHS)}"
        )
    if output.is_dir():
        raise UserError(f"{output} exists already: remove it, or give another --output")


def sample_images(metadata: CheckpointMetadata, run: Run | None) -> tuple[Tensor, bool]:
    """Normalized images float32 [N, 3, size, size], and whether they are validation images of `run`.

    Without a run, or if its images are not on this machine, they are random.
    """
    transform = build_eval_transform(metadata.evaluation, metadata.image_size)
    generator = torch.Generator().manual_seed(0)
    size = metadata.image_size
    pixels = torch.randint(0, 256, (IMAGES, size, size, 3), generator=generator, dtype=torch.uint8)
    found = False
    if run is not None:
        try:
            _, val = load_images(run.config.data)
            chosen = torch.linspace(0, len(val) - 1, min(IMAGES, len(val))).long().tolist()
            pixels = torch.stack([torch.from_numpy(transform(val.pixels(image))) for image in chosen])
            found = True
        except UserError:  # the images were moved: random ones also show whether the logits are equal
            pass
    return normalize(pixels, metadata).contiguous(), found


def _compare(chosen: Format, path: Path, metadata: CheckpointMetadata, images: Tensor, expected: Tensor) -> float:
    """Also with one image at a time: the size of the batch must not be fixed in the file."""
    logits = chosen.read(path, metadata)
    with torch.inference_mode():
        found = [logits(images), torch.cat([logits(image[None]) for image in images])]
    return max(float((each - expected).abs().max() / expected.abs().max()) for each in found)
