"""timm's training: its commands, train.py, and timm's own builders."""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import Mixup, create_transform, resolve_data_config
from timm.data.mixup import mixup_target
from timm.data.random_erasing import RandomErasing
from timm.data.transforms_factory import transforms_imagenet_train
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy
from timm.models import resnet
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn
from torchvision import transforms

from recipes.observation import BASE_WIDTH, CARDINALITY, CLASSES, LAYERS, Training
from recipes.published_command import parse
from recipes.transform_steps import timms_erasing

STEPS = 8  # per epoch

# timm, train.py at 5a16c533, for RA. A1 to A3 used 004fb5f8: of the options that they use, only the defaults of min-lr
# and weight-decay differ there, and their commands set both.
TIMM = {
    "opt": "sgd", "momentum": 0.9, "weight-decay": 1e-4, "sched": "step", "lr": 0.01, "warmup-lr": 1e-4,
    "min-lr": 1e-5, "epochs": 200, "warmup-epochs": 3, "cooldown-epochs": 10, "batch-size": 32, "hflip": 0.5,
    "color-jitter": 0.4, "aa": None, "aug-repeats": 0, "reprob": 0.0, "remode": "const", "recount": 1, "mixup": 0.0,
    "cutmix": 0.0, "smoothing": 0.1, "train-interpolation": "random", "drop-path": None, "bce-loss": False,
    "bce-target-thresh": None, "clip-grad": None,
}  # fmt: skip

TIMM_RA = (  # timm's training examples, "ResNeXt-50 32x4d w/ RandAugment"; on 8 devices
    "--model resnext50_32x4d --lr 0.6 --warmup-epochs 5 --epochs 240 --weight-decay 1e-4 --sched cosine --reprob 0.4 "
    "--recount 3 --remode pixel --aa rand-m7-mstd0.5-inc1 --batch-size 192 -j 6 --amp --dist-bn reduce"
)
# ResNet strikes back, table 2, as timm's options; on 8 devices. The table does not specify -inc1: mmpretrain's
# imagenet_bs256_rsb_a12.py (2c53b79f, line 24) has timm_increasing, and timm's args file of the weights has -inc1.
# The paper does not specify a cool-down; timm's default is 10.
STRIKES_BACK = (
    "--opt lamb --sched cosine --warmup-epochs 5 --min-lr 1e-6 --cooldown-epochs 0 --batch-size 256 --bce-loss "
    "--bce-target-thresh 0.2 --cutmix 1.0 "
)
A1 = STRIKES_BACK + (
    "--lr 5e-3 --epochs 600 --weight-decay 0.01 --smoothing 0.1 --mixup 0.2 --drop-path 0.05 --aug-repeats 3 "
    "--aa rand-m7-mstd0.5-inc1"
)
A2 = STRIKES_BACK + (
    "--lr 5e-3 --epochs 300 --weight-decay 0.02 --smoothing 0.0 --mixup 0.1 --drop-path 0.05 --aug-repeats 3 "
    "--aa rand-m7-mstd0.5-inc1"
)
A3 = STRIKES_BACK + ("--lr 8e-3 --epochs 100 --weight-decay 0.02 --smoothing 0.0 --mixup 0.1 --aa rand-m6-mstd0.5-inc1")


def timm_train(command: str, weights: str, *, devices: int = 8, size: int = 224) -> Training:
    """train.py, with timm's own builders; the registry entry of the weights has their evaluation settings."""
    args = parse(command, TIMM)
    steps: Any = transforms_imagenet_train(
        size, hflip=args.hflip, color_jitter=args.color_jitter, auto_augment=args.aa,
        interpolation=args.train_interpolation, re_prob=args.reprob, re_mode=args.remode, re_count=args.recount,
    )  # fmt: skip
    erasing = [timms_erasing(step) for step in steps.transforms if isinstance(step, RandomErasing)]
    batch_size = devices * args.batch_size
    rate, epochs = timm_rates(args)
    return Training(
        epochs=epochs,
        batch_size=batch_size,
        lr=args.lr,
        lr_batch_size=batch_size,
        lr_at=rate,
        optimizer=lambda network: create_optimizer_v2(
            network, args.opt, lr=args.lr, weight_decay=args.weight_decay, momentum=args.momentum
        ),
        network=functools.partial(timm_network, args.drop_path or 0.0),
        mix=timm_mixing(args.mixup, args.cutmix),
        loss=functools.partial(timm_loss, args),
        train_steps=steps.transforms,
        eval_transform=timm_test(weights),
        erasing=erasing[0] if erasing else None,
        repeats=args.aug_repeats or 1,
        clip_grad_norm=args.clip_grad,
    )


def timm_rates(args: argparse.Namespace) -> tuple[Callable[[int], float], int]:
    """The learning rate of each epoch (train.py steps by epoch), and the number of epochs with the cool-down."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], args.lr)
    scheduler, epochs = create_scheduler_v2(
        optimizer, args.sched, num_epochs=args.epochs, cooldown_epochs=args.cooldown_epochs, min_lr=args.min_lr,
        warmup_lr=args.warmup_lr, warmup_epochs=args.warmup_epochs,
    )  # fmt: skip
    assert scheduler is not None
    rates = []
    for epoch in range(epochs):
        scheduler.step(epoch)
        rates.append(optimizer.param_groups[0]["lr"])
    return lambda step: rates[step // STEPS], epochs


def timm_network(drop_path: float) -> nn.Module:
    return resnet.ResNet(
        resnet.Bottleneck,
        LAYERS,
        CLASSES,
        cardinality=CARDINALITY,
        base_width=BASE_WIDTH,
        drop_path_rate=drop_path,
    )


def timm_mixing(mixup: float, cutmix: float) -> Callable[[Tensor, int], Tensor]:
    """Mixup or CutMix; if both are on, each has probability 0.5.

    Also valid for torchvision: its RandomChoice has the same probabilities. It mixes an image with the one before it in
    the batch, not with the image at the mirrored position; the distribution is the same.
    """
    if not mixup and not cutmix:
        return lambda images, _seed: images

    def mix(images: Tensor, seed: int) -> Tensor:
        np.random.seed(seed)
        return Mixup(mixup, cutmix, num_classes=CLASSES)(images, torch.zeros(len(images), dtype=torch.int64))[0]

    return mix


def timm_loss(args: argparse.Namespace, logits: Tensor, labels: Tensor, lam: float, _: Tensor) -> Tensor:
    """train.py: BCE of the targets that Mixup has smoothed; without mixing, cross-entropy with label smoothing."""
    if not args.mixup and not args.cutmix:
        return LabelSmoothingCrossEntropy(args.smoothing)(logits, labels)
    assert args.bce_loss
    targets = mixup_target(labels, CLASSES, lam, args.smoothing)
    return BinaryCrossEntropy(target_threshold=args.bce_target_thresh)(logits, targets)


def timm_test(weights: str) -> Callable[[Image.Image], Any]:
    """Evaluates at the size of the published accuracy, 224 for all: A3's registry entry has it as its test size."""
    entry = timm.get_pretrained_cfg(weights)
    assert entry is not None
    size = entry.input_size if entry.input_size[-1] == 224 else entry.test_input_size
    test: Any = create_transform(**{**resolve_data_config(pretrained_cfg=entry.to_dict()), "input_size": size})
    resize, crop = test.transforms[:2]
    return transforms.Compose([resize, crop])
