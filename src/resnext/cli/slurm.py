"""resnext slurm: create a run from a configuration and submit it as a SLURM job. Needs no GPU and imports no torch."""

import sys
from dataclasses import replace

from resnext.config.compose import run_with_hydra
from resnext.config.logger import check_logger_packages
from resnext.config.pretrained import check_weights, describe_network_of_weights
from resnext.config.schema import Config
from resnext.data.images import load_images
from resnext.data.index import check_enough, identify_data
from resnext.data.sampler import steps_per_epoch
from resnext.errors import UserError
from resnext.launch.slurm import check_not_queued, check_paths, check_world, submit, write_script
from resnext.run.directory import RUNS, Run
from resnext.run.run_files import has_checkpoint
from resnext.terminal import pluralize


def main(arguments: list[str]) -> int:
    """Takes the arguments of `resnext train`, and slurm.nodes, slurm.gpus_per_node …; -m submits a job for each run."""
    run_with_hydra("slurm", arguments, lambda config: schedule(config, ["resnext", "slurm", *arguments]))
    return 0


def schedule(config: Config, command: list[str]) -> None:
    """Checks what a login node can check, creates or opens the run directory, and submits its batch script."""
    slurm = config.slurm
    check_logger_packages(config.logger)
    check_world(config)
    _check_micro_batch(config)
    check_paths(config)
    config.split_batch(slurm.world_size)
    if config.run is not None and (RUNS / config.run / "config.yaml").is_file():
        former = Run(RUNS / config.run)
        if former.summary["status"] == "finished":
            print(f"{former.path} is finished: not submitted; `resnext resume` can add epochs")
            return
        check_not_queued(former)
    if config.run is None or not has_checkpoint(RUNS / config.run):  # else the checkpoint has the weights
        check_weights(config)
    train, val = load_images(config.data)
    if (network := describe_network_of_weights(config)) is not None:
        print(network)
    steps_per_epoch(len(train), config.recipe.batch_size)
    check_enough(val, slurm.world_size)
    accelerator = "gpu" if slurm.gpus_per_node else "cpu"
    config = replace(config, trainer=replace(config.trainer, accelerator=accelerator))
    run = Run.create(config, identify_data(train, val), command)
    script = write_script(run)
    if slurm.dry_run:
        sys.stdout.write(script.read_text())
        print(f"# {script} is written but not submitted (slurm.dry_run); to submit it: sbatch {script}")
        return
    job = submit(script)
    print(f"submitted job {job}: {slurm.nodes} × {pluralize(slurm.tasks, 'rank')}, {script}")
    print(f"follow    tail -F {run.path}/slurm-{job}.out, or: resnext status {run.path}")
    print(f"stop      scancel {job} (saves a checkpoint first; `sbatch {script}` resumes)")


def _check_micro_batch(config: Config) -> None:
    if config.trainer.micro_batch_size == "auto":
        raise UserError(
            "trainer.micro_batch_size=auto is found by trial on the device that trains, which a login node does not "
            "have: give a number; `resnext check`, run in an allocation, names the largest that fits"
        )
