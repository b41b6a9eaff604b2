"""Run: a run directory, its identity and its files.

    runs/NAME/
      config.yaml    resolved, as the run was made: its identity
      starts/N.yaml  the configuration of a start, where it is not that of the one before; the newest counts
      run.json       ids, command, commit, classes, and every start that trained, with machine and versions
      code.diff      what was not committed when the run was made
      summary.json   status and results so far
      checkpoints/   metrics.csv   perf.csv   log.txt   wandb/   lock

A run is built aside and renamed into place, so that half a run never exists. Imports no torch.
"""

import errno
import json
import logging
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from resnext.config import Config, parse_config, to_dict
from resnext.data.index import DataIdentity
from resnext.errors import UserError
from resnext.training.identity import RunMark, describe_difference, identity_digest, with_epochs
from resnext.training.lock import RunLock
from resnext.training.provenance import describe_code, describe_machine, new_wandb_id, write_diff
from resnext.whole_file import replace_text

RUNS = Path("runs")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One run directory. Everything after `create` reads it; only rank 0, which holds the lock, writes to it.

    `start` is the number of the start whose configuration counts, None for the newest: between the making of a start
    and its training another one may be made.
    """

    path: Path
    start: int | None = None

    @classmethod
    def create(cls, config: Config, data: DataIdentity, command: list[str]) -> "Run":
        """Makes runs/NAME, or opens it for another start if `config` and `data` are those of the run that is there.

        Raises:
            UserError: if NAME is another run, and how it differs; if another process is training it.
        """
        RUNS.mkdir(parents=True, exist_ok=True)
        path = RUNS / (config.run or free_name(config.experiment))
        if not path.exists():
            if _make(replace(config, run=path.name), data, command, path):
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
        """The run at `path`, or of that name in runs/; raises UserError if there is none."""
        if not (path / "config.yaml").is_file() and (RUNS / path / "config.yaml").is_file():
            path = RUNS / path
        if not (path / "config.yaml").is_file():
            known = [str(each.path) for each in list_runs()][-5:]
            found = f"there are {', '.join(known)}" if known else f"{RUNS} has none"
            asked = "no run was named" if path == Path() else f"{path} is no run directory"
            raise UserError(f"{asked}; give one as RUN={RUNS}/NAME: {found}")
        return cls(path, start)

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
        return json.loads((self.path / "run.json").read_text())

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.path / "summary.json").read_text())

    @property
    def data_identity(self) -> DataIdentity:
        data = self.info["data"]
        return DataIdentity(tuple(data["classes"]), data["fingerprint"])

    @property
    def mark(self) -> RunMark:
        """What its checkpoints carry."""
        info, config = self.info, OmegaConf.to_container(OmegaConf.load(self.path / "config.yaml"))
        return RunMark(info["wandb_id"], identity_digest(config, info["data"]))  # pyright: ignore[reportArgumentType]

    def lock(self) -> RunLock:
        return RunLock(self.path / "lock")

    def check_identity(self, config: Config, data: DataIdentity) -> None:
        """Raises UserError with the first difference if `config` or `data` would make another run of this one."""
        self.check_data(data)
        made = with_epochs(self.made, self.config.recipe.epochs)  # `resume` may have raised them
        difference = describe_difference(made, config)
        if difference is not None:
            longer = f"resnext resume {self.path} recipe.epochs={config.recipe.epochs} raises them"
            remedy = longer if difference.startswith("recipe.epochs ") else "give the values it was made with"
            raise UserError(f"{self.path} is another run: {difference}; {remedy}, or another RUN (run=NAME)")

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
        """Keeps the configuration of another start, and returns the run with that. With more epochs it is not finished.

        Raises:
            UserError: while a process trains the run: which.
        """
        with self.lock():
            newest = Run(self.path)
            number = newest._starts()[-1]
            if config != newest.config:
                number += 1
                if config.recipe.epochs != newest.config.recipe.epochs:
                    self.update_summary(status="interrupted")
                _write_yaml(self.path / "starts" / f"{number}.yaml", to_dict(config))
        return Run(self.path, number)

    def update_info(self, **changes: Any) -> None:
        _write_json(self.path / "run.json", self.info | changes)

    def update_summary(self, **changes: Any) -> None:
        """A training does not end for it: where it cannot be written, as on a full disk, that is a warning."""
        try:
            _write_json(self.path / "summary.json", self.summary | changes)
        except OSError as error:
            log.warning("%s/summary.json cannot be written: %s", self.path, error.strerror)

    def record_start(self, **facts: Any) -> None:
        """Adds a start to run.json: when and where, `facts`, and with which code; changed code is a warning."""
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
        return f"starts/{self.start or self._starts()[-1]}.yaml"

    def _starts(self) -> list[int]:
        return sorted(int(path.stem) for path in (self.path / "starts").glob("*.yaml"))


def list_runs() -> list[Run]:
    """The runs in runs/, the one whose summary changed last at the end."""
    runs = [Run(path.parent) for path in RUNS.glob("[!.]*/config.yaml")]
    return sorted(runs, key=lambda run: (run.path / "summary.json").stat().st_mtime)


def find_unfinished() -> Run:
    """The latest run that is neither finished nor being trained; raises UserError if there is none."""
    for run in reversed(list_runs()):
        if run.summary["status"] != "finished" and not run.lock().is_taken():
            return run
    raise UserError(f"{RUNS} has no unfinished run; name one as RUN={RUNS}/NAME, or start one with make train")


def free_name(experiment: str) -> str:
    """EXPERIMENT-YYYYMMDD-HHMMSS, with a suffix where that is taken."""
    name = f"{experiment}-{time.strftime('%Y%m%d-%H%M%S')}"
    taken = {path.name for path in RUNS.glob(f"{name}*")}
    return next(each for each in (name, *(f"{name}-{count}" for count in range(2, 10_000))) if each not in taken)


def read_config(path: Path) -> Config:
    """Raises UserError if the file was edited into something that the schema refuses."""
    try:
        return parse_config(OmegaConf.to_container(OmegaConf.load(path)))  # pyright: ignore[reportArgumentType]
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except YAMLError as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from error


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Atomically: a reader, or a kill, finds the old file or the new one."""
    replace_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def _make(config: Config, data: DataIdentity, command: list[str], path: Path) -> bool:
    """Whether this process made the run; False if another was faster."""
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}-", dir=RUNS))
    aside.chmod(0o755)
    try:
        _write_new_run(aside, config, data, command)
        aside.rename(path)
    except OSError as error:
        shutil.rmtree(aside)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _write_new_run(folder: Path, config: Config, data: DataIdentity, command: list[str]) -> None:
    _write_yaml(folder / "config.yaml", to_dict(config))
    (folder / "starts").mkdir()
    _write_yaml(folder / "starts" / "1.yaml", to_dict(config))
    (folder / "checkpoints").mkdir()
    info = {
        "name": config.run,
        "wandb_id": new_wandb_id(),
        "command": command,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "code": describe_code(),
        "data": {"fingerprint": data.fingerprint, "classes": data.classes},
        "starts": [],
    }
    write_diff(folder / "code.diff")
    _write_json(folder / "run.json", info)
    _write_json(folder / "summary.json", {"status": "new"})


def _write_yaml(path: Path, content: dict[str, Any]) -> None:
    replace_text(path, OmegaConf.to_yaml(OmegaConf.create(content)))
