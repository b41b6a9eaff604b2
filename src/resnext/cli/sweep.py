"""resnext sweep: train many runs as one, go on with a sweep, or show its table."""

import importlib.util
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnext.cli.arguments import ArgumentParser
from resnext.cli.json_output import add_json, print_json
from resnext.errors import Interrupted, UserError, describe_error
from resnext.terminal import pluralize

if TYPE_CHECKING:
    from resnext.config.compose import Composer
    from resnext.config.sweep import SweepConfig
    from resnext.sweep.folder import SweepFolder
    from resnext.sweep.result import Result

NEEDED = "resnext sweep needs optuna, which is not installed: pip install -e '.[sweep]' installs it"


def main(arguments: list[str]) -> int:
    parser = ArgumentParser(
        "resnext sweep",
        description="Train many runs as one: resnext sweep run=lr experiment=NAME recipe.optimizer.lr=0.05,0.1,0.2. "
        "If the sweep is killed, repeat the command to continue it. docs/sweeps.md explains the keys (sweep.sampler, "
        "sweep.trials, sweep.seeds, sweep.pruner, sweep.parallel, sweep.launcher …).",
    )
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="NAME | KEY=SPACE",
        help="NAME continues the sweep runs/NAME; run=NAME, GROUP=NAME, KEY=VALUE and KEY=SPACE start a new sweep",
    )
    parser.add_argument("-cd", "--config-dir", metavar="DIR", help="files of your own, as in `resnext train`")
    parser.add_argument("--table", action="store_true", help="only print the table of the sweep NAME")
    parser.add_argument("--wait", action="store_true", help="with sweep.launcher=slurm: stay until all jobs have ended")
    add_json(parser)
    options = parser.parse_intermixed_args(arguments)
    given: list[str] = [each for each in options.arguments if each]  # make passes an empty RUN
    name = given.pop(0) if given and "=" not in given[0] else None
    if name is None and not given:
        raise UserError("give the name of a sweep, or KEY=SPACE; `resnext sweep --help` explains the arguments")
    check_optuna()

    from resnext.sweep.folder import SweepFolder

    folder = SweepFolder.find(name) if name is not None else None
    if name is not None and folder is None:
        raise UserError(f"{name} is not a sweep: runs/{Path(name).name} has no sweep.yaml")
    if options.table or options.json:
        if folder is None:
            raise UserError("--table and --json need the name of a sweep: resnext sweep NAME --table")
        from resnext.sweep.result import read_result

        result = read_result(folder)
        print_json(result.to_plain()) if options.json else print("\n".join(result.lines()))
        return 0
    return _go_on(folder, given, options)


def check_optuna() -> None:
    """Raises UserError if Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise UserError(NEEDED)


def _go_on(folder: "SweepFolder | None", given: list[str], options: Any) -> int:
    from resnext.config.compose import CONFIGS, composer
    from resnext.config.folders import config_folders
    from resnext.config.sweep import change_sweep, parse_sweep
    from resnext.run.directory import RUNS
    from resnext.run.new_run import free_name
    from resnext.sweep.check_space import check_space
    from resnext.sweep.folder import SweepFolder

    if folder is not None:
        if options.config_dir is not None:
            raise UserError(
                "--config-dir is only for a new sweep: an existing sweep keeps its own folder; leave --config-dir out"
            )
        config = change_sweep(folder.config, given, folder.name)
        with composer(config.config_dir) as compose:
            return _run(folder, config, compose, waits=options.wait)
    folders = config_folders(CONFIGS, options.config_dir)
    name, config = parse_sweep(given, folders, str(folders[1]) if len(folders) > 1 else None)
    with composer(config.config_dir) as compose:
        check_space(config, compose)
        folder = SweepFolder.create(name or free_name(RUNS, "sweep"), config)
        return _run(folder, config, compose, waits=options.wait)


def _run(folder: "SweepFolder", config: "SweepConfig", compose: "Composer", *, waits: bool) -> int:
    from resnext.sweep.check_space import uses_cpu
    from resnext.sweep.controller import Controller
    from resnext.sweep.journal import Journal
    from resnext.sweep.local import LocalWorkers, find_gpus
    from resnext.sweep.slurm import SlurmWorkers

    again = f"`resnext sweep {shlex.quote(folder.name)}`"
    print(f"sweep     {folder.path}; if it stops or is killed, {again} continues it")
    with folder.locked() as lock:
        journal = Journal(folder.journal_path, config.direction)
        if config.launcher == "slurm":
            workers: Any = SlurmWorkers(config, folder.path, lock, waits=waits)
        else:
            workers = LocalWorkers(config, folder.path, lock, [] if uses_cpu(config, compose) else find_gpus())
        signal.signal(signal.SIGTERM, _raise_interrupted)
        try:
            left = Controller(folder.path, config, journal, workers, compose).run()
        except (KeyboardInterrupt, Interrupted) as error:
            print(f"interrupted: the runs are saved; {again} goes on")
            raise Interrupted(getattr(error, "signum", signal.SIGINT)) from None
    if not left:
        return _finish(folder)
    if config.launcher == "slurm" and not waits:
        print(f"{pluralize(left, 'job')} in the queue; {again} collects the results and goes on")
    else:
        kept = "the jobs stay in the queue" if config.launcher == "slurm" else "the runs are saved"
        print(f"sweep.budget_minutes={config.budget_minutes:g} is used up: {kept}; {again} continues the sweep")
    return 0


def _raise_interrupted(signum: int, _frame: object) -> None:
    raise Interrupted(signum)


def _finish(folder: "SweepFolder") -> int:
    """Measures the networks of named points, and shows the result. Returns 1 if every trial has failed."""
    from resnext.sweep.families import keep_costs
    from resnext.sweep.result import read_result

    result = read_result(folder)
    if result.config.points:
        with _only_warning(f"the networks of {folder.path} are not measured"):
            keep_costs(folder.path, result.trials)
    print("\n".join(result.lines()))
    _write_page(folder, result)
    return 1 if all(trial.state == "failed" for trial in result.trials) else 0


def _write_page(folder: "SweepFolder", result: "Result") -> None:
    from resnext.sweep.page import write_page

    with _only_warning(f"the page of {folder.path} is not written"):
        print(f"report    {write_page(folder.path, result)}")


@contextmanager
def _only_warning(what: str) -> Iterator[None]:
    """An error in this block is only a warning: the sweep is complete."""
    try:
        yield
    except Exception as error:
        print(f"warning: {what}: {describe_error(error)}")
