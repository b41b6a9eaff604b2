"""Terminal output: counts, and the progress of long work (a bar on a terminal, else a line every 30 s)."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

COLUMNS = 80  # of the text that a command prints
SECONDS_BETWEEN_LINES = 30


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of newly finished items. On stderr; the bar is removed at the end.

    `total` is None if it is not known.
    """
    if not sys.stderr.isatty():
        yield _lines(description, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True, expand=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done: bar.advance(task, done)


def pluralize(count: int, noun: str, several: str | None = None) -> str:
    """`1 image`, `1,024 images`."""
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"


def first_three(names: Sequence[str]) -> str:
    """`cat, dog, bird and 7 more`."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def describe_bytes(count: float) -> str:
    """`1.28 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def _lines(description: str, total: int | None) -> Callable[[int], None]:
    done, last_print = 0, time.monotonic()

    def advance(more: int) -> None:
        nonlocal done, last_print
        done += more
        if time.monotonic() - last_print >= SECONDS_BETWEEN_LINES:
            last_print = time.monotonic()
            of_total = "" if total is None else f" of {total:,}"
            print(f"{description}: {done:,}{of_total}", file=sys.stderr, flush=True)

    return advance
