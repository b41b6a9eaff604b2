"""Journal: a sweep's trials in Optuna's journal file, which optuna-dashboard also reads.

A record is one line, written at once. So after a kill, a trial is there with all its values, or it is not there.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import InMemoryStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from resnext.errors import UserError
from resnext.files import check_regular, sync
from resnext.sweep.trial import State

STUDY = "sweep"
STATES: dict[State, TrialState] = {
    "open": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
OVERRIDES, RUNGS, PROMOTIONS, ERROR = "overrides", "rungs", "promotions", "error"  # user attributes of a trial


class Journal:
    """Only the process that holds the sweep's lock writes to it. Without `writes`, a missing file is an empty journal.

    Raises:
        UserError: if the file is damaged.
    """

    def __init__(self, path: Path, direction: Literal["maximize", "minimize"], *, writes: bool = True) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if writes:
            _drop_torn_line(path)
        try:
            is_begun = _is_begun(path)
            self._storage = (
                JournalStorage(JournalFileBackend(str(path), lock_obj=_NoLock(str(path))))
                if writes or is_begun
                else InMemoryStorage()
            )
            self._study = (
                optuna.load_study(study_name=STUDY, storage=self._storage)
                if is_begun
                else optuna.create_study(storage=self._storage, study_name=STUDY, direction=direction)
            )
            _ = self.trials
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is damaged ({type(error).__name__}: {error}): restore it from a backup, or remove the lines "
                "from the damaged one on, and repeat the command; the runs are not lost"
            ) from None

    @property
    def study(self) -> optuna.Study:
        return self._study

    @property
    def trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def add(self, trial: FrozenTrial, overrides: Sequence[str], rungs: Sequence[int]) -> None:
        trial.user_attrs = {OVERRIDES: [*overrides], RUNGS: [*rungs]}
        self._study.add_trial(trial)

    def report(self, number: int, epoch: int, value: float) -> None:
        self._storage.set_trial_intermediate_value(self._id(number), epoch, value)

    def promote(self, number: int, promotions: int) -> None:
        self._storage.set_trial_user_attr(self._id(number), PROMOTIONS, promotions)

    def complete(self, number: int, value: float) -> None:
        self._storage.set_trial_state_values(self._id(number), TrialState.COMPLETE, [value])

    def prune(self, number: int, value: float) -> None:
        self._storage.set_trial_state_values(self._id(number), TrialState.PRUNED, [value])

    def fail(self, number: int, error: str) -> None:
        self._storage.set_trial_user_attr(self._id(number), ERROR, error)
        self._storage.set_trial_state_values(self._id(number), TrialState.FAIL)

    def _id(self, number: int) -> Any:
        return self.trials[number]._trial_id


class _NoLock(JournalFileOpenLock):
    """Optuna's own lock files would outlive a kill, and delay the next start by half a minute."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _is_begun(path: Path) -> bool:
    """Whether the file has its first record, which makes the study."""
    return path.is_file() and b"\n" in path.read_bytes()


def _drop_torn_line(path: Path) -> None:
    """Removes an incomplete last line, which a full disk or a power failure leaves."""
    try:
        check_regular(path)
    except FileNotFoundError:
        return
    with open(path, "rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            file.seek(0, os.SEEK_END)
            sync(file)
