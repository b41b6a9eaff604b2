"""resnext compare RUN RUN: check whether two runs are identical, bit for bit."""

import textwrap
from pathlib import Path

from resnext.cli.arguments import ArgumentParser
from resnext.cli.json_output import add_json, only_json, print_json
from resnext.terminal import COLUMNS


def main(arguments: list[str]) -> int:
    """Returns 0 if the runs are identical, else 1."""
    parser = ArgumentParser(
        "resnext compare",
        description="Check whether metrics, weights, EMA and optimizer of two runs are identical; if not, show where "
        "they first differ and by how much. Exit code 0: identical, 1: different.",
    )
    parser.add_argument("one", type=Path, help="a run directory, runs/NAME")
    parser.add_argument("other", type=Path, help="another run directory")
    add_json(parser)
    options = parser.parse_args(arguments)

    from resnext.run.directory import Run

    one, other = Run.open(options.one), Run.open(options.other)

    from resnext.report.comparison import compare

    with only_json(options.json):
        parts = compare(one, other)
    same = all(part.same for part in parts)
    if options.json:
        rows = [{"name": part.name, "identical": part.same, "text": part.text} for part in parts]
        print_json({"identical": same, "parts": rows})
        return 0 if same else 1
    for part in parts:
        head = f"{part.name:12}{'identical' if part.same else 'different'}  "
        print(textwrap.fill(part.text, COLUMNS, initial_indent=head, subsequent_indent=" " * len(head)))
    return 0 if same else 1
