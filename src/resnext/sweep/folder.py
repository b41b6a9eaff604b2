"""SweepFolder: runs/NAME, the directory of a sweep, and its lock."""

import dataclasses
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resnext.config.schema import to_dict
from resnext.config.sweep import OF_THIS_START, SweepConfig, make_sweep
from resnext.errors import UserError
from resnext.files import atomic_folder, folder_lock
from resnext.run.directory import RUNS
from resnext.run.run_files import is_run, read_yaml, write_yaml
from resnext.run.runs_folder import make_runs_folder

FROZEN = "sweep.yaml"


@dataclasses.dataclass(frozen=True)
class SweepFolder:
    """runs/NAME with sweep.yaml."""

    name: str

    @property
    def path(self) -> Path:
        return RUNS / self.name

    @property
    def journal_path(self) -> Path:
        return self.path / "optuna.journal"

    @property
    def config(self) -> SweepConfig:
        return make_sweep(read_yaml(self.path / FROZEN))

    @classmethod
    def find(cls, name: str | Path) -> "SweepFolder | None":
        """The sweep `name` or runs/`name`; None if there is none."""
        path = Path(name)
        if path.absolute().parent not in (Path.cwd(), RUNS.absolute()):
            return None
        return cls(path.name) if (RUNS / path.name / FROZEN).is_file() else None

    @classmethod
    def create(cls, name: str, config: SweepConfig) -> "SweepFolder":
        """Makes runs/NAME.

        Raises:
            UserError: if NAME is a run or another sweep (with the differences), or has runs of `train -m`.
        """
        if name.startswith((".", "-")) or set('/"\\').intersection(name) or not name.isprintable():
            raise UserError(f"run={name!r} must be a plain folder name in runs/, such as lr")
        make_runs_folder(RUNS)
        folder = cls(name)
        if cls.find(name) is not None:
            folder._check_same(config)
            return folder
        if is_run(folder.path) or folder.path.exists():
            raise UserError(f"{folder.path} exists and is not a sweep: give another run=NAME")
        if taken := sorted(each.parent.name for each in RUNS.glob(f"{name}-[0-9]*/config.yaml")):
            raise UserError(f"{RUNS}/{taken[0]} exists, and would be a run of this sweep: give another run=NAME")
        with atomic_folder(folder.path) as made:
            write_yaml(made / FROZEN, to_dict(config))
            (made / "output").mkdir()
        return folder

    def _check_same(self, config: SweepConfig) -> None:
        made, asked = to_dict(self.config), to_dict(config)
        differ = [key for key in made if key not in OF_THIS_START and made[key] != asked[key]]
        if differ:
            key = differ[0]
            raise UserError(
                f"{self.path} is a different sweep: its {key} is {made[key]}, and you ask for {asked[key]}; give "
                f"another run=NAME, or `resnext sweep {self.name}` to go on with it"
            )

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Yields a descriptor for the processes of this sweep: while one of them has it open, no other start begins.

        Raises:
            UserError: if another process runs this sweep.
        """
        with folder_lock(self.path):
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._wait_for_former(descriptor)
                yield descriptor
            finally:
                os.close(descriptor)

    def _wait_for_former(self, descriptor: int) -> None:
        """Waits until the runs of a start that was killed have saved their state and ended."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting until the runs of the previous start have saved and ended", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: the lock of each run remains
            pass
