"""resnext fit RUN: train a run directory, as one process or as one rank."""

from contextlib import nullcontext
from pathlib import Path

from resnext.cli.arguments import ArgumentParser
from resnext.runtime.parent_death import die_with_launcher
from resnext.runtime.signals import StopRequest, prints_for_all_ranks
from resnext.runtime.slurm_job import is_slurm_rank


def main(arguments: list[str]) -> int:
    parser = ArgumentParser("resnext fit", description="Train a run directory from its newest checkpoint.")
    parser.add_argument("run", type=Path, help="the run directory, runs/NAME")
    parser.add_argument("--start", type=int, help="use the configuration of this start (default: the newest)")
    options = parser.parse_args(arguments)

    die_with_launcher()
    stop = StopRequest()
    with stop.received_to_the_end(deferred=is_slurm_rank()):  # from here on, also during the import of torch
        from resnext.registry import load_extensions

        load_extensions()

        from resnext.report.report_file import reporting
        from resnext.run.directory import Run
        from resnext.training.fit import fit

        run = Run.open(options.run, options.start)
        with reporting(run) if prints_for_all_ranks() else nullcontext():
            fit(run, stop)
    return 0
