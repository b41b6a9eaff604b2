"""The recipe: the part of the configuration with the mathematics of a training, independent of the machine."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from resnext.config.augmentation import AugmentationConfig, EvaluationConfig, MixingConfig
from resnext.config.early_stopping import EarlyStoppingConfig
from resnext.config.loss import LossConfig
from resnext.config.model import TIMM_PREFIX
from resnext.config.parts import check_name
from resnext.config.schedule import ScheduleConfig
from resnext.config.types import (
    STRICT,
    BelowOne,
    Count,
    Fraction,
    Name,
    NonNegative,
    Positive,
)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InitConfig:
    """Initialisation that a recipe overrides; null keeps the network's default.

    `conv`: draw the weights of every nn.Conv2d from N(0, 2 / fan), as torch's kaiming_normal_ (He et al. 2015).
    `zero_init_last`: true initialises the weight of the last norm of each residual block to 0, so that the block
    initially equals its shortcut (Goyal et al. 2017), and false to 1; if a block ends with a convolution, true sets the
    convolution to 0 and false leaves it random. `zero_classifier_bias`: initialise the bias of every classifier to 0.
    """

    conv: Literal["fan_in", "fan_out"] | None = None
    zero_init_last: bool | None = None
    zero_classifier_bias: bool = False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OptimizerConfig:
    """The optimizer, one of timm's.

    `name`: timm's registry name; sgd uses Nesterov momentum, momentum uses plain momentum. `lr`: for a global batch of
    recipe.lr_batch_size. `weight_decay`: as the optimizer defines it. `weight_decay_on`: the parameters with weight
    decay; all_but_norms_outside_shortcuts decays the norms of the shortcuts, but no other norm. `momentum`: null: 0.9,
    if the optimizer has momentum. `betas`: null: the optimizer's own. `eps`: null: the optimizer's own. `layer_decay`:
    the learning rate of a layer is multiplied by it once for each layer above. `clip_grad_norm`: the maximum global
    gradient norm of a step.
    """

    name: Name
    lr: Positive
    weight_decay: NonNegative = 0.0
    weight_decay_on: Literal["all", "all_but_norms", "all_but_norms_outside_shortcuts", "all_but_norms_and_biases"] = (
        "all"
    )
    momentum: BelowOne | None = None
    betas: tuple[BelowOne, BelowOne] | None = None
    eps: Positive | None = None
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    clip_grad_norm: Positive | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EmaConfig:
    """An exponential moving average (EMA) of weights and batch statistics; it is validated too.

    `decay`: the share of the old average in one update; null: no EMA. `every_steps`: optimizer steps between two
    updates, starting with the first step. `warmup_epochs`: during these, the EMA is a copy of the weights. `scaled`:
    the decay is meant for one update per image and a training of one epoch, as in torchvision.
    """

    decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    every_steps: Count = 1
    warmup_epochs: NonNegative = 0.0
    scaled: bool = False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TeacherConfig:
    """Knowledge distillation (Hinton et al. 2015). The teacher sees the student's images.

    `name`: the teacher's network, registered or timm/NAME; null: no teacher. `weights`: as in model.weights; null:
    timm's own weights; timm's weights and exports use their own normalisation, and weights from another file use
    data.mean and data.std, unless the name has a tag (timm/NETWORK.TAG), which selects the normalisation of these
    weights. `weight`: the loss is (1 - weight) · loss + weight · temperature² · KL(teacher, student). `temperature`:
    softens both.
    """

    name: Name | None = None
    weights: Name | None = None
    weight: Fraction = 0.5
    temperature: Positive = 1.0

    @model_validator(mode="after")
    def _check_name(self) -> Self:
        if self.name is not None and not self.name.startswith(TIMM_PREFIX):
            check_name("network", self.name, "recipe.teacher.name")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RecipeConfig:
    """How to train.

    `file`: the name of the recipe's file; only displayed. `source`: the origin of the recipe; only displayed.
    `published`: its published accuracy; only displayed. `epochs`: how many times the training images are used.
    `max_steps`: the number of optimizer steps after which the training ends before its last epoch. `batch_size`: the
    global batch size. `lr_batch_size`: the global batch that recipe.optimizer.lr is meant for; null: the batch size.
    `lr_scaling`: how to scale the learning rate from that batch to the batch size. `image_size`: training images, in
    pixels. `image_size_schedule`: [[epoch, pixels], …], with epochs counted from 1; from each of these epochs on, the
    training images have the given size, and before the first of them, that of recipe.image_size. `drop_path_rate`: the
    stochastic depth of the last block (Huang et al. 2016).
    """

    file: Name | None = None
    source: Name | None = None
    published: Name | None = None
    epochs: Count
    max_steps: Count | None = None
    batch_size: Count
    lr_batch_size: Count | None = None
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"
    image_size: Count = 224
    image_size_schedule: tuple[tuple[Count, Count], ...] = ()
    drop_path_rate: BelowOne = 0.0
    init: InitConfig = Field(default_factory=InitConfig)
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    mixing: MixingConfig = Field(default_factory=MixingConfig)
    ema: EmaConfig = Field(default_factory=EmaConfig)
    teacher: TeacherConfig = Field(default_factory=TeacherConfig)
    augmentation: AugmentationConfig = Field(default_factory=AugmentationConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    early_stopping: EarlyStoppingConfig = Field(default_factory=EarlyStoppingConfig)

    @model_validator(mode="after")
    def _check(self) -> Self:
        epochs = [epoch for epoch, _ in self.image_size_schedule]
        if epochs != sorted(set(epochs)):
            raise ValueError(f"recipe.image_size_schedule has epochs {epochs}, which must increase")
        if epochs and epochs[-1] > self.epochs:
            raise ValueError(f"recipe.image_size_schedule has epoch {epochs[-1]}, but recipe.epochs={self.epochs}")
        for name in ("warmup_lr", "min_lr"):
            if getattr(self.schedule, name) > self.optimizer.lr:
                raise ValueError(
                    f"recipe.schedule.{name}={getattr(self.schedule, name):g} is more than "
                    f"recipe.optimizer.lr={self.optimizer.lr:g}"
                )
        self._check_that_the_schedule_fits()
        names = ("loss", "top1", "top5", *self.evaluation.metrics)
        prefixes = ("val",) if self.ema.decay is None else ("val", "val_ema")
        self.early_stopping.check([f"{prefix}/{name}" for prefix in prefixes for name in names])
        if self.lr_scaling != "none" and self.lr_batch_size is None:
            raise ValueError(
                f"recipe.lr_scaling={self.lr_scaling} needs recipe.lr_batch_size, the batch for recipe.optimizer.lr"
            )
        return self

    def _check_that_the_schedule_fits(self) -> None:
        """Only a warm-up may be longer than the training, for a short trial run of a long recipe."""
        schedule = self.schedule
        spent = schedule.warmup_epochs + schedule.hold_epochs + schedule.cooldown_epochs
        if (schedule.hold_epochs or schedule.cooldown_epochs) and spent >= self.epochs:
            raise ValueError(
                f"recipe.schedule.warmup_epochs={schedule.warmup_epochs:g}, hold_epochs={schedule.hold_epochs:g} and "
                f"cooldown_epochs={schedule.cooldown_epochs:g} must be less than recipe.epochs={self.epochs} together: "
                "raise recipe.epochs or lower them"
            )

    @property
    def lr_factor(self) -> float:
        """The factor by which `lr_scaling` multiplies the learning rates of the schedule."""
        ratio = self.batch_size / (self.lr_batch_size or self.batch_size)
        return {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[self.lr_scaling]

    @property
    def lr(self) -> float:
        """The learning rate for `batch_size`."""
        return self.optimizer.lr * self.lr_factor

    @property
    def ema_decay(self) -> float | None:
        """The decay of the EMA in one update; None without an EMA."""
        if self.ema.decay is None or not self.ema.scaled:
            return self.ema.decay
        return 1 - min(1.0, (1 - self.ema.decay) * self.batch_size * self.ema.every_steps / self.epochs)

    def train_image_sizes(self) -> list[int]:
        """The different image sizes of all epochs, in the order of the epochs."""
        starts = [0, *(epoch - 1 for epoch, _ in self.image_size_schedule)]
        return list(dict.fromkeys(map(self.train_image_size, starts)))

    @property
    def best_by(self) -> str:
        """best.ckpt is from the epoch with the highest value of this metric: the EMA's if there is an EMA."""
        return "val/top1" if self.ema.decay is None else "val_ema/top1"

    @property
    def eval_image_size(self) -> int:
        return self.evaluation.image_size or self.train_image_size(self.epochs - 1)

    def train_image_size(self, epoch: int) -> int:
        """Size in pixels of the training images of `epoch`, which is counted from 0."""
        sizes = [size for start, size in self.image_size_schedule if start <= epoch + 1]
        return sizes[-1] if sizes else self.image_size
