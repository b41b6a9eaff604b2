"""WeightEma: an exponential moving average of the network, which is validated too."""

import copy
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn

from resnext.config.recipe import RecipeConfig
from resnext.models.weights import EMA_KEY, NETWORK_PREFIX, network_weights
from resnext.task.classification import ClassificationTask


class WeightEma(Callback):
    """Averages parameters and floating-point buffers, as torchvision and timm do. Integer buffers are copied.

    The first update, and each update during the average's warm-up, copies the network. So the average exists from the
    first step on, and does not include the initial weights. It depends only on the steps. Every checkpoint holds
    it as `state_dict_ema`, timm's name.
    """

    def __init__(self, recipe: RecipeConfig) -> None:
        self.recipe = recipe

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        assert isinstance(pl_module, ClassificationTask)
        self.network = copy.deepcopy(pl_module.network)
        pl_module.validate_also("val_ema", self.network)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.network.to(pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, ClassificationTask)
        step = trainer.global_step - 1
        if pl_module.ends_step(batch_idx) and step % self.recipe.ema.every_steps == 0:
            warmup_steps = self.recipe.ema.warmup_epochs * pl_module.steps_per_epoch
            decay = self.recipe.ema_decay if step >= max(warmup_steps, 1) else 0.0
            assert decay is not None, "fit builds this callback for a recipe with an average"
            update_average(self.network, pl_module.network, decay)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[EMA_KEY] = {NETWORK_PREFIX + name: value for name, value in self.network.state_dict().items()}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.network.load_state_dict(network_weights(checkpoint[EMA_KEY]))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """average ← decay · average + (1 - decay) · network, for every floating-point tensor of their state."""
    averaged, values = list(average.state_dict().values()), list(network.state_dict().values())
    pairs = list(zip(averaged, values, strict=True))
    floating = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_([pair[0] for pair in floating], [pair[1] for pair in floating], 1 - decay)
    for mean, value in pairs:
        if not mean.is_floating_point():
            mean.copy_(value)
