"""What a command prints: progress of long work (a bar on a terminal, a line now and then elsewhere), and counts."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 30


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function that takes how much more is done; the bar leaves no trace when it ends. To stderr."""
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


def _lines(description: str, total: int) -> Callable[[int], None]:
    done, said = 0, time.monotonic()

    def advance(more: int) -> None:
        nonlocal done, said
        done += more
        if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            print(f"{description}: {done:,} of {total:,}", file=sys.stderr, flush=True)

    return advance
