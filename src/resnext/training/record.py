"""Rank 0 logs a training, and records it in the run directory, before the first step and after the last step."""

import math
import time

from lightning.pytorch import Trainer

from resnext.callbacks.best_checkpoint import check_best
from resnext.callbacks.summary import summarize
from resnext.loggers.csv import restore_metrics
from resnext.run.directory import Run
from resnext.run.kept_checkpoints import set_aside_later
from resnext.run.metrics import parse_rows
from resnext.runtime.device import describe_device, resolved_values
from resnext.runtime.world import World
from resnext.task.early_stopping import EarlyStop
from resnext.training.messages import log_header, log_result, log_resume
from resnext.training.plan import TrainingPlan


def restore_record(run: Run, plan: TrainingPlan, world: World) -> None:
    """Restores the rows that metrics.csv has lost since the checkpoint was written, and renames later checkpoints."""
    if world.rank > 0:
        return
    if plan.checkpoint is not None:
        restore_metrics(run.path / "metrics.csv", plan.checkpoint.metrics, plan.checkpoint.path.name)
    # the last epoch may be incomplete: recipe.max_steps
    epochs = math.ceil if plan.steps_done >= plan.steps else math.floor
    set_aside_later(run.checkpoints, epochs(plan.steps_done / plan.steps_per_epoch))


def announce(run: Run, plan: TrainingPlan, world: World) -> None:
    if world.rank == 0:
        log_header(run, plan, world)
        log_resume(run, plan)


def record_start(run: Run, plan: TrainingPlan, world: World) -> None:
    """Adds this start to run.json, and sets the status in summary.json."""
    if world.rank > 0:
        return
    trainer = plan.config.trainer
    facts = {"world_size": world.size, "from_step": plan.steps_done, "steps": plan.steps, "lr": plan.config.recipe.lr}
    run.record_start(**facts, device=describe_device(trainer), **resolved_values(trainer))
    run.update_summary(status="running")


def record_complete(run: Run, plan: TrainingPlan, trainer: Trainer) -> None:
    """Writes summary.json for a training that was already complete before this start.

    Raises:
        UserError: on every rank, if best.ckpt was lost.
    """
    trainer.strategy.setup_environment()  # connects the ranks
    assert plan.checkpoint is not None
    rows, best_by = parse_rows(plan.checkpoint.metrics), plan.config.recipe.best_by
    if trainer.is_global_zero:
        run.update_summary(steps=plan.steps_done, **summarize(rows, best_by))
    check_best(run, rows, best_by, trainer.strategy)


def record_early_stop(run: Run, plan: TrainingPlan, world: World, stop: EarlyStop | None) -> None:
    if world.rank == 0 and stop is not None:
        run.update_summary(stopped=stop.describe(plan.config.recipe.early_stopping))


def announce_result(run: Run, world: World, began: float) -> None:
    """`began` is a value of time.monotonic()."""
    if world.rank == 0:
        log_result(run, time.monotonic() - began)
