"""What trains a network, as objects: of a recipe of ours, or of its source. `observe` makes them comparable."""

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
LAYERS, CARDINALITY, BASE_WIDTH = (2, 1, 1, 1), 4, 8  # of the network whose start is compared


@dataclass
class Training:
    """Every step is an optimizer step, of which an epoch has `steps_per_epoch` here.

    Attributes:
        lr_at: the rate at a step.
        network: a fresh one; None where the source has another kind of network.
        mix: images [N, 3, H, W] and a seed → mixed images.
        loss: logits, labels, the share that each label has beside its mirror's in the batch, the teacher's logits.
        train_steps: random transforms of pixels, in their order.
        ema: decay of an update, steps between two, epochs of a plain copy.
        departures: by field, what is ours and why.
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
    departures: dict[str, str] = field(default_factory=dict)


def observe(training: Training) -> dict[str, Any]:
    """What can be told apart, by the name of a field."""
    flat: dict[str, Any] = {}
    for name, value in _observe(training).items():
        flat |= {f"{name}, {key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _observe(training: Training) -> dict[str, Any]:
    return {
        "epochs": training.epochs,
        "global batch": training.batch_size,
        "rate, for a batch of": (training.lr, training.lr_batch_size),
        "rate, of every epoch": rates(training),
        "optimizer, three steps": three_steps(training),
        "weight decay": weight_decay(training.optimizer),
        "gradient norm at most": training.clip_grad_norm,
        "start": start(training.network) if training.network is not None else {},
        "mixing": mixed(training.mix),
        "loss": losses(training.loss),
        **{f"{number}. {name}": value for number, (name, value) in enumerate(steps_of(training), 1)},
        "erasing": describe_erasing(training.erasing),
        "repeats of an image": training.repeats,
        "average of the weights": training.ema,
        "teacher": training.teacher,
        "test image": tested(training.eval_transform),
    }


def rates(training: Training) -> np.ndarray:
    """At the first and the last step of each epoch."""
    per_epoch = training.steps_per_epoch
    steps = [epoch * per_epoch + step for epoch in range(training.epochs) for step in (0, per_epoch - 1)]
    return np.array([training.lr_at(step) for step in steps])


def small_network() -> ResNeXt:
    """Two stages of one block, with shortcuts that have norms."""
    torch.manual_seed(0)
    return ResNeXt([1, 1], 2, 16, num_classes=CLASSES, width=8, stem="cifar")


def three_steps(training: Training) -> np.ndarray:
    """The weights after the steps of three gradients, with the rates after the warm-up."""
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
    """By kind of parameter; each kind has one."""
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
def start(build: Callable[[], nn.Module]) -> dict[str, Any]:
    """The values that a network starts from, of torchvision's names; stochastic depth by block."""
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
    """Samples of what may differ by a tenth."""


def _drop_rate(block: nn.Module) -> float:
    drop = block.get_submodule("drop_path") if getattr(block, "drop_path", None) is not None else nn.Identity()
    return float(getattr(drop, "p", getattr(drop, "drop_prob", 0.0)) or 0.0)


def mixed(mix: Callable[[Tensor, int], Tensor]) -> np.ndarray:
    """Of many draws. The images of a batch have no order here: they are sorted by their sums."""
    batches = [mix(_batch()[0].clone(), seed) for seed in range(20)]
    return torch.stack([batch[batch.sum((1, 2, 3)).argsort()] for batch in batches]).numpy()


def losses(loss: Callable[[Tensor, Tensor, float, Tensor], Tensor]) -> np.ndarray:
    """Of labels that are mixed in many shares, above all in those around the thresholds that recipes have."""
    _, labels, logits, answers = _batch()
    shares = [0.0, 0.5, 1.0, *np.linspace(0.15, 0.25, 101)]
    return np.array([float(loss(logits, labels, float(share), answers)) for share in shares])


@functools.cache
def _batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 3, 20, 30, generator=generator)
    labels = torch.randint(CLASSES, (6,), generator=generator)
    logits, answers = (2 * torch.randn(6, CLASSES, generator=generator) for _ in range(2))
    return images, labels, logits, answers


def steps_of(training: Training) -> Iterator[tuple[str, Any]]:
    """The random transforms of pixels, each by its name and what it does."""
    for step in training.train_steps:
        found = describe_step(step)
        if found is not None:
            yield found


def tested(transform: Callable[[Image.Image], Any]) -> list[tuple[tuple[int, ...], str]]:
    """Size and digest of the pixels of two test images."""
    found = []
    for photo in (PHOTOS[0], PHOTOS[1].transpose(1, 0, 2)):
        pixels = np.asarray(transform(Image.fromarray(photo)))
        found.append((pixels.shape, hashlib.sha256(pixels.tobytes()).hexdigest()[:12]))
    return found
