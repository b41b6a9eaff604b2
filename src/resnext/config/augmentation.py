"""The image part of a recipe: random transforms, mixup and CutMix, and the evaluation crop."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from resnext.config.types import STRICT, Count, Fraction, Interpolation, NonNegative, Pair

MetricName = Literal[
    "f1",
    "precision",
    "recall",
    "specificity",
    "auroc",
    "average_precision",
    "cohen_kappa",
    "matthews_corrcoef",
    "calibration_error",
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AugmentationConfig:
    """Training transforms, in this order: crop, flip, `auto_augment` or colour jitter, lighting, normalise, erasing.

    `scale` is the crop's share of the area, `ratio` its aspect ratio. With `pad`, the crop is a plain random crop after
    `pad` pixels of the colour data.mean are added on each side. `auto_augment` is a timm string such as
    rand-m7-mstd0.5-inc1, original or augmix-m3, or a name from torchvision's references: ra, ta_wide, augmix, imagenet,
    cifar10, svhn. `lighting` is the standard deviation of AlexNet's PCA noise. `erasing` is the probability of
    random erasing; its mode and maximum count are as in timm. `repeats`: how many times an image occurs in an epoch
    (repeated augmentation). The number of steps stays the same, so an epoch uses fewer different images.
    """

    scale: Pair = (0.08, 1.0)
    ratio: Pair = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"
    pad: Annotated[int, Field(ge=0)] | None = None
    hflip: Fraction = 0.5
    color_jitter: NonNegative = 0.0
    auto_augment: str | None = None
    lighting: NonNegative = 0.0
    erasing: Fraction = 0.0
    erasing_mode: Literal["const", "rand", "pixel"] = "pixel"
    erasing_count: Count = 1
    repeats: Count = 1

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < low <= high:
                raise ValueError(
                    f"recipe.augmentation.{name}=[{low:g},{high:g}] must be [low,high] with 0 < low <= high"
                )
        if self.scale[1] > 1:
            raise ValueError(f"recipe.augmentation.scale=[{self.scale[0]:g},{self.scale[1]:g}] must not exceed 1")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluationConfig:
    """Resize the short side to image_size / crop_pct, then crop the centre. `image_size` null: as in training.

    `metrics`: torchmetrics' metrics of several classes, macro-averaged, that each validation computes besides loss,
    top-1 and top-5.
    """

    image_size: Count | None = None
    crop_pct: Annotated[float, Field(gt=0, le=1)] = 0.875
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    metrics: tuple[MetricName, ...] = ()

    @model_validator(mode="after")
    def _check_metrics(self) -> Self:
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError(f"recipe.evaluation.metrics=[{','.join(self.metrics)}] has a name twice")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MixingConfig:
    """Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019) of a micro-batch; an alpha of 0 turns the method off.

    A micro-batch is mixed with probability `prob`. If both are on, CutMix is used with probability `switch_prob`.
    """

    mixup_alpha: NonNegative = 0.0
    cutmix_alpha: NonNegative = 0.0
    prob: Fraction = 1.0
    switch_prob: Fraction = 0.5

    @property
    def on(self) -> bool:
        return self.prob > 0 and (self.mixup_alpha > 0 or self.cutmix_alpha > 0)
