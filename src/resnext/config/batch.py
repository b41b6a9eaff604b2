"""The global batch, divided among devices and micro-steps."""

from typing import NamedTuple

from resnext.errors import UserError
from resnext.terminal import pluralize


class BatchSplit(NamedTuple):
    """micro · world_size · accumulation = the global batch; `accumulation` micro-steps make an optimizer step."""

    micro: int
    accumulation: int


def split_batch(batch_size: int, micro: int | None, world_size: int) -> BatchSplit:
    """The split with micro-batches of `micro` images per device; None: one micro-batch for a device's whole share.

    Raises:
        UserError: if no whole number of micro-steps gives the global batch; the message has the nearest sizes that do.
    """
    if micro is None:
        if batch_size % world_size:
            raise UserError(
                f"recipe.batch_size={batch_size} cannot be divided among {pluralize(world_size, 'device')}; "
                f"the nearest sizes that can: {_nearest_multiples(batch_size, world_size)}"
            )
        return BatchSplit(batch_size // world_size, 1)
    if batch_size % (micro * world_size):
        remedies = [f"recipe.batch_size={_nearest_multiples(batch_size, micro * world_size)}"]
        if batch_size % world_size == 0:
            remedies.insert(0, f"trainer.micro_batch_size={_nearest_divisors(batch_size // world_size, micro)}")
        raise UserError(
            f"recipe.batch_size={batch_size} is not a multiple of {micro} (trainer.micro_batch_size) × "
            f"{pluralize(world_size, 'device')}; the nearest that work: {', or '.join(remedies)}"
        )
    return BatchSplit(micro, batch_size // (micro * world_size))


def describe_split(split: BatchSplit, world_size: int, *, auto: bool = False) -> str:
    """`256 = 8 images × 4 devices × 8 micro-steps`; `auto`: the micro-batch is not found yet."""
    factors = (
        pluralize(split.micro, "image"),
        pluralize(world_size, "device"),
        "as few micro-steps as memory allows" if auto else pluralize(split.accumulation, "micro-step"),
    )
    return f"{split.micro * world_size * split.accumulation} = {' × '.join(factors)}"


def describe_steps(total: int, epochs: int, per_epoch: int) -> str:
    """`660 = 30 epochs × 22`, or `650, 22 an epoch` if the training ends within an epoch."""
    whole = total == epochs * per_epoch
    all_epochs = f"{total:,} = {pluralize(epochs, 'epoch')} × {per_epoch:,}"
    return all_epochs if whole else f"{total:,}, {per_epoch:,} an epoch"


def _nearest_divisors(share: int, micro: int) -> str:
    divisors = [size for size in range(1, share + 1) if share % size == 0]
    return " or ".join(map(str, sorted(sorted(divisors, key=lambda size: abs(size - micro))[:2])))


def _nearest_multiples(value: int, unit: int) -> str:
    below = value // unit * unit
    return " or ".join(str(size) for size in (below, below + unit) if size > 0)
