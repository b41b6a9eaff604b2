"""resnext train: create a run from a configuration and train it."""

import os
import signal
import time

from resnext.config.compose import run_with_hydra
from resnext.config.logger import check_logger_packages
from resnext.config.pretrained import check_weights, describe_network_of_weights, without_weights
from resnext.config.schema import Config
from resnext.errors import Interrupted

SECONDS_UNTIL_KILLED = 300.0  # longer than any GraceTime and KillWait


def main(arguments: list[str]) -> int:
    """Takes Hydra's arguments: KEY=VALUE, GROUP=NAME, --cfg job, -m …"""
    run_with_hydra("train", arguments, lambda config: train(config, ["resnext", "train", *arguments]))
    return 0


def train(config: Config, command: list[str]) -> float | None:
    """Checks the configuration, then creates or opens the run directory and trains the run.

    Returns the best val/top1 (val_ema/top1 with an EMA), for a sweeper to maximize; None without a validation.
    """
    from resnext.data.images import load_images
    from resnext.data.index import identify_data
    from resnext.run.directory import RUNS, Run
    from resnext.run.run_files import has_checkpoint, is_run

    check_logger_packages(config.logger)
    resumes = config.run is not None and has_checkpoint(RUNS / config.run)  # then the checkpoint has the weights
    if not resumes:
        check_weights(config)
    images = load_images(config.data)  # first: without data, no weights are loaded and no network is built
    if (network := describe_network_of_weights(config)) is not None:
        print(network)

    from resnext.check.micro_batch import find_micro_batch, keep_micro_batch
    from resnext.launch.local import launch
    from resnext.report.report_file import reporting
    from resnext.training.preflight import check_before_run

    parts = check_before_run(without_weights(config) if resumes else config, *images)
    former = Run(RUNS / config.run) if config.run is not None and is_run(RUNS / config.run) else None
    config, found = find_micro_batch(config, former)
    run = Run.create(config, identify_data(*images), command)
    keep_micro_batch(run, found)
    try:
        with reporting(run):
            launch(run, parts)
    except Interrupted as error:
        if "SUBMITIT_EXECUTOR" in os.environ:
            _leave_submitit(error.signum)
        raise
    return run.summary.get(config.recipe.best_by)


def _leave_submitit(signum: int) -> None:
    """Passes the signal to submitit's handler, after the checkpoint is saved.

    At USR2, the handler requeues the job and does not return. At TERM, it does nothing, and this process waits: SLURM
    is preempting the job, and requeues the job only if the process still runs when SLURM kills it.
    """
    signal.raise_signal(signum)
    time.sleep(SECONDS_UNTIL_KILLED)
