"""Writes the report as a file: by `resnext report`, and at the end of a training."""

import logging
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from resnext.errors import Interrupted, RunFailed, describe_error
from resnext.files import atomic_write, check_regular
from resnext.report.page import Page, build_page
from resnext.report.plots import NEEDED, check_available, is_available
from resnext.run.directory import Run
from resnext.runtime.logs import logging_to
from resnext.runtime.signals import StopRequest

PAGE = "report.html"

log = logging.getLogger(__name__)


def write_report(runs: Sequence[Run], path: Path) -> Page:
    """Raises UserError without matplotlib, or if `path` is not a regular file; OSError if it cannot be written."""
    check_available("a report")
    page = build_page(runs)
    save_page(page, path)
    return page


def save_page(page: Page, path: Path) -> None:
    """Raises UserError if `path` is not a regular file; OSError if it cannot be written."""
    with suppress(FileNotFoundError):
        check_regular(path)  # replacing /dev/null would break the machine
    atomic_write(path, page.text)


@contextmanager
def reporting(run: Run) -> Iterator[None]:
    """Writes RUN/report.html when the training in this block has finished or failed, but not after a signal.

    Whatever happens to the report, the training ends as it did: its result is already known. A signal leaves the report
    out.
    """
    if run.summary["status"] == "finished":  # then the block trains nothing
        yield
        return
    try:
        yield
    except RunFailed:
        _write_at_end(run)
        raise
    if run.summary["status"] != "paused":  # under torchrun, no Paused arrives here
        _write_at_end(run)


def _write_at_end(run: Run) -> None:
    try:
        with StopRequest().received(deferred=False), logging_to(run.path, rank=0):
            if run.config.logger.report:
                _write_and_log(run)
    except (Interrupted, KeyboardInterrupt):
        print(f"report    left out; `resnext report {shlex.quote(str(run.path))}` writes it")
    except Exception as error:  # log.txt or the configuration
        print(f"warning: no report is written: {describe_error(error)}")


def _write_and_log(run: Run) -> None:
    path = run.path / PAGE
    try:
        if is_available():
            write_report([run], path)
        log.info("report    %s", path if is_available() else NEEDED)
    except Exception as error:
        log.warning("%s cannot be written: %s", path, describe_error(error))
