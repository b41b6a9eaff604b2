"""check(config, report): what can be known about a training before it starts, as findings and as facts."""

from dataclasses import replace

from resnext.check.finding import Finding, Report
from resnext.check.images import check_images
from resnext.check.machine import check_loggers, check_space, checkpoint_bytes
from resnext.check.memory import check_memory
from resnext.check.pace import World, check_pace
from resnext.check.trial import trial
from resnext.config.batch import describe_split, describe_steps
from resnext.config.pretrained import check_weights
from resnext.config.schema import Config
from resnext.data.images import load_images
from resnext.data.index import ImageIndex
from resnext.errors import RunFailed, UserError
from resnext.runtime.device import resolve_auto
from resnext.training.messages import configuration_warnings
from resnext.training.plan import TrainingPlan
from resnext.training.preflight import build_checked_parts, count_ranks


def check(config: Config, report: Report, *, full: bool = False, price_per_hour: float | None = None) -> None:
    """Adds everything that it finds to `report`. What fails does not hide what can be found without it.

    Args:
        full: read every image file, and not a sample.
        price_per_hour: of one device.

    Raises:
        Interrupted: at a signal.
    """
    for finding in check_loggers(config):
        report.add(finding)
    try:
        train, val = load_images(config.data)
    except UserError as error:
        report.add(Finding.of_error("images", error))
        return
    for finding in check_images(config, train, val, full=full):
        report.add(finding)
    try:
        world = _find_world(config)
        plan = _plan(config, train, val, world.size)
    except UserError as error:
        report.add(Finding.of_error("training", error))
        return
    auto = config.trainer.micro_batch_size == "auto"
    report.add(Finding("ok", "batch", describe_split(plan.split, world.size, auto=auto)))
    report.add(Finding("ok", "steps", describe_steps(plan.steps, config.recipe.epochs, plan.steps_per_epoch)))
    for warning in configuration_warnings(plan):
        text, _, remedy = warning.partition(": ")
        report.add(Finding("warn", "recipe", text, remedy))
    for finding in check_space(plan.config, checkpoint_bytes(plan.config, plan.parts.network, plan.parts.optimizer)):
        report.add(finding)
    _measure(report, plan, world, price_per_hour)


def _plan(config: Config, train: ImageIndex, val: ImageIndex, ranks: int) -> TrainingPlan:
    """The plan of a first start. Raises UserError for what a start would refuse."""
    check_weights(config)
    parts = build_checked_parts(config, train, val, ranks)
    return TrainingPlan(replace(config, trainer=resolve_auto(config.trainer)), parts, config.split_batch(ranks))


def _find_world(config: Config) -> World:
    """The SLURM allocation, if slurm.* asks for one; else the devices of this machine. Raises UserError."""
    if config.slurm.world_size > 1:
        return World(config.slurm.tasks, config.slurm.nodes)
    return World(count_ranks(config.trainer), 1)


def _measure(report: Report, plan: TrainingPlan, world: World, price_per_hour: float | None) -> None:
    try:
        with trial(plan.config, world.devices) as asked:
            memory = check_memory(plan, asked, report)
            if memory is not None:
                check_pace(plan, asked, memory, world, price_per_hour, report)
    except (UserError, RunFailed) as error:
        report.add(Finding("fail", "steps", str(error)))
