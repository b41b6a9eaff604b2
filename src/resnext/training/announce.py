"""What a run says first and last."""

import logging
import shlex
from datetime import timedelta
from typing import Any

from resnext.config import Config, to_dict
from resnext.data.index import ImageIndex
from resnext.data.order import steps_per_epoch
from resnext.task.optimization import total_steps
from resnext.training.device import World
from resnext.training.run import Run
from resnext.training.slurm_job import SlurmJob

log = logging.getLogger(__name__)


def log_header(run: Run, config: Config, world: World, train: ImageIndex, val: ImageIndex, done: int) -> None:
    """The first lines: what is trained, on what, how; in a SLURM job also where, and from where on (`done` steps)."""
    recipe, trainer = config.recipe, config.trainer
    per_epoch = steps_per_epoch(len(train), recipe.batch_size)
    total = total_steps(recipe, per_epoch)
    planned = (
        f" = {recipe.epochs} epochs × {per_epoch}" if total == recipe.epochs * per_epoch else f", {per_epoch} an epoch"
    )
    micro, accumulation = config.split_batch(world.size)
    options = [name for name in ("channels_last", "compile", "deterministic") if to_dict(trainer)[name]]
    _log_lines(
        run=run.path,
        model=config.model.name + (f", weights {config.model.weights}" if config.model.weights else ""),
        data=f"{len(train):,} + {len(val):,} images, {len(train.classes)} classes in {config.data.root}",
        images=f"{recipe.image_size} pixels in training, {recipe.eval_image_size} in evaluation",
        batch=" × ".join(
            [
                f"{recipe.batch_size} = {_plural(micro, 'image')}",
                _plural(world.size, "device"),
                _plural(accumulation, "micro-step"),
            ]
        ),
        steps=f"{total:,}{planned}",
        recipe=f"{recipe.optimizer.name}, lr {recipe.optimizer.lr:g}, weight decay {recipe.optimizer.weight_decay:g}",
        device=", ".join([trainer.accelerator, trainer.precision, *options]),
    )
    seen = set(val.labels.tolist())
    if job := SlurmJob.current():
        _log_lines(slurm=f"job {job.id}, restart {job.restarts}, on {job.nodes}, from step {done:,}")
    unseen = [name for label, name in enumerate(train.classes) if label not in seen]
    if unseen:
        log.warning("%s without validation images: %s", _plural(len(unseen), "class", "classes"), ", ".join(unseen[:5]))
    warmup = recipe.schedule.warmup_epochs
    if warmup * per_epoch >= total:
        log.warning("recipe.schedule.warmup_epochs=%g: the training ends before its warm-up does", warmup)


def log_result(run: Run, seconds: float) -> None:
    """The last lines of a finished run: how good, how fast, where, and what to do next."""
    summary = run.summary
    last, took = summary["last"], timedelta(seconds=round(seconds))
    _log_lines(
        finished=f"{summary['steps']:,} steps in {took}, {summary.get('images_per_sec', 0):,.0f} images/s",
        best=describe_best(run),
        last=f"top-1 {100 * last['val/top1']:.2f} %, top-5 {100 * last['val/top5']:.2f} %",
        run=run.path,
        next=f"make evaluate RUN={shlex.quote(str(run.path))}",
    )


def describe_best(run: Run) -> str:
    """The best accuracies so far, on one line."""
    summary = run.summary
    if "val/top1" not in summary:
        return "nothing validated yet"
    return (
        f"top-1 {100 * summary['val/top1']:.2f} %, top-5 {100 * summary['val/top5']:.2f} % "
        f"at epoch {summary['best_epoch']} of {summary['epochs']}"
    )


def _plural(count: int, noun: str, plural: str | None = None) -> str:
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def _log_lines(**lines: Any) -> None:
    for name, text in lines.items():
        log.info("%-9s %s", name, text)
