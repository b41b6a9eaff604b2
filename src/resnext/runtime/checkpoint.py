"""Checkpoint files: written whole or not at all, and read only after every byte of them was checked.

torch writes a zip archive, which carries a CRC-32 of each of its records: the checksum is in the file, and the file
stays one that `torch.load(path, weights_only=True)` takes. torch itself does not look at it.
"""

import errno
import io
import logging
import pickle
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor
from torch.utils._pytree import tree_leaves

from resnext.errors import UserError
from resnext.files import atomic_file, check_regular, link_or_move, sync, sync_folder
from resnext.run.identity import RunMark, check_mark

OF_THE_STORAGE = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"

log = logging.getLogger(__name__)


class Best(NamedTuple):
    """The best validation so far."""

    epoch: int
    step: int
    score: float


class Checkpoint(NamedTuple):
    """A whole checkpoint: how many optimizer steps are done, and whether the validation due at that step is.

    `best` is what best.ckpt held when this one was written, `metrics` the text of metrics.csv.
    """

    path: Path
    step: int
    validated: bool
    best: Best | None
    metrics: str


class DamagedCheckpoint(UserError):
    """A file that is truncated, empty, altered, or not a checkpoint."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames: a kill, or a full disk, leaves the earlier file as it was.

    The last.ckpt before becomes previous.ckpt. A save that fails is a warning, and `failures` counts them in a row: the
    training goes on, and whoever called decides for how long. An OSError of `before_save` is such a failure too.

    A best.ckpt that cannot be written is kept in memory, and written before any other file: so no last.ckpt counts on
    a best.ckpt that is not there, and a run that is killed meanwhile validates that epoch again.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.before_save: Callable[[], None] = lambda: None
        self._kept_best: tuple[Path, bytes] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        target = Path(path)
        if target.name == BEST:
            self._kept_best = None  # an earlier one is no longer the best
        try:
            self.before_save()
            self._write_kept_best()
            _write(checkpoint, target)
            self.failures = 0
        except OSError as error:
            self.failures += 1
            if target.name == BEST:
                self._kept_best = target, _to_bytes(checkpoint)
            log.warning(
                "%s could not be saved: %s; the file before is whole and the training goes on (failure %d in a row)",
                target,
                error.strerror or error,
                self.failures,
            )

    def _write_kept_best(self) -> None:
        if self._kept_best is None:
            return
        path, content = self._kept_best
        try:
            _write(content, path)
        except OSError as error:
            raise OSError(f"{BEST} comes first, and: {error.strerror or error}") from error
        self._kept_best = None
        log.info("%s is saved now", path)


def find_latest(folder: Path, mark: RunMark, *, set_aside: bool) -> Checkpoint | None:
    """The newest whole checkpoint in `folder`, if there is one. Damaged ones are passed over.

    Every rank calls it, and one of them, with `set_aside`, says so and gives them another name.

    Raises:
        UserError: for one that is whole and not of the run with `mark`, or holds more than tensors and plain values.
    """
    found: list[Checkpoint] = []
    for name in (LAST, PREVIOUS, BEST):
        try:
            found.append(read_checkpoint(folder / name, mark))
        except FileNotFoundError:
            continue
        except DamagedCheckpoint as error:
            if set_aside:
                _set_aside(folder / name, error)
    return max(found, key=lambda each: (each.step, each.validated), default=None)


def read_checkpoint(path: Path, mark: RunMark | None = None) -> Checkpoint:
    """Checks the whole file and reads its position; with `mark`, also whose it is.

    Raises:
        FileNotFoundError: if there is none.
        DamagedCheckpoint: if it is not as it was written.
        UserError: if it is of another run, or holds more than tensors and plain values; nothing of it is run.
    """
    content = load_checkpoint(path)
    found = parse_checkpoint(path, content)
    if mark is not None:
        check_mark(path, content, mark)
    return found


def parse_checkpoint(path: Path, content: dict[str, Any]) -> Checkpoint:
    """The position in `content`, read from `path`; raises DamagedCheckpoint for what is missing or of another type."""
    if (fault := _find_fault(content)) is not None:
        raise DamagedCheckpoint(f"{path} is not a checkpoint of a training: {fault}")
    return Checkpoint(
        path=path,
        step=content["global_step"],
        validated=bool(content["validated"]),
        best=Best(**content["best"]) if content.get("best") else None,
        metrics=content.get("metrics", ""),
    )


def check_network(path: Path, network: Mapping[str, Tensor]) -> None:
    """Raises UserError with the first difference if the weights in `path` are not of this network."""
    theirs = {name: list(value.shape) for name, value in load_checkpoint(path)["state_dict"].items()}
    ours = {name: list(value.shape) for name, value in network.items()}
    for name in ours | theirs:
        if ours.get(name) != theirs.get(name):
            raise UserError(
                f"{path} is of another network: {name} is {theirs.get(name, 'missing')} in it and "
                f"{ours.get(name, 'missing')} in this run; put the run's own file back, or remove it"
            )


def load_checkpoint(path: Path) -> dict[str, Any]:
    """All that is in it, tensors mapped from the file; raises as `read_checkpoint` does."""
    try:
        check_regular(path)
    except UserError as error:
        raise DamagedCheckpoint(str(error)) from None
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise DamagedCheckpoint(f"{path} is damaged: the checksum of {damaged} is wrong")
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise DamagedCheckpoint(f"{path} is a TorchScript archive and not a checkpoint of a training")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (FileNotFoundError, PermissionError, UserError, MemoryError):
        raise
    except OSError as error:
        if error.errno in OF_THE_STORAGE:
            raise  # the file may be whole
        raise DamagedCheckpoint(f"{path} is damaged: {_first_line(error)}") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors and plain values, and loading those could run code: it was not written "
            "by a training; remove it"
        ) from error
    except Exception as error:  # truncated, empty or altered: zipfile and torch raise many types
        raise DamagedCheckpoint(f"{path} is damaged: {_first_line(error)}") from error


def _find_fault(content: Any) -> str | None:
    if not isinstance(content, dict):
        return "it is not a mapping"
    for name in ("global_step", "validated", "state_dict"):
        if name not in content:
            return f"it has no '{name}'"
    if not isinstance(content["global_step"], int):
        return "its global_step is not an integer"
    if not isinstance(content.get("metrics", ""), str):
        return "its metrics is not text"
    if not _is_state_dict(content["state_dict"]):
        return "its state_dict is not a mapping of tensors"
    best = content.get("best")
    if best and not (isinstance(best, dict) and best.keys() == set(Best._fields)):
        return f"its best is not a mapping of {', '.join(Best._fields)}"
    return None


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, Tensor) for each in value.values())


def _write(checkpoint: dict[str, Any] | bytes, target: Path) -> None:
    """Of bytes, as they are: a checkpoint that `_to_bytes` made."""
    with atomic_file(target) as file:  # one writer: the run's lock
        _check_free_space(checkpoint, target.parent)  # with the space of a killed save, which was removed
        if isinstance(checkpoint, bytes):
            file.write(checkpoint)
        else:
            _save(checkpoint, file)
        if target.name == LAST and target.exists():
            sync(file)  # a save that fails here must not cost previous.ckpt
            link_or_move(target, target.with_name(PREVIOUS))
    sync_folder(target.parent)


def _to_bytes(checkpoint: dict[str, Any]) -> bytes:
    """The file's content: a copy on the CPU, which the training does not change any more."""
    content = io.BytesIO()
    torch.save(checkpoint, content)
    return content.getvalue()


def _save(checkpoint: dict[str, Any], file: Any) -> None:
    """torch.save, with the OSError that its own RuntimeError about the position in the file hides."""
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _check_free_space(checkpoint: dict[str, Any] | bytes, folder: Path) -> None:
    """Before the disk is full to the brim: the run's other files are on it."""
    tensors = [leaf for leaf in tree_leaves(checkpoint) if isinstance(leaf, Tensor)]
    needed = len(checkpoint) if isinstance(checkpoint, bytes) else sum(tensor.nbytes for tensor in tensors)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"{needed / 1e6:,.1f} MB are needed and {free / 1e6:,.1f} MB are free")


def _set_aside(path: Path, error: UserError) -> None:
    aside = path.with_name(f"{path.stem}.damaged-{time.strftime('%Y%m%d-%H%M%S')}{path.suffix}")
    try:
        path.rename(aside)
        log.warning("%s; it is now %s, and passed over", error, aside.name)
    except OSError as reason:
        log.warning("%s; it is passed over, but cannot be renamed: %s", error, reason.strerror)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:100]
