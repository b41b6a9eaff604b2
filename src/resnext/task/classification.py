"""ClassificationTask: the LightningModule. One network, one loss, and what is logged of them."""

from typing import Any

import torch
import torch.distributed
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from resnext.config import RecipeConfig
from resnext.data.order import derive_seed
from resnext.task.accuracy import EvaluationScores, Scores
from resnext.task.optimization import build_optimizer, lr_at, total_steps


class ClassificationTask(LightningModule):
    """Trains `network`, images [N, 3, H, W] → logits [N, classes].

    Steps are optimizer steps; a step has `trainer.accumulate_grad_batches` micro-steps. What is logged at step s is
    of the s-th optimizer step alone, counted from 1: `train/loss` is its mean over micro-steps and ranks.

    Args:
        network: in the memory format it is to train in.
        recipe: its slice of the configuration.
        seed: the run's; dropout and the like follow from (seed, step, micro-step, rank).
        log_every_steps: between two lines; an epoch's last step is always logged.
    """

    def __init__(self, network: nn.Module, recipe: RecipeConfig, *, seed: int, log_every_steps: int) -> None:
        super().__init__()
        self.network = network
        self.recipe, self.seed, self.log_every_steps = recipe, seed, log_every_steps
        self.criterion = nn.CrossEntropyLoss(label_smoothing=recipe.loss.label_smoothing)
        self.scores = EvaluationScores()
        self.last_scores: Scores | None = None  # of the last validation
        self._losses: list[Tensor] = []  # of this step's micro-steps; empty between two steps, so never in a checkpoint

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def configure_optimizers(self) -> Optimizer:
        return build_optimizer(self.network, self.recipe.optimizer)

    @property
    def steps_per_epoch(self) -> int:
        return int(self.trainer.num_training_batches) // self.trainer.accumulate_grad_batches

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        step, micro_step = self.global_step, batch_idx % self.trainer.accumulate_grad_batches
        torch.manual_seed(derive_seed(self.seed, step, micro_step, self.global_rank))
        lr = lr_at(step, self.recipe, self.steps_per_epoch)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = lr

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, targets = batch
        loss = self.criterion(self(images), targets)
        self._losses.append(loss.detach())
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0:
            self._end_step(self.global_step + 1, ends_epoch=batch_idx + 1 == self.trainer.num_training_batches)
        return loss

    def _end_step(self, step: int, *, ends_epoch: bool) -> None:
        """Logs here, not at the batch's end, where callbacks come first and one of them may interrupt the training."""
        losses, self._losses = self._losses, []
        if ends_epoch or step % self.log_every_steps == 0:
            loss = self.trainer.strategy.reduce(torch.stack(losses).mean(), reduce_op="mean")
            lr = lr_at(step - 1, self.recipe, self.steps_per_epoch)
            self.log_metrics({"lr": lr, "train/loss": float(loss)}, step)
        if step >= total_steps(self.recipe, self.steps_per_epoch):
            self.trainer.should_stop = True  # Lightning's own max_steps takes every start for a resumed one

    def on_validation_start(self) -> None:
        """All ranks take rank 0's batch statistics; they kept their own, and no rank waits for another from here."""
        if self.trainer.world_size > 1:
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, targets = batch
        self.scores.update(self(images), targets)

    def on_validation_epoch_end(self) -> None:
        scores = self.scores.compute()
        self.scores.reset()
        metrics = {"val/loss": scores.loss, "val/top1": scores.top1, "val/top5": scores.top5}
        self.log_dict(metrics, logger=False)  # for the checkpoint of the best, and for `evaluate`
        self.log_metrics(metrics, self.global_step)
        self.last_scores = scores

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """To every logger, with the epoch counted from 1."""
        for logger in self.loggers:
            logger.log_metrics({"epoch": self.current_epoch + 1, **metrics}, step=step)
