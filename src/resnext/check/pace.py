"""How fast a training would be, what limits it, and how long it would take."""

import math
from datetime import timedelta
from typing import NamedTuple

from resnext.check.finding import Finding, Report
from resnext.check.trial import MemoryTrial, Trial
from resnext.data.cores import count_cores
from resnext.terminal import pluralize
from resnext.training.plan import TrainingPlan

SECONDS = 5.0  # of each of the three measurements
BATCH_SECONDS = 2.0  # of a micro-batch: a larger one takes too long to measure
FORWARD = 3.0  # a validation computes only the forward pass, about a third of a step
CLOSE = 0.9  # two speeds that differ by less limit the training both


class Pace(NamedTuple):
    """Images per second: of the loader with this machine's cores, of the steps of one device, and of both together."""

    loader: float
    step: float
    together: float


class World(NamedTuple):
    """The devices that are asked for: on each machine, and machines."""

    devices: int
    machines: int

    @property
    def size(self) -> int:
        return self.devices * self.machines


def check_pace(
    plan: TrainingPlan, trial: Trial, memory: list[MemoryTrial], world: World, price: float | None, report: Report
) -> None:
    """Measures the speeds, and adds what follows from them to `report`. `price` is of one device and hour."""
    quick = [each.micro for each in memory if each.micro <= plan.split.micro and each.seconds <= BATCH_SECONDS]
    micro = max(quick, default=memory[0].micro)
    pace = Pace(*(trial.ask(name, micro, SECONDS) for name in ("loader_speed", "step_speed", "training_speed")))
    report.facts["images_per_sec"] = pace._asdict()
    report.add(_find_limit(pace, world.devices))
    report.facts["hours"] = hours = count_hours(plan, pace, world)
    assumed = f", if {world.size} devices are each as fast as this one" if world.size > 1 else ""
    epochs = pluralize(plan.config.recipe.epochs, "epoch")
    report.add(Finding("ok", "time", f"{_duration(hours)} for {epochs} with their validations{assumed}"))
    if price is not None:
        report.facts["price"] = cost = hours * world.size * price
        report.add(Finding("ok", "price", f"{cost:,.2f} for {hours * world.size:,.3g} device hours"))


def _find_limit(pace: Pace, devices: int) -> Finding:
    needed = devices * pace.step
    of = "a step" if devices == 1 else f"{devices} devices"
    text = f"the loader gives {pace.loader:,.4g} images/s, {of} can take {needed:,.4g}"
    if pace.loader < CLOSE * needed:
        cores = math.ceil(count_cores() * needed / pace.loader)
        remedy = f"{cores} cores instead of {count_cores()}, or a pack of smaller images (`resnext prepare pack`)"
        return Finding("warn", "speed", f"{text}: the training waits for images", remedy)
    limit = "both limit the training" if pace.loader * CLOSE < needed else "the step limits the training"
    return Finding("ok", "speed", f"{text}, together {pace.together:,.4g}; {limit}")


def count_hours(plan: TrainingPlan, pace: Pace, world: World) -> float:
    """Hours of the whole training: its steps, and a validation after each epoch."""
    alone = world.devices == 1
    training = pace.together if alone else min(pace.loader, world.devices * pace.step)
    validation = min(pace.loader, world.devices * FORWARD * pace.step)
    networks = 2 if plan.config.recipe.ema.decay else 1
    trained = plan.steps * plan.config.recipe.batch_size
    validated = math.ceil(plan.steps / plan.steps_per_epoch) * len(plan.parts.val) * networks
    return (trained / training + validated / validation) / world.machines / 3600


def _duration(hours: float) -> str:
    """`2 h 5 min`, `45 s`."""
    if hours < 1 / 60:
        return f"{max(1, round(3600 * hours))} s"
    minutes = round(timedelta(hours=hours).total_seconds() / 60)
    return f"{minutes // 60:,} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
