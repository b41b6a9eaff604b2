"""The loss part of a recipe. Imports no torch."""

from dataclasses import asdict
from typing import Any, Self

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from resnext.config.parts import parse_options
from resnext.config.types import STRICT, BelowOne, Name, Options
from resnext.registry import find_part, register_loss

OURS = ("cross_entropy", "binary_cross_entropy")  # their options are the other keys of recipe.loss


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LossConfig:
    """Softmax cross-entropy, or binary cross-entropy of each class, as a mean over images and classes.

    `label_smoothing` is as in torch. `target_threshold`, for binary cross-entropy: soft targets above it are 1, the
    others 0, so that both classes of a mixed image have target 1 (Wightman et al. 2021). A registered loss instead has
    `options`: the fields of its options class (docs/extending.md).
    """

    name: Name = "cross_entropy"
    label_smoothing: BelowOne = 0.0
    target_threshold: BelowOne | None = None
    options: Options = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        options = parse_options("loss", self.name, self.options, name_key="recipe.loss.name", key="recipe.loss.options")
        if self.target_threshold is not None and self.name != "binary_cross_entropy":
            raise ValueError("recipe.loss.target_threshold needs recipe.loss.name=binary_cross_entropy")
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
    name = "BCE" if config.name == "binary_cross_entropy" else "cross-entropy"
    threshold = f" of targets above {config.target_threshold:g}" if config.target_threshold is not None else ""
    return name + threshold + (f", smoothing {config.label_smoothing:g}" if config.label_smoothing else "")


# task/loss.py has the functions that build them, because this module must not import torch.
register_ours = {name: register_loss(name, describe=_describe_ours) for name in OURS}
