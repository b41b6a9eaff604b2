"""What our named networks cost, the error that the paper reports, and the same networks in torchvision and timm."""

import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

import timm
import torch
import torchvision
from torch import Tensor, nn

from resnext.config.model import VARIANTS, ModelConfig
from resnext.models.complexity import count_activations, count_macs
from resnext.models.factory import build_model

# Top-1 error in %, one centre crop: on ImageNet-1k at 224 px (tables 3 and 4 of the paper, arXiv 1611.05431), and for
# the CIFAR networks on CIFAR-10 (table 7). The paper has no 101_32x8d.
PAPER_ERRORS = {
    "resnext50_1x64d": 23.9,
    "resnext50_2x40d": 23.0,
    "resnext50_4x24d": 22.6,
    "resnext50_8x14d": 22.3,
    "resnext50_32x4d": 22.2,
    "resnext101_1x64d": 22.0,
    "resnext101_2x40d": 21.7,
    "resnext101_4x24d": 21.4,
    "resnext101_8x14d": 21.3,
    "resnext101_32x4d": 21.2,
    "resnext101_1x100d": 21.3,
    "resnext101_2x64d": 20.7,
    "resnext101_64x4d": 20.4,
    "resnext29_8x64d": 3.65,
    "resnext29_16x64d": 3.58,
}
SIZES = {"imagenet": (224, 1000), "cifar": (32, 10)}  # by stem: image size and classes
RELATIVE = 1e-5  # the largest difference of two logits, relative to the largest logit


class Entry(NamedTuple):
    """A network for one image of `image_size` px: counts of parameters, MACs and activations; `error` in %."""

    name: str
    width: str
    image_size: int
    parameters: int
    macs: int
    activations: int
    error: float | None


class Agreement(NamedTuple):
    """`difference` is the largest one between two logits, relative to the largest logit, with the same weights."""

    name: str
    library: str
    twin: str
    difference: float

    @property
    def is_equal(self) -> bool:
        return self.difference <= RELATIVE


def describe_variant(name: str) -> Entry:
    """Computes all counts. Allocates no weights."""
    structure = VARIANTS[name]
    size, classes = SIZES[structure.stem]
    with torch.device("meta"):
        network = build_model(ModelConfig(name=name), classes).eval()
    macs = count_macs(network, size)
    assert macs is not None, "our networks run on the meta device"
    return Entry(
        name=name,
        width=f"{structure.cardinality}×{structure.base_width}d",
        image_size=size,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=macs,
        activations=count_activations(network, size),
        error=PAPER_ERRORS.get(name),
    )


def compare_with_libraries(name: str) -> Iterator[Agreement]:
    """Copies weights into the same network of torchvision and of timm and back, and compares the logits of images.

    Yields nothing for a network that no library has.

    Raises:
        RuntimeError: if the names or shapes of the weights differ.
    """
    twin_name = name.replace("resnext", "resnet").removesuffix("_1x64d") if name.endswith("_1x64d") else name
    for library, build in _builders(twin_name).items():
        yield Agreement(name, library, twin_name, _difference(build_model(ModelConfig(name=name), 1000), build()))


def _builders(name: str) -> dict[str, Callable[[], nn.Module]]:
    builders: dict[str, Callable[[], nn.Module]] = {}
    if name in torchvision.models.list_models(module=torchvision.models):
        builders["torchvision"] = lambda: torchvision.models.get_model(name, weights=None)
    if timm.is_model(name):
        builders["timm"] = lambda: timm.create_model(name)
    return builders


@torch.inference_mode()
def _difference(ours: nn.Module, theirs: nn.Module) -> float:
    """The larger difference of the two directions: our weights in their network, and their weights in ours."""
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    differences: list[Tensor] = []
    initial = copy.deepcopy(theirs.state_dict())
    for source, target in ((ours, theirs), (theirs, ours)):
        if source is theirs:
            theirs.load_state_dict(initial)
        target.load_state_dict(source.state_dict())
        expected, found = source.eval()(images), target.eval()(images)
        differences.append((found - expected).abs().max() / expected.abs().max())
    return float(torch.stack(differences).max())  # NaN if one of them is NaN
