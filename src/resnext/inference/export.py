"""export(network): writes a trained network in another format, and compares what was written with the network."""

import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.experimental.optimization import fuse

from resnext.config.checkpoint_metadata import CheckpointMetadata
from resnext.config.weights_file import TIMM_CARD
from resnext.data.augment import build_eval_transform, normalize
from resnext.data.images import load_images
from resnext.errors import RunFailed, UserError, describe_error
from resnext.files import atomic_write, move_into_place
from resnext.inference.formats import FORMATS, Format, check_packages, find_refusal
from resnext.inference.network import TrainedNetwork
from resnext.run.directory import Run
from resnext.terminal import pluralize

LARGEST_DIFFERENCE = 1e-4  # of two logits, relative to the largest logit
IMAGES = 8


class Export(NamedTuple):
    """`difference` is the largest one between two logits, relative to the largest logit, over `images` images."""

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
    card: str = "",
) -> Export:
    """Writes `output`, which appears only after it was read back and compared on `images`, see `sample_images`.

    `card` is the text of the README.md in the folder of `--format timm`.

    Raises:
        UserError: if the format cannot hold the network or does not take an option, or if `output` is a folder.
        RunFailed: if the logits differ by more than LARGEST_DIFFERENCE.
    """
    check_export(trained.metadata, format, output, fold_batchnorm=fold_batchnorm, opset=opset)
    chosen = FORMATS[format]
    with torch.inference_mode():
        expected = trained.network(images)
    if fold_batchnorm:
        trained = trained._replace(network=_folded(trained.network))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name[:100]}-", dir=output.parent) as aside:
        path = Path(aside, output.name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporters about their own code
            try:
                chosen.write(trained, path, opset)
                difference = _compare(chosen, path, trained.metadata, images, expected)
            except (UserError, OSError):
                raise
            except Exception as error:  # each library has its own, also for a full disk
                raise RunFailed(f"{output} is not written: {chosen.library} failed: {describe_error(error)}") from error
        if not difference <= LARGEST_DIFFERENCE:
            raise RunFailed(
                f"{output} is not written: read back by {chosen.library}, its logits differ by {difference:.1e} of the "
                f"largest logit, more than {LARGEST_DIFFERENCE:.0e}"
            )
        if card:
            atomic_write(path / TIMM_CARD, card)
        for file in [path] if path.is_file() else path.iterdir():
            file.chmod(0o644)  # safetensors gives only the owner access
        move_into_place(path, output)
    return Export(output, difference, len(images))


def check_export(
    metadata: CheckpointMetadata, format: str, output: Path, *, fold_batchnorm: bool, opset: int | None
) -> None:
    if (refusal := find_refusal(format, metadata.model)) is not None:
        raise UserError(refusal)
    check_packages(format)
    if opset is not None and format != "onnx":
        raise UserError(f"--opset is an option of --format onnx, and not of --format {format}")
    if fold_batchnorm and format != "torchexport":
        reason = "an ONNX file has merged batch norms without it" if format == "onnx" else "it renames weights"
        raise UserError(f"--fold-batchnorm is for --format torchexport, and not for --format {format}: {reason}")
    if output.is_dir() or (output.exists() and (format == "timm" or not output.is_file())):
        raise UserError(f"{output} exists already: remove it, or give another --output")


def _folded(network: nn.Module) -> nn.Module:
    """A copy with each batch norm merged into the convolution before it. Raises UserError if one is left."""
    try:
        folded = fuse(network)
        assert isinstance(folded, GraphModule)
    except Exception as error:  # fx cannot trace every network
        raise UserError(f"--fold-batchnorm is not possible for this network: {describe_error(error)}") from error
    left = sum(_is_batch_norm(node, folded) for node in folded.graph.nodes)
    if left:
        raise UserError(
            f"--fold-batchnorm is not possible for this network: {pluralize(left, 'batch norm')} would stay"
        )
    return folded


def _is_batch_norm(node: Node, traced: GraphModule) -> bool:
    """As a module, or as a function that fx has traced into a module of timm's."""
    if node.op == "call_module":
        return isinstance(traced.get_submodule(str(node.target)), nn.modules.batchnorm._BatchNorm)
    return node.target is nn.functional.batch_norm


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
    differences = torch.stack([(each - expected).abs().max() for each in found])
    return float(differences.max() / expected.abs().max())  # NaN if one of them is NaN
