"""resnext resume [RUN] [KEY=VALUE …]: go on with a run."""

import argparse
import glob
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from resnext.errors import UserError

if TYPE_CHECKING:
    from resnext.training.run import Run


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        "resnext resume",
        description="Go on with a run, exactly. What belongs to the run (seed, model, recipe, data) stays as it was; "
        "trainer, logger, checkpoint and data.{root,workers,worker_timeout,cache,max_skipped} may be given anew, and "
        "recipe.epochs more than the run was made with.",
    )
    parser.add_argument(
        "run",
        nargs="?",
        help="runs/NAME, or the name of a multirun; without it, the latest run that is not finished",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    overrides = options.overrides
    if options.run is not None and "=" in options.run:
        overrides, options.run = [options.run, *overrides], None

    from resnext.training.run import Run, find_unfinished

    runs = _find_jobs(options.run) or [Run.open(Path(options.run)) if options.run else find_unfinished()]

    from resnext.launch.local import launch

    for run in runs:
        launch(_add_start(run, overrides) if overrides else run)
    return 0


def _find_jobs(name: str | None) -> "list[Run]":
    """The unfinished runs of the multirun `name`, in their order; none where it is a run, or all are finished."""
    from resnext.training.run import RUNS, Run

    if name is None or (RUNS / Path(name).name / "config.yaml").is_file():
        return []
    numbers = [path.name.rpartition("-")[2] for path in RUNS.glob(f"{glob.escape(Path(name).name)}-*")]
    runs = [Run(RUNS / f"{Path(name).name}-{number}") for number in sorted(filter(str.isdigit, numbers), key=int)]
    return [run for run in runs if run.summary["status"] != "finished"]


def _add_start(run: "Run", overrides: list[str]) -> "Run":
    from resnext.cli.composition import apply_overrides
    from resnext.data.images import load_images
    from resnext.data.index import DataIdentity
    from resnext.launch.preflight import check_before_run, check_epochs
    from resnext.training.identity import with_epochs

    config = apply_overrides(run.config, overrides)
    if config.run != run.config.run:
        raise UserError(f"run={config.run} cannot be changed: the run is {run.path}")
    images = load_images(config.data)
    run.check_identity(with_epochs(config, run.config.recipe.epochs), DataIdentity.of(*images))
    check_before_run(replace(config, model=replace(config.model, weights=None)), *images)  # the checkpoint has them
    check_epochs(run, config, images[0])
    return run.add_start(config)
