"""The loss part of a recipe. Imports no torch."""

from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from resnext.config.parts import parse_options
from resnext.config.types import STRICT, BelowOne, Name, NonNegative, Options, Positive
from resnext.registry import find_part, register_loss

OURS = ("cross_entropy", "binary_cross_entropy", "focal")  # their options are the other keys of recipe.loss
SOFTMAX = ("cross_entropy", "focal")
GAMMA = 2.0  # the best value in the focal-loss paper (Lin et al. 2017)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LossConfig:
    """Softmax cross-entropy, the focal loss, or binary cross-entropy of each class, a mean over images and classes.

    `name`: cross_entropy, binary_cross_entropy, focal, or a registered loss. `gamma`: the focal loss multiplies each
    class's part of the cross-entropy by (1 - p)^gamma, where p is the softmax probability of the class (Lin et al.
    2017); null: 2. `class_weights`: the weight of torch's cross-entropy, one for each class in the order of the class
    names, or balanced: the training images divided by (classes · images of the class), as in scikit-learn.
    `label_smoothing`: as in torch. `target_threshold`: for binary cross-entropy, soft targets above it are 1, the
    others 0, so that both classes of a mixed image have target 1 (Wightman et al. 2021). `options`: of a registered
    loss, in place of the other keys.
    """

    name: Name = "cross_entropy"
    gamma: NonNegative | None = None
    class_weights: Literal["balanced"] | Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    label_smoothing: BelowOne = 0.0
    target_threshold: BelowOne | None = None
    options: Options = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        options = parse_options("loss", self.name, self.options, name_key="recipe.loss.name", key="recipe.loss.options")
        if self.target_threshold is not None and self.name != "binary_cross_entropy":
            raise ValueError("recipe.loss.target_threshold needs recipe.loss.name=binary_cross_entropy")
        if self.gamma is not None and self.name != "focal":
            raise ValueError(f"recipe.loss.gamma={self.gamma:g} needs recipe.loss.name=focal")
        if self.class_weights is not None and self.name not in SOFTMAX:
            raise ValueError(
                f"recipe.loss.class_weights needs recipe.loss.name={' or '.join(SOFTMAX)}, not {self.name}; "
                "give recipe.loss.class_weights=null"
            )
        if self.label_smoothing and self.name not in OURS:
            raise ValueError(
                f"recipe.loss.label_smoothing needs recipe.loss.name={' or '.join(OURS)}; "
                "give recipe.loss.label_smoothing=0"
            )
        object.__setattr__(self, "options", options)
        return self

    @property
    def arguments(self) -> Any:
        """The argument of the functions that build and describe the loss."""
        return self if self.name in OURS else self.options

    @property
    def words(self) -> str:
        """The loss's own description; without one, its name and options."""
        part = find_part("loss", self.name)
        assert part is not None
        if part.describe is not None:
            return part.describe(self.arguments)
        return ", ".join([self.name, *(f"{key} {value}" for key, value in asdict(self.options).items())])


def _describe_ours(config: LossConfig) -> str:
    gamma = GAMMA if config.gamma is None else config.gamma
    names = {"binary_cross_entropy": "BCE", "focal": f"focal loss, gamma {gamma:g}"}
    threshold = f" of targets above {config.target_threshold:g}" if config.target_threshold is not None else ""
    smoothing = f", smoothing {config.label_smoothing:g}" if config.label_smoothing else ""
    return names.get(config.name, "cross-entropy") + threshold + smoothing + _describe_weights(config.class_weights)


def _describe_weights(class_weights: str | tuple[float, ...] | None) -> str:
    if class_weights is None or isinstance(class_weights, str):
        return f", {class_weights} class weights" if class_weights else ""
    return f", class weights {min(class_weights):g} to {max(class_weights):g}"


# task/loss.py has the functions that build them, because this module must not import torch.
register_ours = {name: register_loss(name, describe=_describe_ours) for name in OURS}
