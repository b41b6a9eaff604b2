"""Whether a training fits in memory, and the largest micro-batch that does."""

from resnext.check.finding import Finding, Report
from resnext.check.trial import MemoryTrial, Trial, expect_bytes, find_largest
from resnext.config.recipe import RecipeConfig
from resnext.terminal import describe_bytes, pluralize
from resnext.training.plan import TrainingPlan


def check_memory(plan: TrainingPlan, trial: Trial, report: Report) -> list[MemoryTrial] | None:
    """Adds what was found to `report`. Returns the measurements; None if the training does not fit."""
    micro, share = plan.split.micro, plan.split.micro * plan.split.accumulation
    smallest = smallest_micro_batch(plan.config.recipe)
    done, fits = find_largest(trial, candidates(share, micro, smallest))
    auto = plan.config.trainer.micro_batch_size == "auto"
    micro = (fits or smallest) if auto else micro
    needed = _needed(done, micro)
    where = "of the GPU" if plan.config.trainer.accelerator == "gpu" else "of this machine"
    images, usable = f"a micro-batch of {pluralize(micro, 'image')}", describe_bytes(trial.usable_bytes)
    report.facts |= {
        "memory_bytes": needed,
        "usable_bytes": int(trial.usable_bytes),
        "micro_batch_size": micro,
        "largest_micro_batch_size": fits,
    }
    if fits >= micro:
        larger = f"; {fits} would fit" if fits > micro else ""
        chosen = "trainer.micro_batch_size=auto: " if auto else ""
        report.add(Finding("ok", "memory", f"{chosen}{images} takes {_bytes(needed)} of {usable} {where}{larger}"))
        return done
    text = f"{images} needs {_bytes(needed)}, and {usable} {where} are free"
    if fits:
        remedy = f"trainer.micro_batch_size={fits} fits, and the global batch stays the same"
    else:
        remedy = "take a smaller recipe.image_size or a smaller network"
    report.add(Finding("fail", "memory", text, remedy))
    return None


def smallest_micro_batch(recipe: RecipeConfig) -> int:
    """Mixing needs two images."""
    return 2 if recipe.mixing.on else 1


def candidates(share: int, micro: int, smallest: int) -> list[int]:
    """Micro-batches that divide a device's share of the batch, each at least twice the one before; and `micro`."""
    sizes: list[int] = []
    for size in range(min(smallest, share), share + 1):
        if share % size == 0 and (size in (micro, share) or not sizes or size >= 2 * sizes[-1]):
            sizes.append(size)
    return sizes


def _needed(done: list[MemoryTrial], micro: int) -> int | None:
    """The bytes for `micro` images: measured, else calculated; None if there are too few measurements."""
    measured = {each.micro: each.bytes for each in done}
    if micro in measured:
        return measured[micro]
    return int(expect_bytes(done, micro)) if len(done) > 1 else None


def _bytes(count: int | None) -> str:
    return "more memory" if count is None else describe_bytes(count)
