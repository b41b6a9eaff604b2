"""The first and the last lines that a training logs."""

import logging
import shlex
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from resnext.config.batch import describe_split, describe_steps
from resnext.config.describe import describe_image_sizes, describe_recipe, lr_warning
from resnext.config.pretrained import normalization_warning
from resnext.config.schema import to_dict
from resnext.data.index import ImageIndex
from resnext.data.pack import PackedImages
from resnext.data.scan import describe_unread
from resnext.models.complexity import describe_network
from resnext.models.freezing import describe_frozen
from resnext.run.directory import Run
from resnext.runtime.slurm_job import SlurmJob
from resnext.runtime.world import World
from resnext.task.optimization import lr_at
from resnext.terminal import first_three, pluralize
from resnext.training.plan import TrainingPlan

log = logging.getLogger(__name__)


def log_header(run: Run, plan: TrainingPlan, world: World) -> None:
    """Logs the first lines: model, data, recipe and device; in a SLURM job also the nodes and the first step."""
    config, train, val = plan.config, plan.parts.train, plan.parts.val
    recipe, trainer = config.recipe, config.trainer
    options = [name for name in ("channels_last", "compile", "deterministic") if to_dict(trainer)[name]]
    classes = pluralize(len(train.classes), "class", "classes")
    _log_lines(
        run=run.path,
        model=f"{config.model.name}: {describe_network(plan.parts.network, recipe.image_size)}",
        weights=config.model.weights,
        frozen=describe_frozen(plan.parts.network, config.model.freeze),
        data=f"{len(train):,} + {len(val):,} images, {classes} in {config.data.root}",
        cache=describe_cache(config.data.cache, is_packed=isinstance(train, PackedImages)),
        images=f"{describe_image_sizes(recipe)} pixels in training, {recipe.eval_image_size} in evaluation",
        batch=describe_split(plan.split, world.size),
        trial=_describe_trial(run, plan, world),
        steps=describe_steps(plan.steps, recipe.epochs, plan.steps_per_epoch),
        **describe_recipe(recipe),
        device=", ".join([trainer.accelerator, trainer.precision, *options]),
    )
    _warn_of_unused(train, val)
    if job := SlurmJob.current():
        _log_lines(slurm=f"job {job.id}, restart {job.restarts}, on {job.nodes}, from step {plan.steps_done:,}")
    if unseen := val.find_empty_classes():
        log.warning("%s without validation images: %s", pluralize(len(unseen), "class", "classes"), first_three(unseen))
    for warning in configuration_warnings(plan):
        log.warning(warning)


def describe_cache(cache: str, *, is_packed: bool) -> str:
    """What shortens the reading of images: a cache in memory, a pack, both, or nothing."""
    named = {"decoded images in memory (data.cache=ram)": cache == "ram", "a pack": is_packed}
    return ", ".join(name for name, on in named.items() if on) or "none"


def _describe_trial(run: Run, plan: TrainingPlan, world: World) -> str | None:
    """How trainer.micro_batch_size=auto became the number that this start uses."""
    found = run.info.get("micro_batch")
    if found is None or (found["size"], found["devices"]) != (plan.split.micro, world.size):
        return None
    return f"micro-batch {found['size']}: the largest that fits, found by trial in {found['seconds']} s"


def configuration_warnings(plan: TrainingPlan) -> Iterator[str]:
    """Warnings about values that are allowed, but are a mistake in most runs."""
    config, recipe = plan.config, plan.config.recipe
    yield from filter(None, [lr_warning(recipe), normalization_warning(config)])
    warmup = recipe.schedule.warmup_epochs
    if warmup * plan.steps_per_epoch >= plan.steps:
        yield (
            f"recipe.schedule.warmup_epochs={warmup:g}, but the training ends before its warm-up does: lower it, or "
            "raise recipe.epochs"
        )
    if config.model.freeze and config.model.weights is None:  # a registered network may load weights itself
        yield "model.freeze without model.weights: the frozen parts keep their initial values"
    if recipe.loss.class_weights is not None and plan.split.micro == 1:
        yield "recipe.loss.class_weights has no effect on micro-batches of one image: raise trainer.micro_batch_size"


def _warn_of_unused(train: ImageIndex, val: ImageIndex) -> None:
    """Warns of images that are not used because of their format."""
    for index in (train, val):
        if index.unread:
            counts = describe_unread(index.unread)
            log.warning("%s has images that cannot be read (%s): convert them to JPEG or PNG", index.root, counts)


def log_resume(run: Run, plan: TrainingPlan) -> None:
    """Logs the step from which the training continues. Warns if more epochs change its learning rate."""
    checkpoint, recipe = plan.checkpoint, plan.config.recipe
    if checkpoint is None:
        return
    missing = "" if checkpoint.validated else ", whose validation runs first"
    _log_lines(resumed=f"from step {checkpoint.step:,}{missing}: {checkpoint.path.name}")
    before = run.find_last_start()
    if before is None or before.recipe.epochs == recipe.epochs:
        return
    rates = [lr_at(checkpoint.step, each, plan.steps_per_epoch) for each in (before.recipe, recipe)]
    if rates[0] != rates[1]:
        log.warning(
            "recipe.epochs was %d and is now %d: the learning rate continues at %.3g instead of %.3g",
            before.recipe.epochs,
            recipe.epochs,
            rates[1],
            rates[0],
        )


def log_result(run: Run, seconds: float) -> None:
    """Logs the last lines of a finished run: steps, speed, why it ended early, accuracies, folder, next command."""
    summary = run.summary
    last, took = summary["last"], timedelta(seconds=round(seconds))
    speed = f", {summary['images_per_sec']:,.0f} images/s" if summary.get("images_per_sec") else ""
    _log_lines(
        finished=f"{pluralize(summary['steps'], 'step')} in {took}{speed}",
        stopped=summary.get("stopped"),
        best=describe_best(run),
        last=_accuracies(last),
        run=run.path,
        next=f"make evaluate RUN={shlex.quote(str(run.path))}",
    )


def describe_best(run: Run) -> str:
    """The best accuracies so far, on one line."""
    summary = run.summary
    if "val/top1" not in summary:
        return "nothing validated yet"
    return f"{_accuracies(summary)} at epoch {summary['best_epoch']} of {summary['epochs']}"


def _accuracies(results: dict[str, Any]) -> str:
    """The accuracies of the EMA and the top-1 without it; if there is no EMA, those of the weights."""
    if "val_ema/top1" not in results:
        return f"top-1 {100 * results['val/top1']:.2f} %, top-5 {100 * results['val/top5']:.2f} %"
    return (
        f"top-1 {100 * results['val_ema/top1']:.2f} %, top-5 {100 * results['val_ema/top5']:.2f} % "
        f"(EMA; without EMA {100 * results['val/top1']:.2f})"
    )


def _log_lines(**lines: Any) -> None:
    """Logs one line for each name whose text is not None."""
    for name, text in lines.items():
        if text is not None:
            log.info("%-9s %s", name, text)
