"""AtomicCheckpointIO: checkpoint files are written completely or not at all."""

import io
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor
from torch.utils._pytree import tree_leaves

from resnext.files import atomic_file, link_or_move, sync, sync_folder
from resnext.runtime.checkpoint import BEST, LAST, PREVIOUS, Checkpoint

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames: a kill, or a full disk, leaves the earlier file as it was.

    The last.ckpt before becomes previous.ckpt. A save that fails is a warning, and `failures` counts them in a row: the
    training goes on, and whoever called decides for how long. An OSError of `before_save` is such a failure too.

    A best.ckpt that cannot be written is kept in memory, and written before any other file: so no last.ckpt counts on
    a best.ckpt that is not there, and a run that is killed meanwhile validates that epoch again.

    Args:
        loaded: the checkpoint that the training resumes from: its file is not read a second time.
    """

    def __init__(self, loaded: Checkpoint | None = None) -> None:
        self.failures = 0
        self._loaded = loaded
        self.before_save: Callable[[], None] = lambda: None
        self._kept_best: tuple[Path, bytes] | None = None

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        assert self._loaded is not None
        assert self._loaded.path == Path(path)
        return self._loaded.take_content()

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
