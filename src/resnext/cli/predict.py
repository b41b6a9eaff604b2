"""resnext predict RUN PATH …: write the likeliest classes of images as CSV or JSON lines."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from resnext.cli.arguments import ArgumentParser, positive
from resnext.errors import UserError
from resnext.files import atomic_file
from resnext.terminal import pluralize, progress


def main(arguments: list[str]) -> int:
    options = _parse(arguments)

    from resnext.inference.image_paths import find_images

    paths = find_images(options.paths)  # a wrong path is reported before torch is imported

    from resnext.data.cores import count_cores
    from resnext.data.index import printable
    from resnext.inference.predict import Predictor
    from resnext.inference.prediction_file import csv_writer, json_writer

    predictor = Predictor.from_run(options.run)
    topk = min(options.topk, len(predictor.metadata.classes))
    batches = predictor.predict_files(paths, batch_size=options.batch_size, workers=count_cores(), topk=topk)
    total = unreadable = 0
    with _opened(options.output) as file, _progress(options.output) as advance:
        write = csv_writer(file, topk) if options.format == "csv" else json_writer(file)
        for batch in batches:
            for prediction in batch:
                if prediction.error is None:
                    write(prediction)
                else:
                    unreadable += 1
                    name = printable(os.fsencode(prediction.path))
                    print(f"resnext predict: {name} cannot be read: {prediction.error}", file=sys.stderr)
            total += len(batch)
            advance(len(batch))
    if unreadable:
        print(f"resnext predict: {unreadable:,} of {pluralize(total, 'file')} cannot be read", file=sys.stderr)
    return 1 if unreadable and not options.allow_unreadable else 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        "resnext predict",
        description="Write the likeliest classes of images, with the classes and the preprocessing of the run. A file "
        "that cannot be read is named on stderr and left out, and the exit code is 1.",
    )
    parser.add_argument("run", metavar="RUN|FILE", type=Path, help="runs/NAME (its best.ckpt), or a checkpoint file")
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="image files, folders, patterns, or - for a list on standard input"
    )
    parser.add_argument("--topk", type=positive, default=5, metavar="N", help="classes of each image (default: 5)")
    parser.add_argument("--format", choices=("csv", "jsonl"), default="csv", help="default: csv")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")
    parser.add_argument(
        "--batch-size", type=positive, default=64, metavar="N", help="images in memory at a time (default: 64)"
    )
    parser.add_argument("--allow-unreadable", action="store_true", help="exit code 0 in spite of unreadable files")
    options = parser.parse_args(arguments)
    if options.output is not None and (options.output.is_dir() or not options.output.parent.is_dir()):
        raise UserError(f"--output {options.output} is not a file in a folder that exists: give the name of a file")
    return options


@contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    """A text file that replaces `path` at the end, or standard output. Paths need not be valid Unicode."""
    with nullcontext(sys.stdout.buffer) if path is None else atomic_file(path) as content:
        file = TextIOWrapper(content, "utf-8", "surrogateescape", newline="")
        try:
            yield file
        finally:
            file.detach()  # else the end of `file` closes standard output


def _progress(output: Path | None) -> AbstractContextManager[Callable[[int], None]]:
    """A bar between the rows on a terminal would make both unreadable."""
    return nullcontext(lambda _done: None) if output is None and sys.stdout.isatty() else progress("predicting", None)
