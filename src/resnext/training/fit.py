"""fit(run): the table of contents of a training. Starting, resuming and being requeued are this one call."""

import logging
import multiprocessing
import shlex
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import timedelta

import torch
import torch.distributed
import wandb
from lightning.pytorch.loggers import Logger
from torch import nn

from resnext.callbacks.best_checkpoint import BestCheckpoint, describe_lost_best
from resnext.callbacks.ema import WeightEma
from resnext.callbacks.last_checkpoint import LastCheckpoint, SaveFailed
from resnext.callbacks.progress import ProgressReport
from resnext.callbacks.save_time_check import SaveTimeCheck
from resnext.callbacks.summary import SummaryWriter, summarize
from resnext.callbacks.throughput import Throughput
from resnext.config.schema import Config
from resnext.data.datamodule import ImageDataModule
from resnext.data.images import load_images
from resnext.data.index import identify_data
from resnext.data.sampler import steps_per_epoch
from resnext.errors import Interrupted, RunFailed, UserError, describe_error
from resnext.loggers.csv import CsvLogger, restore_metrics
from resnext.loggers.wandb import build_wandb_logger, is_wanted
from resnext.models.factory import build_model
from resnext.run.directory import Run
from resnext.run.metrics import parse_rows
from resnext.runtime.checkpoint import LAST, Checkpoint, check_network, find_latest
from resnext.runtime.device import describe_device, resolve_auto, resolved_values
from resnext.runtime.library_messages import is_gloo_failure, is_timeout
from resnext.runtime.logs import logging_to
from resnext.runtime.signals import NEAR_THE_END, StopRequest
from resnext.runtime.slurm_job import SlurmJob, is_slurm_rank, is_under_batch_script
from resnext.runtime.world import World
from resnext.task.classification import ClassificationTask
from resnext.task.finite import NonFiniteLoss
from resnext.task.optimization import total_steps
from resnext.task.teacher import Teacher, build_teacher
from resnext.training.messages import describe_best, log_header, log_result, log_resume
from resnext.training.trainer import build_trainer

log = logging.getLogger(__name__)


def fit(run: Run, stop: StopRequest | None = None) -> None:
    """Trains `run` from its newest checkpoint to its end. Every rank calls it.

    `stop` knows of signals that came before. Under srun no rank leaves alone: srun would end the others.

    Raises:
        UserError: if another process trains it, or its data, configuration or machine do not allow it.
        Interrupted: after a signal, with the state saved.
        RunFailed: after any other error; its traceback is in log.txt.
    """
    world, stop = World.from_environment(), stop or StopRequest()
    with ExitStack() as stack:
        stack.enter_context(stop.received(deferred=is_slurm_rank()))
        if world.rank == 0:
            stack.enter_context(run.lock())
        stack.enter_context(logging_to(run.path, world.rank))
        stack.enter_context(stop.ends_what_hangs(lambda signum: _leave_hanging(run, world, signum)))
        if run.summary["status"] == "finished":
            log.info("%s is finished: %s", run.path, describe_best(run))
            return
        _train_and_keep_status(run, world, stop)


def _train_and_keep_status(run: Run, world: World, stop: StopRequest) -> None:
    """Whatever ends the training, summary.json says so, and W&B is not waited for without bound."""
    status = "failed"
    try:
        _train(run, world, stop)
        status = "finished"
    except Interrupted as error:
        status = _status_after(error.signum)
        log.info("interrupted after %d steps; %s", run.summary.get("steps", 0), _what_next(run))
        raise error from None
    except UserError:
        log.error("refused", exc_info=True)
        raise
    except Exception as error:
        log.error("the training broke", exc_info=True)
        if world.size > 1 and _is_said_elsewhere(error, world):
            raise RunFailed from error
        raise RunFailed(f"{_reason(error, run.config)} (traceback in {run.path}/log.txt)") from error
    finally:
        for loader in multiprocessing.active_children():
            loader.kill()  # one that hangs would be waited for at the interpreter's exit
        if world.rank == 0:
            run.update_summary(status=status)
            _finish_wandb(exit_code=0 if status == "finished" else 1)
        if status != "failed" and torch.distributed.is_initialized():
            if is_slurm_rank():
                with suppress(RuntimeError):  # one that died while leaving changes nothing of how this one ends
                    torch.distributed.barrier()  # srun ends rank 0 in the middle of this if another leaves first
            torch.distributed.destroy_process_group()  # at the interpreter's exit its threads may abort the process


def _leave_hanging(run: Run, world: World, signum: int) -> None:
    """The last words of a process that hangs in a library while there is nothing to save."""
    log.info("interrupted while waiting for another process; %s", _what_next(run))
    if world.rank == 0:
        run.update_summary(status=_status_after(signum))


def _status_after(signum: int) -> str:
    return "preempted" if signum in NEAR_THE_END else "interrupted"


def _finish_wandb(exit_code: int) -> None:
    """Without an error: how the training ended is known by now, and W&B's own process may be gone."""
    try:
        wandb.finish(exit_code=exit_code)
    except Exception as error:
        log.warning("W&B could not finish: %s", describe_error(error))


def _train(run: Run, world: World, stop: StopRequest) -> None:
    began = time.monotonic()
    config = _resolve(run, world)
    world.check(config.trainer)
    config.split_batch(world.size)  # on all ranks, before one of them waits for another
    train, val = load_images(config.data)
    run.check_data(identify_data(train, val))
    checkpoint = find_latest(run.checkpoints, run.mark, set_aside=world.rank == 0)
    if checkpoint is not None and world.rank == 0:
        restore_metrics(run.path / "metrics.csv", checkpoint.metrics, checkpoint.path.name)
    per_epoch = steps_per_epoch(len(train), config.recipe.batch_size)
    steps = total_steps(config.recipe, per_epoch)
    done, validated = (checkpoint.step, checkpoint.validated) if checkpoint is not None else (0, True)
    teacher = _build_teacher(run, config, len(train.classes), is_writer=world.rank == 0)
    task = _build_task(config, len(train.classes), checkpoint, teacher)
    if checkpoint is not None and done >= steps and validated:
        rows = parse_rows(checkpoint.metrics)
        if world.rank == 0:
            run.update_summary(steps=done, **summarize(rows, config.recipe.best_by))
        if (lost := describe_lost_best(run, rows, config.recipe.best_by)) is not None:
            raise UserError(lost)
        if world.rank == 0:
            log_result(run, time.monotonic() - began)
        return
    if world.rank == 0:
        log_header(run, config, world, train, val, done)
        if checkpoint is not None:
            log_resume(run, config, checkpoint, per_epoch)

    datamodule = ImageDataModule(
        config.data, config.recipe, train, val, seed=config.seed, skipped=run.path / "skipped.txt"
    )
    throughput = Throughput(config.recipe.batch_size, config.logger.every_steps)
    timeout = timedelta(minutes=config.trainer.timeout_minutes)
    saver = LastCheckpoint(run.checkpoints / LAST, config.checkpoint, stop, timeout, run.mark)
    callbacks = [
        *([WeightEma(config.recipe)] if config.recipe.ema.decay else []),
        throughput,
        ProgressReport(throughput, steps, config.recipe.epochs),
        SummaryWriter(run, throughput, config.recipe.best_by),
        saver,
        BestCheckpoint(run, config.recipe.best_by),
        *([SaveTimeCheck(config.slurm.signal_seconds_before_end, saver)] if SlurmJob.current() else []),
    ]
    loggers = _build_loggers(run, config, done, validated=validated) if world.rank == 0 else []
    trainer = build_trainer(config, world, run.path, callbacks=callbacks, loggers=loggers)
    if world.rank == 0:
        device, values = describe_device(config.trainer), resolved_values(config.trainer)
        facts = {"world_size": world.size, "from_step": done, "steps": steps, "lr": config.recipe.lr}
        run.record_start(**facts, device=device, **values)
        run.update_summary(status="running")
    trainer.fit(task, datamodule, ckpt_path=checkpoint.path if checkpoint is not None else None, weights_only=True)
    if trainer.global_step < steps:
        raise RuntimeError(f"training ended after {trainer.global_step} of {steps} steps")
    if world.rank == 0:
        log_result(run, time.monotonic() - began)


def _resolve(run: Run, world: World) -> Config:
    """The configuration of the newest start, with what is `auto` as the first start found it on its machine."""
    config, kept = run.config, run.info.get("resolved")
    trainer = resolve_auto(config.trainer, kept)
    if kept is None and world.rank == 0:
        run.update_info(resolved=resolved_values(trainer))
    return replace(config, trainer=trainer)


def _build_task(
    config: Config, num_classes: int, checkpoint: Checkpoint | None, teacher: Teacher | None
) -> ClassificationTask:
    """Raises UserError if the checkpoint is of another network."""
    task = ClassificationTask(
        _build_network(config, num_classes, pretrained=checkpoint is None),
        config.recipe,
        seed=config.seed,
        log_every_steps=config.logger.every_steps,
        teacher=teacher,
        skip_nonfinite=config.trainer.on_nonfinite == "skip",
    )
    if checkpoint is not None:
        check_network(checkpoint.path, task.state_dict())
    return task


def _build_network(config: Config, num_classes: int, *, pretrained: bool) -> nn.Module:
    """`model.weights` are for the first start; afterwards the checkpoint has them."""
    torch.manual_seed(config.seed)
    model = config.model if pretrained else replace(config.model, weights=None)
    network = build_model(model, num_classes, drop_path_rate=config.recipe.drop_path_rate, init=config.recipe.init)
    if config.trainer.channels_last:
        network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if config.trainer.compile:
        network.compile()  # in place: torch.compile(network) would rename every weight
    return network


def _what_next(run: Run) -> str:
    if is_under_batch_script():
        return "the batch script says whether the job goes on"
    return f"`make resume RUN={shlex.quote(str(run.path))}` goes on"


def _build_teacher(run: Run, config: Config, num_classes: int, *, is_writer: bool) -> Teacher | None:
    """Raises UserError if its weights are not those that the run began with."""
    teacher = build_teacher(config.recipe.teacher, num_classes, config.data)
    if teacher is None:
        return None
    name, fingerprint, kept = config.recipe.teacher.name, teacher.fingerprint(), run.info.get("teacher")
    if kept not in (None, fingerprint):
        raise UserError(
            f"the weights of recipe.teacher.name={name} are not those that {run.path} began with: "
            "restore them, or start another RUN (run=NAME)"
        )
    if kept is None and is_writer:
        run.update_info(teacher=fingerprint)
    return teacher


def _is_said_elsewhere(error: Exception, world: World) -> bool:
    """By rank 0, for what all ranks find out together; by the rank that broke first, if a collective lost its peer."""
    if isinstance(error, NonFiniteLoss | SaveFailed):
        return world.rank > 0
    if isinstance(error, torch.distributed.DistNetworkError | torch.distributed.DistStoreError):
        return world.rank > 0 and not is_timeout(error)  # the store is rank 0's: its own errors nobody else knows
    return _is_of_a_collective(error) and not is_timeout(error)


def _reason(error: Exception, config: Config) -> str:
    if _is_of_a_collective(error) and is_timeout(error):
        minutes = config.trainer.timeout_minutes
        return f"another process has not answered for trainer.timeout_minutes={minutes:g}: it hangs, or is far behind"
    return str(error) if isinstance(error, RunFailed) else describe_error(error)


def _is_of_a_collective(error: Exception) -> bool:
    return isinstance(error, torch.distributed.DistError) or is_gloo_failure(error)


def _build_loggers(run: Run, config: Config, resume_step: int, *, validated: bool) -> list[Logger]:
    average = config.recipe.ema.decay is not None
    loggers: list[Logger] = [CsvLogger(run.path, resume_step, validated=validated, average=average)]
    if is_wanted(config.logger.mode):
        loggers.append(build_wandb_logger(config, run.path, run.info["wandb_id"]))
    return loggers
