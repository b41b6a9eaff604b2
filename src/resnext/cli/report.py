"""resnext report RUN …: write one HTML page about a run, or about several runs beside each other."""

from pathlib import Path
from typing import TYPE_CHECKING

from resnext.cli.arguments import ArgumentParser
from resnext.cli.json_output import add_json, only_json, print_json
from resnext.errors import UserError
from resnext.terminal import describe_bytes

if TYPE_CHECKING:
    from resnext.run.directory import Run


def main(arguments: list[str]) -> int:
    parser = ArgumentParser(
        "resnext report",
        description="Write one HTML page with the curves, the mistakes, the images and the configuration of a run, or "
        "with several runs beside each other. It can be repeated at any time, also during the training.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run directory, runs/NAME")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the page (default: RUN/report.html; needed for several runs)"
    )
    parser.add_argument(
        "--wandb",
        action="store_true",
        help="also send the confusion matrix and the worst mistakes of the newest evaluation to the run's W&B run",
    )
    add_json(parser)
    options = parser.parse_args(arguments)
    if len(options.runs) > 1 and options.output is None:
        raise UserError(f"{len(options.runs)} runs on one page: say where to write it, --output FILE.html")
    if len(options.runs) > 1 and options.wandb:
        raise UserError("--wandb is for one run: repeat the command with each run")

    from resnext.run.directory import Run

    runs = [Run.find(path) for path in options.runs]

    from resnext.report.report_file import PAGE, write_report

    path = options.output or runs[0].path / PAGE
    with only_json(options.json):
        page = write_report(runs, path)
        if options.wandb:
            _send(runs[0])
    size = path.stat().st_size
    if options.json:
        print_json({"path": path, "bytes": size, "left_out": page.left_out})
        return 0
    print(f"report    {path}, {describe_bytes(size)}")
    for reason in dict.fromkeys(page.left_out.values()):
        titles = [title for title, each in page.left_out.items() if each == reason]
        print(f"left out  {', '.join(titles)}: {reason}")
    return 0


def _send(run: "Run") -> None:
    from resnext.report.sent_pictures import send_evaluation
    from resnext.runtime.logs import logging_to

    with logging_to(run.path, rank=0):
        send_evaluation(run)
