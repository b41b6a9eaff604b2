"""big_vision's distillation: configs/proj/distill/bit_i1k.py and its trainer at 2f3f493a, optax.py at 11eea574."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import transforms

from recipes.observation import Training
from recipes.source_gluon import draw_beta


def big_vision(train_images: int = 1_281_167) -> Training:
    """bit_i1k.py with --config.num_epochs 1200, but with all training images instead of 98 %."""
    epochs, batch_size, lr, decay, warmup = 1200, 4096, 0.03, 3e-4, 5000
    per_epoch = train_images // batch_size
    total = epochs * per_epoch

    def rate(step: int) -> float:
        progress = min(1.0, max(0.0, (step - warmup) / (total - warmup)))
        return lr * 0.5 * (1 + math.cos(math.pi * progress)) * min(1.0, step / warmup)

    return Training(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        lr_batch_size=batch_size,
        lr_at=rate,
        optimizer=lambda network: BigVisionAdam(network, lr, decay),
        network=None,  # the source's network is BiT-R50x1: its blocks do not end with a norm
        mix=big_vision_mix,
        loss=big_vision_loss,
        train_steps=[  # pp/ops_image.py: inception_crop of 5 to 100 % of the area, of ratio 3:4 to 4:3, and flip_lr
            transforms.RandomResizedCrop(224, (0.05, 1.0), (3 / 4, 4 / 3)),
            transforms.RandomHorizontalFlip(0.5),
        ],
        eval_transform=transforms.Compose(
            [transforms.Resize(256), transforms.CenterCrop(224)]
        ),  # resize_small, central_crop
        clip_grad_norm=1.0,
        teacher="timm/resnetv2_{depth}x{width}_bit.goog_teacher_in21k_ft_in1k".format(depth=152, width=2),  # noqa: UP032
        steps_per_epoch=per_epoch,
        differences=dict.fromkeys(
            (
                *("init, last norm of a block", "init, other norms", "init, deviation of convolutions"),
                *("init, bias of the classifier is 0", "init, stochastic depth"),
            ),
            "another network",
        ),
    )


class BigVisionAdam(torch.optim.Optimizer):
    """optax.scale_by_adam (0.9, 0.999, 1e-8), times lr, plus wd times each kernel, all times the schedule in [0, 1]."""

    def __init__(self, network: nn.Module, lr: float, decay: float) -> None:
        self.peak = lr
        kernels = [value for value in network.parameters() if value.ndim > 1]
        others = [value for value in network.parameters() if value.ndim == 1]
        # our weight decay is multiplied by the learning rate, the source's is not
        groups = [{"params": kernels, "weight_decay": decay / lr}, {"params": others, "weight_decay": 0.0}]
        super().__init__(groups, {"lr": lr})

    def step(self, closure: Any = None) -> None:
        assert closure is None
        for group in self.param_groups:
            for value in group["params"]:
                state = self.state[value]
                count = state["count"] = state.get("count", 0) + 1
                first = state["first"] = 0.9 * state.get("first", 0.0) + 0.1 * value.grad
                second = state["second"] = 0.999 * state.get("second", 0.0) + 0.001 * value.grad**2
                adam = (first / (1 - 0.9**count)) / ((second / (1 - 0.999**count)).sqrt() + 1e-8)
                decay = group["weight_decay"] * self.peak * value.data
                value.data -= group["lr"] / self.peak * (self.peak * adam + decay)


def big_vision_loss(logits: Tensor, _labels: Tensor, _lam: float, teacher_logits: Tensor) -> Tensor:
    """distill.py:202-208, distance.py: only KL(teacher, student) at temperature 1."""
    theirs, ours = F.softmax(teacher_logits, dim=1), F.log_softmax(logits, dim=1)
    return (theirs * (theirs.log() - ours)).sum(1).mean()


def big_vision_mix(images: Tensor, seed: int) -> Tensor:
    """utils.py, mixup with p=1 and n=2: the image itself has the larger weight. We reverse the batch here too."""
    lam = draw_beta(1.0, seed)
    lam = max(lam, 1 - lam)
    return lam * images + (1 - lam) * images.flip(0)
