"""resnext resume [RUN] [KEY=VALUE …]: go on with a run."""

import argparse
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
    parser.add_argument("run", nargs="?", help="runs/NAME; without it, the latest run that is not finished")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    overrides = options.overrides
    if options.run is not None and "=" in options.run:
        overrides, options.run = [options.run, *overrides], None

    from resnext.training.run import Run, find_unfinished

    run = Run.open(Path(options.run)) if options.run else find_unfinished()

    from resnext.launch.local import launch

    if overrides:
        run = _add_start(run, overrides)
    launch(run)
    return 0


def _add_start(run: "Run", overrides: list[str]) -> "Run":
    from resnext.cli.composition import apply_overrides
    from resnext.data.images import load_images
    from resnext.data.index import DataIdentity
    from resnext.launch.preflight import check_before_run, check_epochs

    config = apply_overrides(run.config, overrides)
    if config.run != run.config.run:
        raise UserError(f"run={config.run} cannot be changed: the run is {run.path}")
    images = load_images(config.data)
    same_length = replace(config, recipe=replace(config.recipe, epochs=run.config.recipe.epochs))
    run.check_identity(same_length, DataIdentity.of(*images))
    check_before_run(replace(config, model=replace(config.model, weights=None)), *images)  # the checkpoint has them
    check_epochs(run, config, images[0])
    return run.add_start(config)
