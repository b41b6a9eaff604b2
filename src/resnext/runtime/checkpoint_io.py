"""AtomicCheckpointIO: checkpoint files are written completely or not at all."""

import io
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint
from torch.utils._pytree import tree_leaves

from resnext.errors import UserError
from resnext.files import atomic_file, link_or_copy, link_or_move, sync, sync_folder
from resnext.runtime.checkpoint import BEST, LAST, PREVIOUS, Checkpoint
from resnext.terminal import describe_bytes

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a temporary file and renames it: a kill or a full disk leaves the earlier file unchanged.

    The earlier last.ckpt becomes previous.ckpt. A failed save only logs a warning. `failures` counts the failed saves
    in a row; the caller decides when the training must end. An OSError of `before_save` also counts.

    A best.ckpt that cannot be written stays in memory and is written before any other file. So no last.ckpt refers to
    a best.ckpt that does not exist. If the run is killed before that, the resumed run validates that epoch again.

    The `storage_options` of a save are the path of a second name that the file gets, or None.

    Args:
        loaded: the checkpoint from which the training resumes. Its file is not read a second time.
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

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Path | None = None
    ) -> None:
        target = Path(path)
        if target.name == BEST:
            self._kept_best = None  # an earlier epoch is no longer the best
        try:
            self.before_save()
            self._write_kept_best()
            _write(checkpoint, target, storage_options)
            self.failures = 0
        except OSError as error:
            self.failures += 1
            if target.name == BEST:
                self._kept_best = target, _to_bytes(checkpoint)
            log.warning(
                "%s could not be saved: %s; the earlier file is intact; the training continues (failure %d in a row)",
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
            raise OSError(f"{BEST} must be saved first: {error.strerror or error}") from error
        self._kept_best = None
        log.info("%s is saved now", path)


def _write(checkpoint: dict[str, Any] | bytes, target: Path, kept: Path | None = None) -> None:
    """Writes `checkpoint` to `target`. Writes the bytes from `_to_bytes` unchanged. `kept` is a second name for it."""
    with atomic_file(target) as file:  # the run's lock allows only one writer
        _check_free_space(checkpoint, target.parent)  # after atomic_file removed the file of a killed save
        if isinstance(checkpoint, bytes):
            file.write(checkpoint)
        else:
            save(checkpoint, file)
        _check_loadable(file)
        if target.name == LAST and target.exists():
            sync(file)  # before the rename: if this fails, previous.ckpt must stay
            link_or_move(target, target.with_name(PREVIOUS))
        if kept is not None:
            _keep(file, kept)
    sync_folder(target.parent)


def _keep(file: IO[bytes], kept: Path) -> None:
    """Before the file gets its own name: after a kill in between, the resumed run writes both again."""
    sync(file)
    try:
        link_or_copy(Path(file.name), kept)
    except OSError as error:  # of the copy: the file itself has space
        log.warning("%s could not be saved: %s; the training continues", kept, error.strerror or error)


def _to_bytes(checkpoint: dict[str, Any]) -> bytes:
    """The content of the file, as a copy that the training does not change."""
    content = io.BytesIO()
    torch.save(checkpoint, content)
    return content.getvalue()


def save(checkpoint: dict[str, Any], file: IO[bytes]) -> None:
    """Like torch.save, but raises the OSError that torch hides behind a RuntimeError about the file position."""
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _check_loadable(file: IO[bytes]) -> None:
    """Raises UserError if it holds a type that `torch.load(weights_only=True)` refuses: no run could resume."""
    file.flush()
    if refused := get_unsafe_globals_in_checkpoint(file.name):  # reads no tensors: 5 ms in a file of 800 MB
        raise UserError(
            f"a checkpoint cannot hold {', '.join(sorted(refused))}: the state_dict or on_save_checkpoint of a "
            "callback in callbacks.names gives a value of this type; give only tensors, numbers, text, lists and dicts"
        )


def _check_free_space(checkpoint: dict[str, Any] | bytes, folder: Path) -> None:
    """Raises OSError if the disk has too little space: a full disk would also damage the run's other files."""
    tensors = [leaf for leaf in tree_leaves(checkpoint) if isinstance(leaf, Tensor)]
    needed = len(checkpoint) if isinstance(checkpoint, bytes) else sum(tensor.nbytes for tensor in tensors)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"{describe_bytes(needed)} are needed and {describe_bytes(free)} are free")
