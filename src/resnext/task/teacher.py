"""The teacher of a knowledge distillation: a frozen network. The student learns its logits."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from resnext.config.checkpoint_metadata import peek_metadata
from resnext.config.data import DataConfig
from resnext.config.recipe import TeacherConfig
from resnext.config.schema import ModelConfig
from resnext.errors import UserError
from resnext.models.factory import TIMM_PREFIX, build_model, check_model_name, load_into
from resnext.models.weights import load_weights
from resnext.task.loss import distillation_loss

SECTION = "recipe.teacher"  # of the configuration


class Teacher:
    """A frozen `network` in evaluation mode. Not a module, so that no checkpoint and no optimizer holds it.

    It sees the student's images, converted from the normalisation of `data` to `mean` and `std`.
    """

    def __init__(
        self, network: nn.Module, config: TeacherConfig, data: DataConfig, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.config = config
        theirs, ours = (_per_channel(each) for each in (std, data.std))
        self.scale, self.shift = ours / theirs, (_per_channel(data.mean) - _per_channel(mean)) / theirs

    def to(self, device: torch.device) -> None:
        self.network.to(device)
        self.scale, self.shift = self.scale.to(device), self.shift.to(device)

    def blend(self, loss: Tensor, images: Tensor, logits: Tensor) -> Tensor:
        """The weighted mean of the student's `loss` and the distillation loss of its `logits` [N, classes]."""
        with torch.no_grad():
            teacher_logits = self.network(images * self.scale + self.shift)
        distilled = distillation_loss(logits, teacher_logits, self.config.temperature)
        return (1 - self.config.weight) * loss + self.config.weight * distilled

    def fingerprint(self) -> str:
        """A digest of the weights: a run must keep the teacher that it started with."""
        digest = hashlib.sha256()
        for name, value in self.network.state_dict().items():
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]


def build_teacher(config: TeacherConfig, num_classes: int, data: DataConfig) -> Teacher | None:
    """Builds the teacher, or returns None if the recipe has no teacher.

    Weights from timm, and exports, use the normalisation that they were trained with. Weights from another file do the
    same if the name has a tag (timm/NETWORK.TAG). Other files, and checkpoints of ours (.ckpt), use that of `data`.

    Raises:
        UserError: if the name is unknown, or the weights cannot be loaded or are not for `num_classes` classes.
    """
    if config.name is None:
        return None
    model = ModelConfig(name=config.name, weights=config.weights or _own_weights(config.name))
    check_model_name(config.name, SECTION)
    network = build_model(replace(model, weights=None), num_classes)
    load_into(network, load_weights(str(model.weights), SECTION), model, new_head=False, section=SECTION)
    weights = Path(str(model.weights))
    if weights.suffix != ".ckpt" and (export := peek_metadata(weights)) is not None:
        return Teacher(network, config, data, export.mean, export.std)
    trained_with_data = weights.exists() and ("." not in config.name or weights.suffix == ".ckpt")
    pretrained = {} if trained_with_data else getattr(network, "pretrained_cfg", None) or {}
    return Teacher(network, config, data, pretrained.get("mean", data.mean), pretrained.get("std", data.std))


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(values).view(1, -1, 1, 1)


def _own_weights(name: str) -> str:
    if not name.startswith(TIMM_PREFIX):
        raise UserError(f"{SECTION}.name={name} needs {SECTION}.weights, such as runs/NAME/checkpoints/best.ckpt")
    return f"timm:{name.removeprefix(TIMM_PREFIX)}"
