"""fit(run): the steps of a training. A first start, a resume and a requeue all make this one call."""

import logging
import time
import warnings
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from resnext.callbacks.best_checkpoint import BestCheckpoint
from resnext.callbacks.early_stopping import EarlyStopping
from resnext.callbacks.ema import WeightEma
from resnext.callbacks.last_checkpoint import LastCheckpoint
from resnext.callbacks.loader_hint import LoaderHint
from resnext.callbacks.progress import ProgressReport
from resnext.callbacks.save_time_check import SaveTimeCheck
from resnext.callbacks.stall_watch import StallWatch
from resnext.callbacks.summary import SummaryWriter
from resnext.callbacks.throughput import Throughput
from resnext.config.checkpoint_metadata import CheckpointMetadata
from resnext.data.datamodule import ImageDataModule
from resnext.data.pack import PackedImages
from resnext.loggers.csv import CsvLogger
from resnext.loggers.named import build_named_loggers
from resnext.loggers.wandb import build_wandb_logger, is_wanted
from resnext.run.directory import Run
from resnext.runtime.checkpoint import LAST
from resnext.runtime.logs import EVALUATION_MODE, logging_to
from resnext.runtime.signals import StopRequest
from resnext.runtime.slurm_job import SlurmJob, is_slurm_rank
from resnext.runtime.world import World
from resnext.task.classification import ClassificationTask
from resnext.terminal import pluralize
from resnext.training.ending import keeping_status, report_interrupted_wait
from resnext.training.messages import describe_best
from resnext.training.notification import notify
from resnext.training.parts import Parts
from resnext.training.pictures import send_first_pictures
from resnext.training.plan import TrainingPlan, plan_training
from resnext.training.record import (
    announce,
    announce_result,
    record_complete,
    record_early_stop,
    record_start,
    restore_record,
)
from resnext.training.trainer import build_trainer

log = logging.getLogger(__name__)


def fit(run: Run, stop: StopRequest | None = None, parts: Parts | None = None) -> None:
    """Trains `run` from its newest checkpoint to its end. Every rank calls this function.

    `stop` may already hold a signal. `parts` are the parts that this process built when it checked the configuration
    before the run was made. Under srun, all ranks stop together: when one rank exits, srun kills the others.

    Raises:
        UserError: if another process trains the run, or its data, its configuration or this machine does not fit.
        Interrupted: after a signal; the state is saved.
        RunFailed: after any other error; its traceback is in log.txt.
    """
    world, stop = World.from_environment(), stop or StopRequest()
    with ExitStack() as stack:
        stack.enter_context(stop.received(deferred=is_slurm_rank()))
        if world.rank == 0:
            stack.enter_context(run.lock())
        stack.enter_context(logging_to(run.path, world.rank))
        stack.enter_context(stop.ends_hanging_process(lambda signum: report_interrupted_wait(run, world, signum)))
        if run.summary["status"] == "finished":
            log.info("%s is finished: %s", run.path, describe_best(run))
            return
        with keeping_status(run, world):
            _train(run, world, stop, parts)


def _train(run: Run, world: World, stop: StopRequest, parts: Parts | None) -> None:
    began = time.monotonic()
    plan = plan_training(run, world, parts)
    restore_record(run, plan, world)
    if plan.is_complete:
        record_complete(run, plan, build_trainer(plan.config, world, run.path, callbacks=[], loggers=[]))
        early_stop = plan.early_stop
    else:
        announce(run, plan, world)
        task = build_task(plan)
        datamodule = build_datamodule(plan, run.path / "skipped.txt")
        callbacks = build_callbacks(run, plan, stop)
        loggers = build_loggers(run, plan) if world.rank == 0 else []
        if world.rank == 0:
            send_first_pictures(plan.config, plan.parts.train, plan.parts.val, world.size)
        trainer = build_trainer(
            plan.config, world, run.path, callbacks=callbacks, loggers=loggers, checkpoint=plan.checkpoint
        )
        record_start(run, plan, world)
        trainer.fit(task, datamodule, ckpt_path=plan.checkpoint_path, weights_only=True)
        early_stop = task.early_stop
        if trainer.global_step < plan.steps and early_stop is None:
            raise RuntimeError(f"training ended after {trainer.global_step} of {pluralize(plan.steps, 'step')}")
    record_early_stop(run, plan, world, early_stop)
    announce_result(run, world, began)


def build_task(plan: TrainingPlan) -> ClassificationTask:
    """The task with its network in this start's memory format, compiled if trainer.compile is true."""
    config, network = plan.config, plan.parts.network
    if config.model.freeze:
        warnings.filterwarnings("ignore", message=EVALUATION_MODE)
    if config.trainer.channels_last:
        network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if config.trainer.compile:
        network.compile()  # in place: torch.compile(network) would rename every weight
    return ClassificationTask(
        network,
        config.recipe,
        seed=config.seed,
        log_every_steps=config.logger.every_steps,
        loss=plan.parts.loss,
        optimizer=plan.parts.optimizer,
        teacher=plan.parts.teacher,
        num_classes=len(plan.parts.train.classes),
        frozen=config.model.freeze,
        skip_nonfinite=config.trainer.on_nonfinite == "skip",
    )


def build_datamodule(
    plan: TrainingPlan, skipped: Path, kind: type[ImageDataModule] = ImageDataModule
) -> ImageDataModule:
    config, parts = plan.config, plan.parts
    return kind(
        config.data,
        config.recipe,
        parts.train,
        parts.val,
        parts.transforms,
        seed=config.seed,
        skipped=skipped,
    )


def build_callbacks(run: Run, plan: TrainingPlan, stop: StopRequest) -> list[Callback]:
    """The callbacks in the order in which Lightning calls them, except that it calls checkpoint callbacks last."""
    config, recipe = plan.config, plan.config.recipe
    timeout = timedelta(minutes=config.trainer.timeout_minutes)
    pause = config.trainer.pause_after_epochs
    metadata = CheckpointMetadata.of(config, plan.parts.train.classes)
    saver = LastCheckpoint(run.checkpoints / LAST, config.checkpoint, stop, timeout, run.mark, metadata, pause)
    throughput = Throughput(recipe.batch_size, config.logger.every_steps, saver.pauses)
    return [
        *([WeightEma(recipe)] if recipe.ema.decay else []),
        *([EarlyStopping(recipe.early_stopping, plan.history)] if recipe.early_stopping.monitor else []),
        throughput,
        ProgressReport(throughput, plan.steps, recipe.epochs),
        LoaderHint(throughput, config.data, is_packed=isinstance(plan.parts.train, PackedImages)),
        SummaryWriter(run, throughput, recipe.best_by),
        StallWatch(config.trainer.timeout_minutes, lambda message: notify(run, "stalled", message)),
        saver,
        BestCheckpoint(run, recipe.best_by),
        *([SaveTimeCheck(config.slurm.signal_seconds_before_end, saver)] if SlurmJob.current() else []),
        *plan.parts.callbacks,
    ]


def build_loggers(run: Run, plan: TrainingPlan) -> list[Logger]:
    """The loggers of rank 0. The other ranks have no loggers."""
    config = plan.config
    average = config.recipe.ema.decay is not None
    names = config.recipe.evaluation.metrics
    csv = CsvLogger(run.path, plan.steps_done, validated=plan.validated, average=average, names=names)
    loggers: list[Logger] = [csv]  # the first: it drops the rows that this start computes again
    if is_wanted(config.logger.mode):
        loggers.append(build_wandb_logger(config, run.path, run.info["wandb_id"]))
    return [*loggers, *build_named_loggers(config.logger, run)]
