"""The parts of a training as objects, built by us or by a recipe's source. `observe` makes both comparable."""

import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from recipes.transform_steps import PHOTOS, Erasing, describe_erasing, describe_step
from resnext.models.resnext import ResNeXt

CLASSES = 7
LAYERS, CARDINALITY, BASE_WIDTH = (2, 1, 1, 1), 4, 8  # of the network whose initial values are compared


@dataclass
class Training:
    """Every step is an optimizer step; an epoch has `steps_per_epoch` steps.

    Attributes:
        lr_at: step → learning rate.
        network: builds a new network; None if the source has another kind of network.
        mix: images [N, 3, H, W] and a seed → mixed images.
        loss: logits, labels, lam, teacher logits → loss. lam is the weight of image i when mixed with image N - 1 - i.
        train_steps: random transforms of pixels, in order.
        ema: decay per update, steps between two updates, epochs in which the EMA is a copy of the weights.
        differences: field → how we differ from the source, and why.
    """

    epochs: int
    batch_size: int
    lr: float
    lr_batch_size: int
    lr_at: Callable[[int], float]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    network: Callable[[], nn.Module] | None
    mix: Callable[[Tensor, int], Tensor]
    loss: Callable[[Tensor, Tensor, float, Tensor], Tensor]
    train_steps: list[Any]
    eval_transform: Callable[[Image.Image], Any]
    erasing: Erasing | None = None
    repeats: int = 1
    clip_grad_norm: float | None = None
    ema: tuple[float, int, float] | None = None
    teacher: str | None = None
    steps_per_epoch: int = 8
    differences: dict[str, str] = field(default_factory=dict)


def observe(training: Training) -> dict[str, Any]:
    """Field name → a value that can be compared."""
    flat: dict[str, Any] = {}
    for name, value in _observe(training).items():
        flat |= {f"{name}, {key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _observe(training: Training) -> dict[str, Any]:
    return {
        "epochs": training.epochs,
        "global batch": training.batch_size,
        "learning rate, for batch size": (training.lr, training.lr_batch_size),
        "learning rate of each epoch": learning_rates(training),
        "optimizer, three steps": three_steps(training),
        "weight decay": weight_decay(training.optimizer),
        "maximum gradient norm": training.clip_grad_norm,
        "init": initial_values(training.network) if training.network is not None else {},
        "mixing": mixed_images(training.mix),
        "loss": losses(training.loss),
        **{f"{number}. {name}": value for number, (name, value) in enumerate(steps_of(training), 1)},
        "erasing": describe_erasing(training.erasing),
        "repeats of each image": training.repeats,
        "EMA of the weights": training.ema,
        "teacher": training.teacher,
        "evaluation image": eval_pixels(training.eval_transform),
    }


def learning_rates(training: Training) -> np.ndarray:
    """The learning rates at the first and the last step of each epoch."""
    per_epoch = training.steps_per_epoch
    steps = [epoch * per_epoch + step for epoch in range(training.epochs) for step in (0, per_epoch - 1)]
    return np.array([training.lr_at(step) for step in steps])


def small_network() -> ResNeXt:
    """A network of two stages of one block, with norms in the shortcuts."""
    torch.manual_seed(0)
    return ResNeXt([1, 1], 2, 16, num_classes=CLASSES, width=8, stem="cifar")


def three_steps(training: Training) -> np.ndarray:
    """The weights after three optimizer steps on random gradients, with learning rates from after the warm-up."""
    network = small_network()
    optimizer = training.optimizer(network)
    generator = torch.Generator().manual_seed(1)
    for step in range(3):
        for group in optimizer.param_groups:
            group["lr"] = training.lr_at((20 + step) * training.steps_per_epoch)
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).numpy()


def weight_decay(build: Callable[[nn.Module], torch.optim.Optimizer]) -> dict[str, float]:
    """Kind of parameter → its weight decay."""
    network = small_network()
    groups = build(network).param_groups
    decays = {id(each): float(group["weight_decay"]) for group in groups for each in group["params"]}
    kinds: dict[str, set[float]] = {}
    for name, parameter in network.named_parameters():
        kinds.setdefault(_kind(name), set()).add(decays[id(parameter)])
    assert all(len(values) == 1 for values in kinds.values()), kinds
    return {kind: values.pop() for kind, values in kinds.items()}


def _kind(name: str) -> str:
    module = name.rpartition(".")[0]
    if module == "fc":
        return f"classifier's {name.rpartition('.')[2]}"
    if "downsample.1" in module:
        return "norms of the shortcuts"
    return "other norms" if "bn" in module else "convolutions"


@functools.cache
def initial_values(build: Callable[[], nn.Module]) -> dict[str, Any]:
    """The initial values of a network with torchvision's module names, and the drop probability of each block."""
    torch.manual_seed(0)
    network = build()
    named = dict(network.named_modules())
    blocks = [(name, module) for name, module in named.items() if hasattr(module, "bn3")]
    norms = {name: module.weight.detach() for name, module in named.items() if isinstance(module, nn.BatchNorm2d)}
    last = {f"{name}.bn3" for name, _ in blocks}
    convolutions = [module.weight.detach() for module in network.modules() if isinstance(module, nn.Conv2d)]
    fc = network.get_submodule("fc")
    assert isinstance(fc, nn.Linear)
    return {
        "last norm of a block": {float(value) for name in last for value in norms[name]},
        "other norms": {float(value) for name in norms.keys() - last for value in norms[name]},
        "deviation of convolutions": Approximately([float(weight.std()) for weight in convolutions]),
        "bias of the classifier is 0": not fc.bias.any(),
        "stochastic depth": [_drop_rate(module) for _, module in blocks],
    }


class Approximately(list[float]):
    """Random samples, which may differ by a tenth."""


def _drop_rate(block: nn.Module) -> float:
    drop = block.get_submodule("drop_path") if getattr(block, "drop_path", None) is not None else nn.Identity()
    return float(getattr(drop, "p", getattr(drop, "drop_prob", 0.0)) or 0.0)


def mixed_images(mix: Callable[[Tensor, int], Tensor]) -> np.ndarray:
    """Mixed batches for many seeds. The order of images in a batch does not matter: they are sorted by their sums."""
    batches = [mix(_batch()[0].clone(), seed) for seed in range(20)]
    return torch.stack([batch[batch.sum((1, 2, 3)).argsort()] for batch in batches]).numpy()


def losses(loss: Callable[[Tensor, Tensor, float, Tensor], Tensor]) -> np.ndarray:
    """Losses for many values of lam, mostly around the target thresholds of the recipes."""
    _, labels, logits, teacher_logits = _batch()
    lams = [0.0, 0.5, 1.0, *np.linspace(0.15, 0.25, 101)]
    return np.array([float(loss(logits, labels, float(lam), teacher_logits)) for lam in lams])


@functools.cache
def _batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 3, 20, 30, generator=generator)
    labels = torch.randint(CLASSES, (6,), generator=generator)
    logits, teacher_logits = (2 * torch.randn(6, CLASSES, generator=generator) for _ in range(2))
    return images, labels, logits, teacher_logits


def steps_of(training: Training) -> Iterator[tuple[str, Any]]:
    """The random transforms of pixels: name and description of each."""
    for step in training.train_steps:
        found = describe_step(step)
        if found is not None:
            yield found


def eval_pixels(transform: Callable[[Image.Image], Any]) -> list[tuple[tuple[int, ...], str]]:
    """Shape and digest of the pixels of two evaluation images."""
    found = []
    for photo in (PHOTOS[0], PHOTOS[1].transpose(1, 0, 2)):
        pixels = np.asarray(transform(Image.fromarray(photo)))
        found.append((pixels.shape, hashlib.sha256(pixels.tobytes()).hexdigest()[:12]))
    return found
