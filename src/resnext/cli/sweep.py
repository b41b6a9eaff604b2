"""resnext sweep: train many runs as one, go on with a sweep, or show its table."""

import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnext.cli.arguments import ArgumentParser
from resnext.cli.json_output import add_json, print_json
from resnext.errors import Interrupted, UserError, describe_error
from resnext.terminal import pluralize

if TYPE_CHECKING:
    from resnext.sweep.folder import SweepFolder

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
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UserError(NEEDED) from None

    from resnext.sweep.folder import SweepFolder

    folder = SweepFolder.find(name) if name is not None else None
    if name is not None and folder is None:
        raise UserError(f"{name} is not a sweep: runs/{Path(name).name} has no sweep.yaml")
    if options.table or options.json:
        if folder is None:
            raise UserError("--table and --json need the name of a sweep: resnext sweep NAME --table")
        _show(folder, as_json=options.json)
        return 0
    return _go_on(folder, given, options)


def _go_on(folder: "SweepFolder | None", given: list[str], options: Any) -> int:
    from resnext.config.compose import CONFIGS, composer
    from resnext.config.folders import config_folders
    from resnext.config.sweep import change_sweep, parse_sweep
    from resnext.run.directory import RUNS
    from resnext.run.new_run import free_name
    from resnext.sweep.controller import check_space
    from resnext.sweep.folder import SweepFolder

    if folder is None:
        folders = config_folders(CONFIGS, options.config_dir)
        asked = parse_sweep(given, folders, str(folders[1]) if len(folders) > 1 else None)
        config = asked.sweep
        with composer(config.config_dir) as compose:
            check_space(config, compose)
        folder = SweepFolder.create(asked.name or free_name(RUNS, "sweep"), config)
    else:
        if options.config_dir is not None:
            raise UserError(
                "--config-dir is only for a new sweep: an existing sweep keeps its own folder; leave --config-dir out"
            )
        config = change_sweep(folder.config, given, folder.name)
    return _run(folder, config, waits=options.wait)


def _run(folder: "SweepFolder", config: Any, *, waits: bool) -> int:
    from resnext.config.compose import composer
    from resnext.sweep.controller import Controller, uses_cpu
    from resnext.sweep.journal import Journal
    from resnext.sweep.local import LocalWorkers, find_gpus
    from resnext.sweep.slurm import SlurmWorkers

    again = f"`resnext sweep {shlex.quote(folder.name)}`"
    print(f"sweep     {folder.path}; if it stops or is killed, {again} continues it")
    with folder.locked() as lock, composer(config.config_dir) as compose:
        journal = Journal(folder.path / "optuna.journal", config.direction)
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
        _measure(folder)
        _show(folder, as_json=False)
        return _write_page(folder)
    if config.launcher == "slurm" and not waits:
        print(f"{pluralize(left, 'job')} in the queue; {again} collects the results and goes on")
    else:
        kept = "the jobs stay in the queue" if config.launcher == "slurm" else "the runs are saved"
        print(f"sweep.budget_minutes={config.budget_minutes:g} is used up: {kept}; {again} continues the sweep")
    return 0


def _raise_interrupted(signum: int, _frame: object) -> None:
    raise Interrupted(signum)


def _show(folder: "SweepFolder", *, as_json: bool) -> None:
    from resnext.sweep.result import read_result

    result = read_result(folder)
    if as_json:
        print_json(result.to_plain())
    else:
        print("\n".join(result.lines()))


def _measure(folder: "SweepFolder") -> None:
    """Measures the networks of named points. A failure here is only a warning: the sweep is complete."""
    if not folder.config.points:
        return
    from resnext.sweep.families import keep_costs
    from resnext.sweep.result import read_result

    try:
        keep_costs(folder.path, read_result(folder).trials)
    except Exception as error:
        print(f"warning: the networks of {folder.path} are not measured: {describe_error(error)}")


def _write_page(folder: "SweepFolder") -> int:
    """Writes the page. A failure here is only a warning: the sweep is complete. Returns 1 if every trial has failed."""
    from resnext.sweep.page import write_page
    from resnext.sweep.result import read_result

    result = read_result(folder)
    try:
        print(f"report    {write_page(folder.path, result)}")
    except Exception as error:
        print(f"warning: the page of {folder.path} is not written: {describe_error(error)}")
    return 1 if all(trial.state == "failed" for trial in result.trials) else 0
