"""plan_training: collects everything that is known about a training before its first step."""

from dataclasses import dataclass, replace
from pathlib import Path

from resnext.config.batch import BatchSplit
from resnext.config.logger import check_logger_packages
from resnext.config.schema import Config
from resnext.data.images import load_images
from resnext.data.index import check_enough, identify_data
from resnext.data.sampler import steps_per_epoch
from resnext.errors import UserError
from resnext.models.weights import NETWORK_PREFIX
from resnext.run.directory import Run
from resnext.run.metrics import parse_rows
from resnext.runtime.checkpoint import Checkpoint, check_network, find_latest
from resnext.runtime.device import resolve_auto, resolved_values
from resnext.runtime.world import World
from resnext.task.early_stopping import EarlyStop, History, find_early_stop
from resnext.task.optimization import total_steps
from resnext.task.teacher import Teacher
from resnext.training.parts import Parts, build_parts


@dataclass(frozen=True)
class TrainingPlan:
    """What is trained, on which data, and from which step to which step.

    Attributes:
        config: the configuration of this start, without `auto` values.
        split: how the ranks share the global batch.
        checkpoint: the checkpoint from which the training continues; None at the first start.
    """

    config: Config
    parts: Parts
    split: BatchSplit
    checkpoint: Checkpoint | None = None

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self.parts.train), self.config.recipe.batch_size)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training."""
        return total_steps(self.config.recipe, self.steps_per_epoch)

    @property
    def steps_done(self) -> int:
        return self.checkpoint.step if self.checkpoint is not None else 0

    @property
    def validated(self) -> bool:
        """Whether no validation is missing at `steps_done`."""
        return self.checkpoint is None or self.checkpoint.validated

    @property
    def is_complete(self) -> bool:
        """Whether no step and no validation is left."""
        if self.checkpoint is None or not self.validated:
            return False
        return self.steps_done >= self.steps or self.early_stop is not None

    @property
    def history(self) -> History:
        """The validations until `steps_done`, for early stopping.

        best.ckpt is written in a validation: it has the row of this validation, which the next start computes again.
        """
        monitor = self.config.recipe.early_stopping.monitor
        if monitor is None or self.checkpoint is None:
            return []
        rows = [row for row in parse_rows(self.checkpoint.metrics) if row.get(monitor)]
        done = [row for row in rows if self.validated or int(row["step"]) < self.steps_done]
        return [(int(row["epoch"]), float(row[monitor])) for row in done]

    @property
    def early_stop(self) -> EarlyStop | None:
        """Why no step is left, if the training has ended early."""
        return find_early_stop(self.history, self.config.recipe.early_stopping)

    @property
    def checkpoint_path(self) -> Path | None:
        return self.checkpoint.path if self.checkpoint is not None else None


def plan_training(run: Run, world: World, parts: Parts | None = None) -> TrainingPlan:
    """Every rank calls this function. `parts` are the parts that this process built when it checked the configuration.

    At the first start, rank 0 writes the resolved values and the teacher's fingerprint to run.json.

    Raises:
        UserError: if the data, the checkpoint, the teacher or this machine does not fit the run, or a part cannot be
            built.
    """
    config = _resolve(run, world)
    world.check(config.trainer)
    check_logger_packages(config.logger)
    if config.trainer.micro_batch_size == "auto":
        raise UserError(
            f"{run.path} has trainer.micro_batch_size=auto: `resnext train` or `resnext resume` finds the number"
        )
    split = config.split_batch(world.size)  # may raise, on all ranks: so before any rank waits for another
    train, val = (parts.train, parts.val) if parts is not None else load_images(config.data)
    run.check_data(identify_data(train, val))
    check_enough(val, world.size)
    checkpoint = find_latest(run.checkpoints, run.mark, set_aside=world.rank == 0)
    model = config.model if checkpoint is None else replace(config.model, weights=None)  # they are in the checkpoint
    if parts is None or (checkpoint is None and parts.model != model):
        parts = build_parts(replace(config, model=model), train, val)
    if checkpoint is not None:
        check_network(checkpoint, parts.network.state_dict(), NETWORK_PREFIX)
    if parts.teacher is not None:
        _check_teacher(run, config, parts.teacher, is_writer=world.rank == 0)
    return TrainingPlan(config, parts, split, checkpoint)


def _resolve(run: Run, world: World) -> Config:
    """The configuration of this start. Its `auto` values become the values that the first start resolved."""
    config, kept = run.config, run.info.get("resolved")
    trainer = resolve_auto(config.trainer, kept)
    if kept is None and world.rank == 0:
        run.update_info(resolved=resolved_values(trainer))
    return replace(config, trainer=trainer)


def _check_teacher(run: Run, config: Config, teacher: Teacher, *, is_writer: bool) -> None:
    """Raises UserError if the teacher's weights differ from the weights that the run began with."""
    fingerprint, kept = teacher.fingerprint(), run.info.get("teacher")
    if kept not in (None, fingerprint):
        raise UserError(
            f"the weights of recipe.teacher.name={config.recipe.teacher.name} are not those that {run.path} began "
            "with: restore them, or start another RUN (run=NAME)"
        )
    if kept is None and is_writer:
        run.update_info(teacher=fingerprint)
