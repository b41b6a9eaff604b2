"""NVIDIA DeepLearningExamples, PyTorch/Classification/ConvNets at 097c7ff9."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import transforms

from recipes.observation import Training
from recipes.source_torchvision import torchvision_network

STEPS = 8  # per epoch


def nvidia() -> Training:
    """configs.yml, resnet_params_1k, 90 epochs without mixup (its README, "Training accuracy")."""
    epochs, warmup, lr = 90, 8, 1.024
    return Training(
        epochs=epochs,
        batch_size=1024,
        lr=lr,
        lr_batch_size=1024,
        lr_at=lambda step: nvidia_rate(step // STEPS, epochs, warmup, lr),
        optimizer=nvidia_optimizer,
        network=nvidia_network,
        mix=lambda images, _seed: images,
        loss=lambda logits, labels, _lam, _teacher_logits: nvidia_loss(logits, labels, 0.1),
        train_steps=[transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()],  # dataloaders.py:355
        eval_transform=transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)]),  # dataloaders.py:397
    )


def nvidia_rate(epoch: int, epochs: int, warmup: int, lr: float) -> float:
    """optimizers.py:110-121, lr_cosine_policy; training.py calls it with the epoch."""
    if epoch < warmup:
        return lr * (epoch + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup))) * lr


def nvidia_optimizer(network: nn.Module) -> torch.optim.Optimizer:
    """optimizers.py:31-57: parameters with "bn" in their name have no weight decay."""
    named = list(network.named_parameters())
    groups = [
        {"params": [value for name, value in named if "bn" in name], "weight_decay": 0.0},
        {"params": [value for name, value in named if "bn" not in name], "weight_decay": 6.103515625e-05},
    ]
    return torch.optim.SGD(groups, 1.024, momentum=0.875, nesterov=False)


def nvidia_network() -> nn.Module:
    """models/common.py:37-39, models/resnet.py:200: kaiming_normal_ with conv_init fan_in; last_bn_0_init false."""
    network = torchvision_network()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
            nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_in))
    return network


def nvidia_loss(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """smoothing.py: confidence · nll + smoothing · the mean over classes."""
    log_chances = F.log_softmax(logits, dim=-1)
    likelihood = -log_chances.gather(1, targets[:, None]).squeeze(1)
    return ((1 - smoothing) * likelihood + smoothing * -log_chances.mean(dim=-1)).mean()
