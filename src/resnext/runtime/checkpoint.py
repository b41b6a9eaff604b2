"""Reads each checkpoint file once, and checks every byte of it.

torch writes a zip archive, which holds a CRC-32 of each of its records. So the file needs no other checksum, and
`torch.load(path, weights_only=True)` can still load it. torch itself does not verify the CRC-32: checked_reads.py does.
"""

import errno
import logging
import pickle
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.serialization import config as serialization_config

from resnext.errors import UserError, first_line
from resnext.files import check_regular
from resnext.run.identity import RunMark, check_mark
from resnext.runtime.checked_reads import CheckedReads, check_memory, is_pickle

STORAGE_ERRORS = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"

T = TypeVar("T")

log = logging.getLogger(__name__)


class Best(NamedTuple):
    """The best validation so far."""

    epoch: int
    step: int
    score: float


@dataclass(frozen=True)
class Checkpoint:
    """The position of a training: the optimizer steps done, and whether the validation at that step is done too.

    `best` is the validation that best.ckpt held when this file was written. `metrics` is the text of metrics.csv.
    `content` is everything in the file; it is empty if only the position was read.
    """

    path: Path
    step: int
    validated: bool
    best: Best | None
    metrics: str
    content: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def take_content(self) -> dict[str, Any]:
        """Returns the content and drops it here, so that this object does not keep the tensors in memory."""
        content = dict(self.content)
        self.content.clear()
        return content


class DamagedCheckpoint(UserError):
    """A file that is truncated, empty, altered, or not a checkpoint."""


def find_latest(folder: Path, mark: RunMark, *, set_aside: bool) -> Checkpoint | None:
    """The newest checkpoint in `folder` that is not damaged, with its content; None if there is none.

    Compares the positions of the files, and reads only the newest; if it is damaged, reads the next. Every rank calls
    this function, but only one sets `set_aside`: that rank logs and renames damaged files, and also checks best.ckpt.

    Raises:
        UserError: if a file does not belong to the run with `mark`, or holds more than tensors and plain values.
    """
    positions = find_positions(folder, mark, set_aside=set_aside)
    loaded = (_unless_damaged(lambda file: read_checkpoint(file, mark), each.path, set_aside) for each in positions)
    found = next(filter(None, loaded), None)
    if set_aside and found is not None and found.path.name != BEST:
        _unless_damaged(_check_bytes, folder / BEST, set_aside)
    return found


def find_positions(folder: Path, mark: RunMark, *, set_aside: bool = False) -> list[Checkpoint]:
    """The checkpoints in `folder`, the newest first, without their content. Raises the errors of `find_latest`."""
    paths = (folder / name for name in (LAST, PREVIOUS, BEST))
    positions = (_unless_damaged(lambda file: read_position(file, mark), path, set_aside) for path in paths)
    return sorted(filter(None, positions), key=lambda each: (each.step, each.validated), reverse=True)


def read_checkpoint(path: Path, mark: RunMark | None = None) -> Checkpoint:
    """Reads the file once and checks every byte; with `mark`, also checks that it belongs to this run.

    Raises:
        FileNotFoundError: if the file does not exist.
        DamagedCheckpoint: if the file has changed since it was written.
        UserError: if it belongs to another run, or holds more than tensors and plain values. No code in a file is run.
    """
    return _parse_own(path, load_checkpoint(path), mark)


def read_position(path: Path, mark: RunMark | None = None) -> Checkpoint:
    """Like `read_checkpoint`, but does not read or check the tensors, and leaves out the content."""
    with _naming_damage(path):
        with zipfile.ZipFile(path) as archive:
            _check_pickle(archive, path)
        without_headers = {"load.calculate_storage_offsets": True}  # else torch reads one header for each tensor
        with serialization_config.patch(without_headers):  # pyright: ignore[reportAttributeAccessIssue]
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return replace(_parse_own(path, content, mark), content={})


def _parse_own(path: Path, content: dict[str, Any], mark: RunMark | None) -> Checkpoint:
    found = parse_checkpoint(path, content)
    if mark is not None:
        check_mark(path, content, mark)
    return found


def parse_checkpoint(path: Path, content: dict[str, Any]) -> Checkpoint:
    """The position in `content`, read from `path`. Raises DamagedCheckpoint for a missing value or a wrong type."""
    if (fault := _find_fault(content)) is not None:
        raise DamagedCheckpoint(f"{path} is not a checkpoint of a training: {fault}")
    return Checkpoint(
        path=path,
        step=content["global_step"],
        validated=bool(content["validated"]),
        best=Best(**content["best"]) if content.get("best") else None,
        metrics=content.get("metrics", ""),
        content=content,
    )


def check_network(checkpoint: Checkpoint, network: Mapping[str, Tensor], prefix: str) -> None:
    """Raises UserError with the first difference if the weights in `checkpoint` do not fit this network.

    The names of these weights begin with `prefix`. Lightning checks all other tensors, such as the buffers of a loss.
    """
    weights: dict[str, Tensor] = checkpoint.content["state_dict"]
    theirs = {name: list(value.shape) for name, value in weights.items() if name.startswith(prefix)}
    ours = {prefix + name: list(value.shape) for name, value in network.items()}
    for name in ours | theirs:
        if ours.get(name) != theirs.get(name):
            raise UserError(
                f"{checkpoint.path} belongs to another network: {name} is {theirs.get(name, 'missing')} in it and "
                f"{ours.get(name, 'missing')} in this run; put the run's own file back, or remove it"
            )


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Everything in the file, on the CPU. Raises the errors of `read_checkpoint`."""
    with _naming_damage(path), open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        _check_pickle(archive, path)
        file.seek(0)
        checked = CheckedReads(file)  # a copy of the file in memory would double what a start needs
        try:
            content = torch.load(checked, map_location="cpu", weights_only=True)  # pyright: ignore[reportArgumentType] - IO
        except RuntimeError:  # for damage, or for too little memory
            check_memory(path)
            raise
        _refuse_damaged(checked.find_damaged(archive), path)
        return content


def _check_bytes(path: Path) -> None:
    """Like `read_checkpoint`, but loads nothing."""
    with _naming_damage(path), zipfile.ZipFile(path) as archive:
        _refuse_damaged(archive.testzip(), path)


def _refuse_damaged(record: str | None, path: Path) -> None:
    if record is not None:
        raise DamagedCheckpoint(f"{path} is damaged: the checksum of {record} is wrong")


def _check_pickle(archive: zipfile.ZipFile, path: Path) -> None:
    """Before torch reads it: torch could take a damaged pickle for one that runs code."""
    names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        raise DamagedCheckpoint(f"{path} is a TorchScript archive and not a checkpoint of a training")
    pickles = [name for name in names if name.endswith("/data.pkl")]
    if not pickles:
        raise DamagedCheckpoint(f"{path} is not a checkpoint of a training: it has no data.pkl")
    archive.read(pickles[0])  # raises BadZipFile if its checksum is wrong


def _unless_damaged(read: Callable[[Path], T], path: Path, set_aside: bool) -> T | None:
    """None if the file does not exist or is damaged."""
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except DamagedCheckpoint as error:
        if set_aside:
            _set_aside(path, error)
        return None


@contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    """Raises DamagedCheckpoint for a special file, or if reading `path` fails for another reason than the storage."""
    try:
        check_regular(path)
    except UserError as error:
        raise DamagedCheckpoint(str(error)) from None
    try:
        yield
    except (FileNotFoundError, PermissionError, UserError, MemoryError):
        raise
    except Exception as error:  # truncated, empty or altered: zipfile and torch raise many types
        if isinstance(error, pickle.UnpicklingError) or is_pickle(path):
            raise UserError(
                f"{path} holds more than tensors and plain values, and loading it could run code: it was not written "
                "by a training; remove it"
            ) from error
        for each in (error, error.__context__):  # zipfile replaces an OSError by its own error
            if isinstance(each, OSError) and each.errno in STORAGE_ERRORS:
                raise each from None  # the file may be intact
        raise DamagedCheckpoint(f"{path} is damaged: {first_line(error)[:100]}") from error


def _find_fault(content: Any) -> str | None:
    if not isinstance(content, dict):
        return "it is not a mapping"
    for name in ("global_step", "validated", "state_dict"):
        if name not in content:
            return f"it has no '{name}'"
    for name, kind, text in (
        ("global_step", int, "an integer"),
        ("metrics", str, "text"),
        ("epoch_loss", list, "a list"),
    ):
        if not isinstance(content.get(name, kind()), kind):
            return f"its {name} is not {text}"
    weights = content["state_dict"]
    if not isinstance(weights, dict) or not all(isinstance(each, Tensor) for each in weights.values()):
        return "its state_dict is not a mapping of tensors"
    best = content.get("best")
    if best and not (isinstance(best, dict) and best.keys() == set(Best._fields)):
        return f"its best is not a mapping of {', '.join(Best._fields)}"
    return None


def _set_aside(path: Path, error: UserError) -> None:
    aside = path.with_name(f"{path.stem}.damaged-{time.strftime('%Y%m%d-%H%M%S')}{path.suffix}")
    try:
        path.rename(aside)
        log.warning("%s; it was renamed to %s and is skipped", error, aside.name)
    except OSError as reason:
        log.warning("%s; it is skipped, but cannot be renamed: %s", error, reason.strerror)
