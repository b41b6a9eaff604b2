"""The source of each recipe, by its name."""

from collections.abc import Callable

from torchvision.models import ResNeXt50_32X4D_Weights, ResNeXt101_32X8D_Weights, ResNeXt101_64X4D_Weights

from recipes.observation import Training
from recipes.source_big_vision import big_vision
from recipes.source_gluon import gluon
from recipes.source_nvidia import nvidia
from recipes.source_timm import A1, A2, A3, TIMM_RA, timm_train
from recipes.source_torch7 import torch7
from recipes.source_torchvision import TORCHVISION_V1, TORCHVISION_V2, torchvision_references

SOURCES: dict[str, Callable[[], Training]] = {
    "paper": lambda: torch7("imagenet"),
    "cifar_paper": lambda: torch7("cifar10"),
    "v1": lambda: torchvision_references(TORCHVISION_V1, ResNeXt50_32X4D_Weights.IMAGENET1K_V1),
    "v2": lambda: torchvision_references(TORCHVISION_V2, ResNeXt50_32X4D_Weights.IMAGENET1K_V2),
    "v2_fixres": lambda: torchvision_references(
        TORCHVISION_V2 + " --train-crop-size 176", ResNeXt101_32X8D_Weights.IMAGENET1K_V2
    ),
    "v2_fixres_repeats": lambda: torchvision_references(
        TORCHVISION_V2 + " --train-crop-size 176 --ra-sampler --ra-reps 4", ResNeXt101_64X4D_Weights.IMAGENET1K_V1
    ),
    "ra": lambda: timm_train(TIMM_RA, "resnext50_32x4d.ra_in1k"),
    "a1": lambda: timm_train(A1, "resnext50_32x4d.a1_in1k"),
    "a2": lambda: timm_train(A2, "resnext50_32x4d.a2_in1k"),
    "a3": lambda: timm_train(A3, "resnext50_32x4d.a3_in1k", size=160),
    "nvidia": nvidia,
    "gluon": gluon,
    "distill": big_vision,
}
