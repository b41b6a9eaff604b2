"""Run: a run directory, its identity and its files.

    runs/NAME/
      config.yaml    the resolved configuration that the run was made with: its identity
      starts/N.yaml  the configuration of a start, if it differs from the previous start; the newest applies
      run.json       ids, command, commit, classes, and every start that trained, with machine and versions
      code.diff      the uncommitted changes when the run was made
      summary.json   status and results so far
      checkpoints/   metrics.csv   perf.csv   log.txt   wandb/   lock

new_run.py makes a run directory. Imports no torch.
"""

import logging
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resnext.config.schema import Config, to_dict
from resnext.errors import UserError
from resnext.run.identity import (
    DataIdentity,
    RunMark,
    describe_conflict,
    describe_differences,
    describe_experiments,
    identity_digest,
    with_epochs,
)
from resnext.run.lock import RunLock
from resnext.run.metrics import read_last_row
from resnext.run.new_run import free_name, make_run
from resnext.run.provenance import describe_code, describe_machine
from resnext.run.run_files import (
    changed_at,
    check_files,
    is_run,
    read_config,
    read_info,
    read_summary,
    read_yaml,
    write_json,
    write_yaml,
)
from resnext.run.runs_folder import check_runs_folder, make_runs_folder

RUNS = Path("runs")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One run directory. Everything after `create` reads it; only rank 0, which holds the lock, writes to it.

    `start` is the number of the start to train; None is the newest start. Another start may be added before this one
    trains.
    """

    path: Path
    start: int | None = None

    @classmethod
    def create(cls, config: Config, data: DataIdentity, command: list[str]) -> "Run":
        """Makes runs/NAME. If the run exists and has the same `config` and `data`, adds another start to it.

        Raises:
            UserError: if NAME is another run (with the differences), if another process trains it, or if runs/ cannot
                be written.
        """
        make_runs_folder(RUNS)
        path = RUNS / (config.run or free_name(RUNS, config.experiment))
        if not path.exists():
            if make_run(path, replace(config, run=path.name), data, command):
                return cls(path, start=1)
            if config.run is None:  # another process took the name meanwhile
                return cls.create(config, data, command)
        run = cls.open(path)
        config = replace(config, run=path.name)
        if config.recipe.epochs == run.made.recipe.epochs:
            config = with_epochs(config, run.config.recipe.epochs)
        run.check_identity(config, data)
        return run.add_start(config)

    @classmethod
    def open(cls, path: Path, start: int | None = None) -> "Run":
        """The run at `path` or at runs/`path`. Raises UserError if it does not exist or is damaged."""
        run = cls.find(path, start)
        check_files(run.path)
        return run

    @classmethod
    def find(cls, path: Path, start: int | None = None) -> "Run":
        """Like `open`, but also finds a damaged run, even without its config.yaml."""
        for place in (path, RUNS / path):
            if is_run(place) or (place / "run.json").is_file():
                return cls(place, start)
        known = ", ".join(str(each.path) for each in list_runs()[-5:])
        found = f"the latest runs are {known}; `resnext status` lists all" if known else f"{RUNS} has no run"
        asked = f"give a run, {RUNS}/NAME" if path == Path() else f"{path} is not a run directory"
        raise UserError(f"{asked}: {found}")

    @property
    def made(self) -> Config:
        """The configuration with which the run was made."""
        return read_config(self.path / "config.yaml")

    @property
    def config(self) -> Config:
        """The configuration of this start."""
        return read_config(self.path / self._start_file)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def info(self) -> dict[str, Any]:
        return read_info(self.path / "run.json")

    @property
    def summary(self) -> dict[str, Any]:
        return read_summary(self.path / "summary.json")

    @property
    def step(self) -> int:
        """The last known step: summary.json is written rarely, a row of metrics.csv every few steps."""
        return max(int(read_last_row(self.path / "metrics.csv").get("step", 0)), self.summary.get("steps", 0))

    @property
    def planned_steps(self) -> int | None:
        """The steps of the whole training; None before the first start."""
        return next((start.get("steps") for start in reversed(self.info["starts"])), None)

    @property
    def data_identity(self) -> DataIdentity:
        data = self.info["data"]
        return DataIdentity(tuple(data["classes"]), data["fingerprint"])

    @property
    def mark(self) -> RunMark:
        """The mark in every checkpoint of this run."""
        info, config = self.info, read_yaml(self.path / "config.yaml")
        return RunMark(info["wandb_id"], identity_digest(config, info["data"]))

    def check(self) -> None:
        """Raises UserError for the first damaged file of the run."""
        check_files(self.path)
        _ = self.made, self.config, self.info, self.summary

    def lock(self) -> RunLock:
        return RunLock(self.path / "lock")

    def check_identity(self, config: Config, data: DataIdentity) -> None:
        """Raises UserError with the differences if `config` or `data` belongs to another run."""
        made = with_epochs(self.made, self.config.recipe.epochs)  # `resume` may have raised them
        differences = describe_differences(made, config)
        if self.made.experiment != config.experiment and (differences or data != self.data_identity):
            raise UserError(describe_experiments(self.path, self.made.experiment, config.experiment))
        self.check_data(data)
        if differences:
            raise UserError(describe_conflict(self.path, made, config))

    def check_data(self, data: DataIdentity) -> None:
        """Raises UserError if `data` is not what the run was made with."""
        if data == self.data_identity:
            return
        changed = "classes" if data.classes != self.data_identity.classes else "images"
        raise UserError(
            f"the data of {self.path} has changed: data.root no longer has the same {changed} as when the run was "
            "made; restore them, or start another RUN (run=NAME)"
        )

    def add_start(self, config: Config) -> "Run":
        """Adds a start with this configuration and returns the run at this start. More epochs make it unfinished.

        Raises UserError if a process trains the run; the message names the process.
        """
        with self.lock():
            newest = Run(self.path)
            number = newest._newest_start()
            if config != newest.config:
                number += 1
                if config.recipe.epochs != newest.config.recipe.epochs:
                    self.update_summary(status="interrupted")
                write_yaml(self.path / "starts" / f"{number}.yaml", to_dict(config))
        return Run(self.path, number)

    def update_info(self, **changes: Any) -> None:
        write_json(self.path / "run.json", self.info | changes)

    def update_summary(self, **changes: Any) -> None:
        """Logs a warning if the file cannot be written, for example on a full disk: the training must not end."""
        try:
            write_json(self.path / "summary.json", self.summary | changes)
        except UserError as error:
            log.warning("%s", error)
        except OSError as error:
            log.warning("%s/summary.json cannot be written: %s", self.path, error.strerror)

    def record_start(self, **facts: Any) -> None:
        """Adds a start to run.json: time, machine, code and `facts`. Warns if the code has changed."""
        info, code = self.info, describe_code()
        before = info["starts"][-1]["code"] if info["starts"] else info["code"]
        if code != before:
            log.warning("the code has changed since the last start (%s → %s): results may differ", before, code)
        time_and_config = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "config": self._start_file}
        self.update_info(starts=[*info["starts"], {**time_and_config, **facts, **describe_machine(), "code": code}])

    def find_last_start(self) -> Config | None:
        """The configuration of the start that trained last."""
        starts = self.info["starts"]
        return read_config(self.path / starts[-1]["config"]) if starts else None

    @property
    def _start_file(self) -> str:
        return f"starts/{self.start or self._newest_start()}.yaml"

    def _newest_start(self) -> int:
        """Raises UserError if there is none."""
        matches = (re.fullmatch(r"([1-9][0-9]*)\.yaml", path.name) for path in (self.path / "starts").glob("*.yaml"))
        numbers = [int(match[1]) for match in matches if match]
        if not numbers:
            raise UserError(f"{self.path}/starts has no 1.yaml: copy {self.path}/config.yaml to it")
        return max(numbers)


def list_runs() -> list[Run]:
    """The runs in runs/, sorted by the last change of their summary.json; also a run without config.yaml."""
    check_runs_folder(RUNS)
    folders = {path.parent for name in ("config.yaml", "run.json") for path in RUNS.glob(f"[!.]*/{name}")}
    return sorted((Run(folder) for folder in sorted(folders)), key=lambda run: changed_at(run.path / "summary.json"))


def find_unfinished() -> Run:
    """The latest run that is not finished, paused, in training or damaged. Warns of each damaged run.

    Raises:
        UserError: if there is no such run.
    """
    for run in reversed(list_runs()):
        try:
            run.check()
            if run.summary["status"] not in ("finished", "paused") and not run.lock().is_taken():
                return run
        except UserError as error:
            log.warning("%s; this run is skipped", error)
    raise UserError(f"{RUNS} has no unfinished run: name a finished one to add epochs, or start one (resnext train)")
