"""GluonCV: dmlc/web-data, resnext50_32x4d.sh at 96bdc3cd, for gluon-cv's train_imagenet.py at fed86366."""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import transforms
from torchvision.models import resnet

from recipes.observation import BASE_WIDTH, CARDINALITY, CLASSES, LAYERS, Training
from recipes.source_timm import timm_test
from recipes.transform_steps import Lighting

STEPS = 8  # per epoch


def gluon() -> Training:
    """--lr 0.4 --lr-mode cosine --num-epochs 200 --batch-size 128 --num-gpus 8 --warmup-epochs 5 --last-gamma --no-wd
    --label-smoothing --mixup."""
    epochs, warmup, lr, batch_size = 200, 5, 0.4, 8 * 128
    eigenvectors = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))

    def rate(step: int) -> float:
        """gluoncv/utils/lr_scheduler.py: linear from 0, then a cosine to 0; it changes at each iteration."""
        time, end = step - warmup * STEPS, (epochs - warmup) * STEPS
        return lr * step / (warmup * STEPS) if time < 0 else lr * (1 + math.cos(math.pi * time / end)) / 2

    return Training(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        lr_batch_size=batch_size,
        lr_at=rate,
        optimizer=gluon_optimizer,
        network=gluon_network,
        mix=gluon_mix,
        loss=gluon_loss,
        train_steps=[  # get_data_rec: random_resized_crop, rand_mirror, 0.4 of each jitter, pca_noise 0.1
            transforms.RandomResizedCrop(224, (0.08, 1.0), (3 / 4, 4 / 3)),
            transforms.RandomHorizontalFlip(0.5),
            transforms.ColorJitter(0.4, 0.4, 0.4),
            Lighting(0.1, (0.2175, 0.0188, 0.0045), eigenvectors),
        ],
        eval_transform=timm_test("resnext50_32x4d.gluon_in1k"),  # the published accuracy is timm's measurement
        differences={
            "init, deviation of convolutions": "fan_out; MXNet's MSRAPrelu uses the mean of fan_in and fan_out"
        },
    )


def gluon_optimizer(network: nn.Module) -> torch.optim.Optimizer:
    """`nag` has the formula of torch's Nesterov momentum; --no-wd excludes beta, gamma and bias from the decay."""
    excluded = [value for value in network.parameters() if value.ndim == 1]
    others = [value for value in network.parameters() if value.ndim > 1]
    groups = [{"params": excluded, "weight_decay": 0.0}, {"params": others, "weight_decay": 1e-4}]
    return torch.optim.SGD(groups, 0.4, momentum=0.9, nesterov=True)


def gluon_network() -> nn.Module:
    """MSRAPrelu: magnitude 2 / (1 + 0.25²) over the mean of fan_in and fan_out; --last-gamma; biases start at 0."""
    network = resnet.ResNet(
        resnet.Bottleneck, [*LAYERS], CLASSES, zero_init_residual=True, groups=CARDINALITY,
        width_per_group=BASE_WIDTH,
    )  # fmt: skip
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            area = module.kernel_size[0] * module.kernel_size[1]
            fan = (module.in_channels // module.groups * area + module.out_channels * area) / 2
            nn.init.normal_(module.weight, 0, math.sqrt(2 / (1 + 0.25**2) / fan))
    nn.init.zeros_(network.fc.bias)
    return network


def gluon_mix(images: Tensor, seed: int) -> Tensor:
    """lam ~ Beta(0.2, 0.2), the default of --mixup-alpha; the batch is mixed with its reverse."""
    lam = draw_beta(0.2, seed)
    return lam * images + (1 - lam) * images.flip(0)


def gluon_loss(logits: Tensor, labels: Tensor, lam: float, _teacher_logits: Tensor) -> Tensor:
    """label_transform with eta 0.1, and SoftmaxCrossEntropyLoss(sparse_label=False)."""
    smooth = F.one_hot(labels, CLASSES) * 0.9 + 0.1 / CLASSES
    targets = lam * smooth + (1 - lam) * smooth.flip(0)
    return -(targets * F.log_softmax(logits, dim=1)).sum(1).mean()


def draw_beta(alpha: float, seed: int) -> float:
    """Draws lam like our code and timm's Mixup: after a first random number, which decides whether to mix."""
    random = np.random.RandomState(seed)
    random.rand()
    return float(random.beta(alpha, alpha))
