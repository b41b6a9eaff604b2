"""torchvision's training: its commands, and references/classification/{train,presets,utils}.py at 017e9b99."""

import argparse
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import transforms
from torchvision.models import resnet
from torchvision.ops._utils import split_normalization_params

from recipes.observation import BASE_WIDTH, CARDINALITY, CLASSES, LAYERS, Training
from recipes.published_command import parse
from recipes.source_timm import timm_mixing
from recipes.transform_steps import Erasing

STEPS = 8  # per epoch

# torchvision, references/classification/train.py at 017e9b99, get_args_parser; ra-sampler and ra-reps came with PR 5051
TORCHVISION = {
    "batch-size": 32, "epochs": 90, "opt": "sgd", "lr": 0.1, "momentum": 0.9, "weight-decay": 1e-4,
    "norm-weight-decay": None, "label-smoothing": 0.0, "mixup-alpha": 0.0, "cutmix-alpha": 0.0,
    "lr-scheduler": "steplr", "lr-warmup-epochs": 0, "lr-warmup-method": "constant", "lr-warmup-decay": 0.01,
    "lr-step-size": 30, "lr-gamma": 0.1, "auto-augment": None, "random-erase": 0.0, "model-ema": False,
    "model-ema-steps": 32, "model-ema-decay": 0.99998, "interpolation": "bilinear", "val-resize-size": 256,
    "val-crop-size": 224, "train-crop-size": 224, "clip-grad-norm": None, "ra-sampler": False, "ra-reps": 3,
}  # fmt: skip

TORCHVISION_V1 = "--model resnext50_32x4d --epochs 100"  # its README, "ResNeXt"; on 8 devices
TORCHVISION_V2 = (  # vision issue 3995, "new-recipe"; on 8 devices
    "--batch-size 128 --lr 0.5 --lr-scheduler cosineannealinglr --lr-warmup-epochs 5 --lr-warmup-method linear "
    "--auto-augment ta_wide --epochs 600 --random-erase 0.1 --weight-decay 0.00002 --norm-weight-decay 0.0 "
    "--label-smoothing 0.1 --mixup-alpha 0.2 --cutmix-alpha 1.0 --model-ema --val-resize-size 232"
)


def torchvision_references(command: str, weights: Any, *, devices: int = 8) -> Training:
    """references/classification/train.py, presets.py and utils.py at 017e9b99; the weights have their own preset."""
    args = parse(command, TORCHVISION)
    batch_size = devices * args.batch_size
    mode = transforms.InterpolationMode(args.interpolation)
    steps: list[Any] = [transforms.RandomResizedCrop(args.train_crop_size, interpolation=mode)]  # presets.py:20
    steps.append(transforms.RandomHorizontalFlip(0.5))
    if args.auto_augment is not None:
        assert args.auto_augment == "ta_wide"
        steps.append(transforms.TrivialAugmentWide(interpolation=mode))
    return Training(
        epochs=args.epochs,
        batch_size=batch_size,
        lr=args.lr,
        lr_batch_size=batch_size,
        lr_at=torchvision_rates(args),
        optimizer=functools.partial(torchvision_optimizer, args),
        network=torchvision_network,
        mix=timm_mixing(args.mixup_alpha, args.cutmix_alpha),
        loss=functools.partial(torchvision_loss, args),
        train_steps=steps,
        eval_transform=before_tensor(weights),
        erasing=torchvision_erasing(args.random_erase),
        repeats=args.ra_reps if args.ra_sampler else 1,
        clip_grad_norm=args.clip_grad_norm,
        ema=torchvision_average(args, batch_size),
        differences={"erasing, boxes": "timm's limits 1/3 and 10/3 instead of 0.33 and 3.3"}
        if args.random_erase
        else {},
    )


def torchvision_rates(args: argparse.Namespace) -> Callable[[int], float]:
    """train.py:208-241; the scheduler steps once an epoch."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], args.lr)
    if args.lr_scheduler == "steplr":
        scheduler: Any = torch.optim.lr_scheduler.StepLR(optimizer, args.lr_step_size, args.lr_gamma)
    else:
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs - args.lr_warmup_epochs)
    if args.lr_warmup_epochs:
        warmup = torch.optim.lr_scheduler.LinearLR(optimizer, args.lr_warmup_decay, total_iters=args.lr_warmup_epochs)
        scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, scheduler], [args.lr_warmup_epochs])
    rates = []
    for _ in range(args.epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return lambda step: rates[step // STEPS]


def torchvision_optimizer(args: argparse.Namespace, network: nn.Module) -> torch.optim.Optimizer:
    """train.py:184-200."""
    parameters: Any = network.parameters()
    if args.norm_weight_decay is not None:
        decays = (args.norm_weight_decay, args.weight_decay)
        groups = zip(split_normalization_params(network), decays, strict=True)
        parameters = [{"params": each, "weight_decay": decay} for each, decay in groups]
    return torch.optim.SGD(parameters, args.lr, args.momentum, weight_decay=args.weight_decay)


def torchvision_average(args: argparse.Namespace, batch_size: int) -> tuple[float, int, float] | None:
    """train.py:248-259; while epoch < lr_warmup_epochs, utils.py resets the average to a copy of the weights."""
    if not args.model_ema:
        return None
    adjust = batch_size * args.model_ema_steps / args.epochs
    return 1 - min(1.0, (1 - args.model_ema_decay) * adjust), args.model_ema_steps, args.lr_warmup_epochs


def torchvision_erasing(probability: float) -> Erasing | None:
    if not probability:
        return None
    step = transforms.RandomErasing(p=probability)  # presets.py:44, after normalisation
    assert step.value == 0
    log_ratio = math.log(step.ratio[0]), math.log(step.ratio[1])
    return Erasing(step.p, "const", 1, (tuple(step.scale), log_ratio))


def torchvision_network() -> nn.Module:
    block = resnet.Bottleneck
    return resnet.ResNet(
        block, [*LAYERS], CLASSES, groups=CARDINALITY, width_per_group=BASE_WIDTH
    )  # zero_init_residual is false: train.py:177 does not set it


def before_tensor(weights: Any) -> Callable[[Image.Image], Any]:
    """Resize and crop of the preset that belongs to the weights."""
    preset = weights.transforms()
    return transforms.Compose(
        [
            transforms.Resize(preset.resize_size, interpolation=preset.interpolation),
            transforms.CenterCrop(preset.crop_size),
        ]
    )


def torchvision_loss(args: argparse.Namespace, logits: Tensor, labels: Tensor, lam: float, _: Tensor) -> Tensor:
    """train.py:181; transforms.py makes the targets: lam · label + (1 - lam) · label of the other image."""
    targets = labels
    if args.mixup_alpha or args.cutmix_alpha:
        hot = F.one_hot(labels, CLASSES).float()
        targets = lam * hot + (1 - lam) * hot.flip(0)
    return nn.CrossEntropyLoss(label_smoothing=args.label_smoothing)(logits, targets)
