"""The checkpoints that `checkpoint.keep_every_epochs` keeps: checkpoints/epoch-003.ckpt. Imports no torch."""

import logging
import re
import time
from pathlib import Path

from resnext.terminal import first_three, pluralize

log = logging.getLogger(__name__)


def kept_name(epoch: int) -> str:
    """The file that holds the state after the validation of `epoch`, which is counted from 1."""
    return f"epoch-{epoch:03}.ckpt"


def find_kept(folder: Path) -> dict[int, Path]:
    """Epoch → file, in the order of the epochs."""
    found = ((re.fullmatch(r"epoch-([0-9]+)\.ckpt", path.name), path) for path in folder.glob("epoch-*.ckpt"))
    kept = {int(match[1]): path for match, path in found if match and path.name == kept_name(int(match[1]))}
    return dict(sorted(kept.items()))


def set_aside_later(folder: Path, epochs: int) -> None:
    """Renames the kept checkpoints of later epochs than `epochs`, the epochs done when a training starts.

    The training continues from an older checkpoint, because the newer ones were damaged or removed. It writes these
    files again. Until then, no command may take the old files for those of this training. They are not removed: they
    may be the only copy of that training. Also removes the incomplete files of a killed save.
    """
    later = [path for epoch, path in find_kept(folder).items() if epoch > epochs]
    ending = f".replaced-{time.strftime('%Y%m%d-%H%M%S')}.ckpt"
    if later:
        log.warning(
            "%s has %s of later epochs (%s) than the checkpoint from which the training continues; renamed to %s",
            folder,
            pluralize(len(later), "kept checkpoint"),
            first_three([path.name for path in later]),
            f"epoch-NNN{ending}",
        )
    try:
        for path in later:
            path.rename(path.with_name(path.stem + ending))
        for partial in folder.glob(".epoch-*.ckpt.partial"):
            partial.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s cannot be changed: %s; the training continues", folder, error.strerror)
