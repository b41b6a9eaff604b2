"""The ResNeXt paper's code: facebookresearch/ResNeXt at 833a3849 (train.lua, opts.lua, models/, datasets/)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision import transforms

from recipes.observation import Training
from recipes.source_torchvision import torchvision_network
from recipes.transform_steps import Lighting, Pad

STEPS = 8  # per epoch


def torch7(dataset: str) -> Training:
    """facebookresearch/ResNeXt, train.lua, opts.lua, models/resnext.lua and datasets/*.lua at 833a3849."""
    imagenet = dataset == "imagenet"
    epochs, batch_size, decay = (100, 256, 1e-4) if imagenet else (300, 128, 5e-4)  # opts.lua:83, :87; README
    if imagenet:
        eigenvectors = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
        steps: list[Any] = [  # imagenet.lua:79-92; there the flip comes last, with the same result
            transforms.RandomResizedCrop(224, (0.08, 1.0), (3 / 4, 4 / 3), transforms.InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(0.5),
            transforms.ColorJitter(0.4, 0.4, 0.4),
            Lighting(0.1, (0.2175, 0.0188, 0.0045), eigenvectors),
        ]
    else:
        red, green, blue = (round(value) for value in (125.3, 123.0, 113.9))  # cifar10.lua:38, the means
        # cifar10.lua:44-48: it pads with zeros after normalisation; before normalisation, zero is this colour
        steps = [Pad(32, 4, (red, green, blue)), transforms.RandomHorizontalFlip(0.5)]
    return Training(
        epochs=epochs,
        batch_size=batch_size,
        lr=0.1,  # opts.lua:43
        lr_batch_size=batch_size,
        lr_at=lambda step: torch7_rate(step // STEPS + 1, epochs, imagenet=imagenet),
        optimizer=lambda network: torch.optim.SGD(
            network.parameters(), 0.1, momentum=0.9, dampening=0.0, nesterov=True, weight_decay=decay
        ),  # train.lua:20-27; optim.sgd has the formula of torch's SGD
        network=torch7_network,
        mix=lambda images, _seed: images,
        loss=lambda logits, labels, _lam, _teacher_logits: F.cross_entropy(logits, labels),
        train_steps=steps,
        eval_transform=torch7_test(imagenet=imagenet),
    )


def torch7_rate(epoch: int, epochs: int, *, imagenet: bool) -> float:
    """train.lua:175-184, with epochs from 1."""
    part = epoch / epochs
    cifars_decay = 2 if part > 0.74 else 1 if part > 0.49 else 0
    return 0.1 * 0.1 ** ((epoch - 1) // 30 if imagenet else cifars_decay)


def torch7_network() -> nn.Module:
    """resnext.lua:211-233: convolutions from N(0, 2 / (kW · kH · nOutputPlane)), norms 1 and 0, nn.Linear's bias 0."""
    network = torchvision_network()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            width, height = module.kernel_size
            nn.init.normal_(module.weight, 0, math.sqrt(2 / (width * height * module.out_channels)))
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    return network


def torch7_test(*, imagenet: bool) -> Callable[[Image.Image], Any]:
    """imagenet.lua:94-99: Scale(256), bicubic by default, and a centre crop. CIFAR's images are not changed."""
    if imagenet:
        scale = transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC)
        return transforms.Compose([scale, transforms.CenterCrop(224)])
    return transforms.Compose([transforms.Resize(32), transforms.CenterCrop(32)])
