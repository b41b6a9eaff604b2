"""resnext train: make a run from a configuration and train it."""

import os
import signal
import time

from resnext.cli.pretrained import with_network_of_weights
from resnext.config.compose import run_with_hydra
from resnext.config.schema import Config
from resnext.errors import Interrupted

SECONDS_UNTIL_KILLED = 300.0  # longer than any GraceTime and KillWait


def main(arguments: list[str]) -> int:
    """Takes Hydra's arguments: KEY=VALUE, GROUP=NAME, --cfg job, -m …"""
    run_with_hydra("train", arguments, lambda config: train(config, ["resnext", "train", *arguments]))
    return 0


def train(config: Config, command: list[str]) -> float | None:
    """Checks what can be checked before there is a run, makes its directory (or opens it), and trains it.

    Returns the best val/top1 (val_ema/top1 where the recipe averages), for a sweeper to maximize; None without any.
    """
    from resnext.data.images import load_images
    from resnext.data.index import identify_data

    images = load_images(config.data)  # first: neither weights nor networks are touched without data
    config = with_network_of_weights(config, command)

    from resnext.launch.local import launch
    from resnext.run.directory import Run
    from resnext.training.preflight import check_before_run

    parts = check_before_run(config, *images)
    run = Run.create(config, identify_data(*images), command)
    try:
        launch(run, parts)
    except Interrupted as error:
        if "SUBMITIT_EXECUTOR" in os.environ:
            _leave_submitit(error.signum)
        raise
    return run.summary.get(config.recipe.best_by)


def _leave_submitit(signum: int) -> None:
    """All is saved. submitit's handler, which was there before ours, requeues the job at USR2 and does not return.

    At TERM it does nothing: SLURM is preempting the job, and requeues it only if it is still there to be killed.
    """
    signal.raise_signal(signum)
    time.sleep(SECONDS_UNTIL_KILLED)
