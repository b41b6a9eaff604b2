"""resnext resume [RUN] [KEY=VALUE …]: resume a run."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from resnext.cli.arguments import ArgumentParser
from resnext.errors import RunFailed, UserError

if TYPE_CHECKING:
    from resnext.run.directory import Run
    from resnext.training.parts import Parts


def main(arguments: list[str]) -> int:
    parser = ArgumentParser(
        "resnext resume",
        description="Resume a run exactly. The keys of the run itself (seed, model, recipe, data, callbacks) cannot "
        "change, but recipe.epochs may increase. trainer, logger, checkpoint and "
        "data.{root,workers,worker_timeout,cache,max_skipped} may change.",
    )
    parser.add_argument(
        "run",
        nargs="?",
        help="runs/NAME, or the name of a multirun (default: the latest unfinished run)",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    overrides = options.overrides

    from resnext.run.directory import Run, find_unfinished
    from resnext.sweep.folder import SweepFolder

    if options.run and (sweep := SweepFolder.find(options.run)) is not None:
        raise UserError(f"{sweep.path} is a sweep: `resnext sweep {sweep.name}` goes on with it")
    jobs = find_jobs(options.run) if options.run else []
    if options.run is not None and "=" in options.run and not jobs and not names_run(options.run):
        overrides, options.run = [options.run, *overrides], None
    if not jobs:
        run = Run.open(Path(options.run)) if options.run else find_unfinished()
        _resume(run, overrides)
        return 0
    errors: list[UserError | RunFailed] = []
    for run in jobs:
        try:
            is_open = run.summary["status"] != "finished"
            _resume(run, overrides if is_open else [])
        except (UserError, RunFailed) as error:  # the other runs are still resumed
            print(f"resnext resume: {run.path}: {error}", file=sys.stderr)
            errors.append(error)
    return max((getattr(error, "exit_code", 2) for error in errors), default=0)


def find_jobs(name: str) -> "list[Run]":
    """The runs of the multirun `name` or runs/`name`, in order; none if `name` is a run."""
    from resnext.run.directory import RUNS, Run

    path = Path(name)
    if names_run(name) or path.absolute().parent not in (Path.cwd(), RUNS.absolute()):
        return []
    job = re.compile(
        re.escape(path.name) + r"-(0|[1-9][0-9]{0,4})"
    )  # six digits would be the time in an automatic name
    matches = [job.fullmatch(each.parent.name) for each in RUNS.glob("*/config.yaml")]
    return [Run(RUNS / match[0]) for match in sorted(filter(None, matches), key=lambda match: int(match[1]))]


def names_run(name: str) -> bool:
    """Whether `name` is a run directory, or the name of one in runs/."""
    from resnext.run.directory import RUNS
    from resnext.run.run_files import is_run

    return is_run(Path(name)) or is_run(RUNS / name)


def _resume(run: "Run", overrides: list[str]) -> None:
    """Trains `run` to its end, with a new start if there are `overrides`."""
    if not overrides:
        return _launch(run, None)

    from resnext.config.compose import apply_overrides
    from resnext.config.logger import check_logger_packages
    from resnext.config.pretrained import without_weights
    from resnext.data.images import load_images
    from resnext.data.index import identify_data
    from resnext.run.identity import describe_epochs, with_epochs

    config, made = apply_overrides(run.config, overrides), run.made.recipe.epochs
    if config.run != run.config.run:
        raise UserError(f"run={config.run} cannot be changed: the run is {run.path}")
    if config.recipe.epochs < made:
        raise UserError(describe_epochs(run.path, run.config.recipe.epochs, config.recipe.epochs))
    check_logger_packages(config.logger)
    images = load_images(config.data)
    run.check_identity(with_epochs(config, run.config.recipe.epochs), identify_data(*images))

    from resnext.check.micro_batch import find_micro_batch, keep_micro_batch
    from resnext.training.preflight import check_before_run, check_epochs  # torch, so that a mistake is reported first

    check_epochs(run, config, images[0])
    parts = check_before_run(without_weights(config), *images)
    config, found = find_micro_batch(config, run)
    run = run.add_start(config)
    keep_micro_batch(run, found)
    return _launch(run, parts)


def _launch(run: "Run", parts: "Parts | None") -> None:
    from resnext.launch.local import launch
    from resnext.report.report_file import reporting

    with reporting(run):
        launch(run, parts)
