"""ClassificationTask: the LightningModule, with one network, one loss and their metrics."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
import torch.distributed
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from resnext.config.recipe import RecipeConfig
from resnext.models.freezing import find_frozen_modules
from resnext.task.accuracy import EvaluationScores, Scores
from resnext.task.early_stopping import EarlyStop
from resnext.task.epoch_loss import EpochLoss
from resnext.task.finite import FiniteGuard
from resnext.task.loss import Loss
from resnext.task.metrics import NamedMetrics
from resnext.task.mixing import draw_mix, micro_step_seeds, mix_images, mix_targets
from resnext.task.optimization import lr_at, set_lr, total_steps
from resnext.task.teacher import Teacher


class ClassificationTask(LightningModule):
    """Trains `network`, images [N, 3, H, W] → logits [N, classes].

    A step is an optimizer step; it has `trainer.accumulate_grad_batches` micro-steps. Logged steps are counted from 1.
    `train/loss` is the loss of that step only, as a mean over its micro-steps and the ranks. `train/epoch_loss` is the
    mean over all images of the epoch so far; it is logged with the last step of the epoch.

    Args:
        network: already in the memory format for the training.
        recipe: the slice `recipe` of the configuration.
        seed: the run's seed. (seed, step, micro-step, rank) determines dropout, mixing and similar draws.
        log_every_steps: steps between two logged steps. The last step of an epoch or of the training is always logged.
        loss, optimizer: of the training; None for a task that only validates.
        teacher: a network whose logits are learned in addition to the targets.
        num_classes: of the network, for recipe.evaluation.metrics; None: these are not computed.
        frozen: names of parts of the network, which stay in evaluation mode.
        skip_nonfinite: whether a step whose loss is not finite is skipped instead of ending the training.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: RecipeConfig,
        *,
        seed: int,
        log_every_steps: int,
        loss: Loss | None = None,
        optimizer: Optimizer | None = None,
        teacher: Teacher | None = None,
        num_classes: int | None = None,
        frozen: Sequence[str] = (),
        skip_nonfinite: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.recipe, self.seed, self.log_every_steps = recipe, seed, log_every_steps
        self.loss, self.optimizer, self.teacher = loss, optimizer, teacher
        self.validated = {"val": network}  # prefix of the metrics → network
        self.guard = FiniteGuard(network, skip=skip_nonfinite)
        self.scores = nn.ModuleDict({"val": EvaluationScores()})
        names = recipe.evaluation.metrics if num_classes is not None else ()
        self.named_metrics = nn.ModuleDict({"val": NamedMetrics(names, num_classes or 0)})
        self.last_scores: dict[str, Scores] = {}  # of the last validation, by prefix
        self.last_metrics: dict[str, float] = {}  # all metrics of the last validation, by column of metrics.csv
        self.last_loss: float | None = None  # train/loss of the last logged step
        self.early_stop: EarlyStop | None = None
        self._mixing_seed = 0
        self._epoch_loss = EpochLoss()
        self._losses: list[Tensor] = []  # of this step's micro-steps; empty between two steps, so never in a checkpoint
        self._frozen = find_frozen_modules(network, frozen)
        self._hold_frozen()  # Lightning does not call `train` before the first step

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self._hold_frozen()
        return self

    def _hold_frozen(self) -> None:
        for module in self._frozen:
            module.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def configure_optimizers(self) -> Optimizer:
        assert self.optimizer is not None, "needed for training"
        return self.optimizer

    def validate_also(self, prefix: str, network: nn.Module) -> None:
        """Also validates `network`, which is not trained. Its metrics begin with `prefix`."""
        self.validated[prefix] = network.eval().requires_grad_(False)
        self.scores[prefix] = EvaluationScores()
        self.named_metrics[prefix] = self._named_metrics("val").clone()

    @property
    def steps_per_epoch(self) -> int:
        return int(self.trainer.num_training_batches) // self.trainer.accumulate_grad_batches

    def micro_step(self, batch_idx: int) -> int:
        """The position of a batch in its optimizer step, counted from 0."""
        return batch_idx % self.trainer.accumulate_grad_batches

    def ends_step(self, batch_idx: int) -> bool:
        """Whether a batch is the last one of its optimizer step. After any other, the gradients are incomplete."""
        return self.micro_step(batch_idx + 1) == 0

    def ends_epoch(self, batch_idx: int) -> bool:
        return batch_idx + 1 == self.trainer.num_training_batches

    @property
    def epoch(self) -> int:
        """The epoch of the last completed step, counted from 1."""
        return math.ceil(self.global_step / self.steps_per_epoch)

    @property
    def is_done(self) -> bool:
        """Whether no step is left."""
        return self.early_stop is not None or self.global_step >= total_steps(self.recipe, self.steps_per_epoch)

    def on_fit_start(self) -> None:
        if self.teacher is not None:
            self.teacher.to(self.device)

    def on_train_start(self) -> None:
        """Stops at once if no steps are left: the training was interrupted during its last validation."""
        self.trainer.should_stop = self.is_done

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        step, micro_step = self.global_step, self.micro_step(batch_idx)
        network_seed, self._mixing_seed = micro_step_seeds(self.seed, step, micro_step, self.global_rank)
        torch.manual_seed(network_seed)
        set_lr(self.trainer.optimizers[0], lr_at(step, self.recipe, self.steps_per_epoch))
        if batch_idx == 0:
            self._epoch_loss.begin()
        if micro_step == 0:
            self.guard.begin_step()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = self._loss(*batch)
        self._losses.append(loss.detach())
        self._epoch_loss.add(loss, len(batch[0]))
        self.guard.add(self.global_step + 1, loss)
        if self.ends_step(batch_idx):
            self._end_step(self.global_step + 1, ends_epoch=self.ends_epoch(batch_idx))
        return loss

    def _loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """The loss of images [N, 3, H, W] and labels int64 [N], with the mixing and the teacher of the recipe."""
        mix = None
        if self.recipe.mixing.on:
            mix = draw_mix(self.recipe.mixing, images.shape[2], images.shape[3], self._mixing_seed)
            images = mix_images(images, mix)
        logits = self(images)
        if mix is not None:
            targets = mix_targets(targets, mix, logits.shape[1])
        assert self.loss is not None, "needed for training"
        loss = self.loss(logits.float(), targets)
        return loss if self.teacher is None else self.teacher.blend(loss, images, logits)

    def _end_step(self, step: int, *, ends_epoch: bool) -> None:
        """Logs here, not in on_train_batch_end: callbacks run before that hook, and one may interrupt the training."""
        losses, self._losses = self._losses, []
        is_last = step >= total_steps(self.recipe, self.steps_per_epoch)
        if ends_epoch or is_last or step % self.log_every_steps == 0:
            loss = float(self.trainer.strategy.reduce(torch.stack(losses).mean(), reduce_op="mean"))
            if not math.isfinite(loss) and not self.guard.skip:
                self.guard.check(step)
            self.last_loss = loss
            self._epoch_loss.read()
            mean = self._epoch_loss.mean(self.device) if ends_epoch or is_last else None
            lr = lr_at(step - 1, self.recipe, self.steps_per_epoch)
            named = {} if mean is None else {"train/epoch_loss": mean}
            self.log_metrics({"lr": lr, "train/loss": loss, **named}, step)
        if is_last:
            self.trainer.should_stop = True  # not max_steps: with it, Lightning treats every start as a resume

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["epoch_loss"] = self._epoch_loss.state(self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint.get("epoch_loss")
        self._epoch_loss.load_state(state, self.trainer.global_rank, self.trainer.world_size)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        assert optimizer_closure is not None
        if self.guard.skip:
            scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
            self.guard.take_step(self.global_step + 1, optimizer, optimizer_closure, scaled=scaled)
        else:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def on_validation_start(self) -> None:
        """Copies rank 0's batch statistics to all ranks. After that, no validation batch needs a collective."""
        for network in self.validated.values():
            network.to(self.device)
            if self.trainer.world_size > 1:
                for buffer in network.buffers():
                    torch.distributed.broadcast(buffer, src=0)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, targets = batch
        for prefix, network in self.validated.items():
            logits = network(images)
            self._scores(prefix).update(logits, targets)
            self._named_metrics(prefix).update(logits, targets)

    def on_validation_epoch_end(self) -> None:
        self.last_scores = {prefix: self._scores(prefix).compute() for prefix in self.validated}
        metrics = {}
        for prefix, scores in self.last_scores.items():
            self._scores(prefix).reset()
            metrics |= {f"{prefix}/loss": scores.loss, f"{prefix}/top1": scores.top1, f"{prefix}/top5": scores.top5}
            named = self._named_metrics(prefix)
            metrics |= {f"{prefix}/{name}": value for name, value in named.compute_floats().items()}
            named.reset()
        if self.recipe.evaluation.metrics and self.trainer.world_size > 1:
            metrics = self.trainer.strategy.broadcast(metrics)  # a GPU adds in any order: all ranks decide by these
        self.last_metrics = metrics
        self.log_dict(metrics, logger=False)  # for callbacks, such as the progress bar
        self.log_metrics(metrics, self.global_step)

    def _scores(self, prefix: str) -> EvaluationScores:
        scores = self.scores[prefix]
        assert isinstance(scores, EvaluationScores)
        return scores

    def _named_metrics(self, prefix: str) -> NamedMetrics:
        named = self.named_metrics[prefix]
        assert isinstance(named, NamedMetrics)
        return named

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Sends `metrics` to every logger, with the epoch, counted from 1."""
        for logger in self.loggers:
            logger.log_metrics({"epoch": math.ceil(step / self.steps_per_epoch), **metrics}, step=step)
