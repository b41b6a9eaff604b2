"""trainer.micro_batch_size=auto: the number that a run is made with, found by trial before the run is made."""

import time
from dataclasses import replace
from typing import Any

from resnext.check.memory import candidates, smallest_micro_batch
from resnext.check.trial import find_largest, trial
from resnext.config.pretrained import without_weights
from resnext.config.schema import Config
from resnext.errors import UserError
from resnext.run.directory import Run
from resnext.runtime.device import count_devices, find_accelerator, resolve_auto
from resnext.terminal import describe_bytes, pluralize


def find_micro_batch(config: Config, run: Run | None = None) -> tuple[Config, dict[str, Any] | None]:
    """`config` with a number instead of `auto`, and the facts of the trial; None if the number was given.

    An existing `run` keeps the number that was found for this number of devices.

    Raises:
        UserError: if no micro-batch fits, or a process trains `run`.
        Interrupted: at a signal; the trial's process is killed.
    """
    if config.trainer.micro_batch_size != "auto":
        return config, None
    where = {"accelerator": find_accelerator(config.trainer), "devices": count_devices(config.trainer)}
    found = run.info.get("micro_batch") if run is not None else None
    if found is None or {name: found[name] for name in where} != where:
        if run is not None:
            with run.lock():
                pass  # a process that trains the run would take the memory
        found = {**where, **_try(config, where["devices"])}
    return replace(config, trainer=replace(config.trainer, micro_batch_size=found["size"])), found


def keep_micro_batch(run: Run, found: dict[str, Any] | None) -> None:
    """Writes the facts of the trial to run.json, for the header of the log and for later starts."""
    if found is not None and found != run.info.get("micro_batch"):
        with run.lock():
            run.update_info(micro_batch=found)


def _try(config: Config, devices: int) -> dict[str, Any]:
    """The size that fits, and the seconds of the trial."""
    print("trial     looking for the largest micro-batch that fits", flush=True)
    began, share = time.monotonic(), config.split_batch(devices).micro
    smallest, trainer = smallest_micro_batch(config.recipe), resolve_auto(config.trainer)
    with trial(without_weights(replace(config, trainer=trainer)), devices) as asked:
        _, size = find_largest(asked, candidates(share, share, smallest))
    if not size:
        raise UserError(
            f"trainer.micro_batch_size=auto: {pluralize(smallest, 'image')} in a micro-batch need more memory than the "
            f"{describe_bytes(asked.usable_bytes)} that are free: take a smaller recipe.image_size or a smaller network"
        )
    return {"size": size, "seconds": round(time.monotonic() - began)}
