"""Sends the messages of a run to the terminal and, with the time, to its log.txt."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console

from resnext.config.redaction import redact_urls

HARMLESS = (
    r".*LeafSpec.* is deprecated",  # Lightning 2.6.6 with torch 2.14
    r"It is recommended to use `self.log\(.*sync_dist=True",  # the values are already sums over the ranks
    r"Checkpoint directory .* exists and is not empty",  # a resumed run
    r"Be aware that when using `ckpt_path`",  # an evaluation does not have the callbacks of the training
    r"No positive samples in targets",  # auroc of a class without validation images, which it leaves out
    r"Average precision score for one or more classes was `nan`",  # the same, for average_precision
    r"The `srun` command is available",  # on a login node
)
EVALUATION_MODE = r"Found \d+ module\(s\) in eval mode at the start of training"  # harmless with model.freeze

console = Console(highlight=False, soft_wrap=True)


class Formatter(logging.Formatter):
    """Removes passwords from addresses, such as WANDB_BASE_URL's, in messages and tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        return redact_urls(super().format(record))


class ConsoleHandler(logging.Handler):
    """Prints above the progress bar, if there is one. Tracebacks go only to the file."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            return
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        console.print(redact_urls(prefix + record.getMessage()), markup=False)


class LogFile(logging.FileHandler):
    """The file log.txt. A message that cannot be written to it (full disk) is still printed on the terminal."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - a method of logging
        """Does nothing. The method of logging prints a traceback for each line that cannot be written."""

    def close(self) -> None:
        with suppress(OSError):
            super().close()


@contextmanager
def logging_to(folder: Path, rank: int) -> Iterator[None]:
    """Sends our messages to the terminal and to folder/log.txt. Ranks other than 0 only log warnings and errors.

    Warnings of libraries go only to log.txt.
    """
    file = LogFile(folder / "log.txt")
    name = f"[rank {rank}] " if rank else ""
    file.setFormatter(Formatter(f"%(asctime)s {name}%(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    ours, warned = logging.getLogger("resnext"), logging.getLogger("py.warnings")
    ours.setLevel(logging.WARNING if rank else logging.INFO)
    ours.handlers, warned.handlers = [ConsoleHandler(), file], [file]
    ours.propagate = warned.propagate = False
    quiet_lightning()
    with warnings.catch_warnings():
        logging.captureWarnings(True)
        ignore_harmless_warnings()
        try:
            yield
        finally:
            logging.captureWarnings(False)
            ours.handlers = warned.handlers = []
            ours.propagate = warned.propagate = True
            file.close()


def ignore_harmless_warnings() -> None:
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message=message)


def quiet_lightning() -> None:
    """Silences Lightning, which would print the devices, and a line when a training stops."""
    for library in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(library).setLevel(logging.ERROR)
