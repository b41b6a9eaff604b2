"""resnext predict RUN PATH …: write the most likely classes of images as CSV or JSON lines."""

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from resnext.cli.arguments import ArgumentParser, positive
from resnext.errors import UserError
from resnext.files import atomic_file
from resnext.terminal import pluralize, progress

if TYPE_CHECKING:
    from resnext.inference.predict import Prediction
    from resnext.inference.prediction_file import Write

FORMATS = ("csv", "jsonl")


def main(arguments: list[str]) -> int:
    options = _parse(arguments)

    from resnext.inference.image_paths import find_images

    paths = find_images(options.paths)  # a wrong path is reported before torch is imported
    if not (first := list(itertools.islice(paths, options.batch_size))):
        raise UserError("standard input is empty: give one path per line")

    from resnext.data.cores import MAX_WORKERS, count_cores
    from resnext.data.index import printable
    from resnext.inference.predict import Predictor
    from resnext.inference.prediction_file import csv_writer, json_writer

    predictor = Predictor.from_run(options.run)
    topk = min(options.topk, len(predictor.metadata.classes))
    workers = min(count_cores(), MAX_WORKERS) if len(first) == options.batch_size else 0
    batches = predictor.predict_files(
        itertools.chain(first, paths), batch_size=options.batch_size, workers=workers, topk=topk
    )
    total = unreadable = 0
    with closing(batches), _opened(options.output) as file, _progress(options.output) as advance:
        write = csv_writer(file, topk) if options.format == "csv" else json_writer(file)
        for batch in batches:
            unreadable += _write_batch(batch, write)
            total += len(batch)
            advance(len(batch))
    if options.output is not None:
        print(f"wrote     {printable(os.fsencode(options.output))}, {pluralize(total - unreadable, 'row')}")
    if unreadable:
        print(f"resnext predict: {unreadable:,} of {pluralize(total, 'file')} cannot be read", file=sys.stderr)
    return 1 if unreadable and not options.allow_unreadable else 0


def _write_batch(batch: "list[Prediction]", write: "Write") -> int:
    """Returns the number of files that cannot be read, after their names are printed."""
    from resnext.data.index import printable

    for prediction in batch:
        if prediction.error is None:
            write(prediction)
        else:
            name = printable(os.fsencode(prediction.path))
            print(f"resnext predict: {name} cannot be read: {prediction.error}", file=sys.stderr)
    return sum(prediction.error is not None for prediction in batch)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        "resnext predict",
        description="Write the most likely classes of images, with the classes and the preprocessing of the run. A "
        "file that cannot be read is named on stderr and left out, and the exit code is 1.",
    )
    parser.add_argument("run", metavar="RUN|FILE", type=Path, help="runs/NAME (its best.ckpt), or a checkpoint file")
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="image files, folders, patterns, or - for a list on standard input"
    )
    parser.add_argument("--topk", type=positive, default=5, metavar="N", help="classes per image (default: 5)")
    parser.add_argument("--format", choices=FORMATS, help="default: jsonl for an output FILE.jsonl, else csv")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")
    parser.add_argument("--batch-size", type=positive, default=64, metavar="N", help="images per batch (default: 64)")
    parser.add_argument("--allow-unreadable", action="store_true", help="exit code 0 even if some files cannot be read")
    options = parser.parse_args(arguments)
    output: Path | None = options.output
    if output is not None and output.is_dir():
        raise UserError(f"--output {output} is a folder: give the name of a file")
    if output is not None and output.exists() and options.run.is_file() and output.samefile(options.run):
        raise UserError(f"--output {output} would replace the weights: give the name of another file")
    if output is not None and not output.parent.is_dir():
        raise UserError(f"--output {output}: the folder {output.parent} does not exist; create it")
    if options.format is None:
        options.format = "jsonl" if output is not None and output.suffix == ".jsonl" else "csv"
    return options


@contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    """A text file that replaces `path` at the end, or standard output. Paths need not be valid Unicode.

    A link stays a link. A device or a FIFO is written to, and not replaced.
    """
    target = None if path is None else path.resolve()
    with _binary(target) as content:
        file = TextIOWrapper(content, "utf-8", "surrogateescape", newline="")
        try:
            yield file
        finally:
            file.detach()  # else the end of `file` closes standard output


def _progress(output: Path | None) -> AbstractContextManager[Callable[[int], None]]:
    """A bar between the rows on a terminal would make both unreadable."""
    return nullcontext(lambda _done: None) if output is None and sys.stdout.isatty() else progress("predicting", None)


def _binary(target: Path | None) -> AbstractContextManager[Any]:
    if target is None:
        return nullcontext(sys.stdout.buffer)
    return open(target, "wb") if target.exists() and not target.is_file() else atomic_file(target)
