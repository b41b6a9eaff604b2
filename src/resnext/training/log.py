"""What a run says: to the terminal, and with the time to its log.txt."""

import logging
import warnings
from pathlib import Path

from rich.console import Console

HARMLESS = (
    r".*LeafSpec.* is deprecated",  # Lightning 2.6.6 with torch 2.14
    r"It is recommended to use `self.log\(.*sync_dist=True",  # they are sums over the ranks already
    r"Checkpoint directory .* exists and is not empty",  # a resumed run's
    r"The `srun` command is available",  # on a login node
)

console = Console(highlight=False, soft_wrap=True)


class ConsoleHandler(logging.Handler):
    """Prints above the progress bar, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        console.print(prefix + record.getMessage(), markup=False)


def start_logging(folder: Path, rank: int) -> None:
    """Ours go to terminal and file, the libraries' warnings too. Ranks but the first say only what is wrong."""
    file = logging.FileHandler(folder / "log.txt")
    name = f"[rank {rank}] " if rank else ""
    file.setFormatter(logging.Formatter(f"%(asctime)s {name}%(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    ours = logging.getLogger("resnext")
    ours.setLevel(logging.WARNING if rank else logging.INFO)
    ours.propagate = False
    ours.handlers = [ConsoleHandler(), file]
    for library in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(library).setLevel(logging.ERROR)
    _route_warnings_to(file)


def stop_logging() -> None:
    """Closes the file; another run may follow in this process."""
    ours = logging.getLogger("resnext")
    for handler in ours.handlers:
        handler.close()
    ours.handlers = []
    logging.captureWarnings(False)


def _route_warnings_to(file: logging.Handler) -> None:
    """Warnings of libraries are for whoever reads the log, not for the terminal."""
    logging.captureWarnings(True)
    warned = logging.getLogger("py.warnings")
    warned.handlers = [file]
    warned.propagate = False
    warnings.simplefilter("default")
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message=message)
