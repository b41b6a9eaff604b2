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
    """Training transforms, in this order: crop, flip, auto-augmentation or colour jitter, lighting, normalise, erasing.

    `scale`: the crop's share of the area. `ratio`: the crop's aspect ratio. `interpolation`: of the crop's resize;
    random chooses one for each crop. `pad`: replaces the crop by a plain random crop, after this many pixels of the
    colour data.mean are added on each side. `hflip`: the probability of a horizontal flip. `color_jitter`: the strength
    of brightness, contrast and saturation, as in timm. `auto_augment`: a timm string such as rand-m7-mstd0.5-inc1,
    original or augmix-m3, or a name from torchvision's references: ra, ta_wide, augmix, imagenet, cifar10, svhn.
    `lighting`: the standard deviation of AlexNet's PCA noise. `erasing`: the probability of random erasing.
    `erasing_mode`: the pixels that replace a box, as in timm. `erasing_count`: the largest number of boxes, as in timm.
    `repeats`: how many times an image occurs in an epoch (repeated augmentation); the number of steps stays the same,
    so an epoch uses fewer different images.
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
    """Resize the short side to image_size / crop_pct, then crop the centre.

    `image_size`: in pixels; null: as in training. `crop_pct`: the share of the short side that the crop has.
    `interpolation`: of the resize. `metrics`: torchmetrics' metrics of several classes, macro-averaged, that each
    validation computes besides loss, top-1 and top-5.
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

    `mixup_alpha`: mixup's share is drawn from Beta(alpha, alpha). `cutmix_alpha`: the same for the area of CutMix's
    box. `prob`: the probability that a micro-batch is mixed. `switch_prob`: the probability of CutMix if both are on.
    """

    mixup_alpha: NonNegative = 0.0
    cutmix_alpha: NonNegative = 0.0
    prob: Fraction = 1.0
    switch_prob: Fraction = 0.5

    @property
    def on(self) -> bool:
        return self.prob > 0 and (self.mixup_alpha > 0 or self.cutmix_alpha > 0)
