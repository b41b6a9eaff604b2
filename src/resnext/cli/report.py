"""resnext report RUN …: write one HTML page about a run, or about several runs beside each other."""

from pathlib import Path

from resnext.cli.arguments import ArgumentParser
from resnext.errors import UserError
from resnext.terminal import describe_bytes


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
    options = parser.parse_args(arguments)
    if len(options.runs) > 1 and options.output is None:
        raise UserError(f"{len(options.runs)} runs on one page: say where to write it, --output FILE.html")

    from resnext.run.directory import Run

    runs = [Run.find(path) for path in options.runs]

    from resnext.report.report_file import PAGE, write_report

    path = options.output or runs[0].path / PAGE
    page = write_report(runs, path)
    print(f"report    {path}, {describe_bytes(path.stat().st_size)}")
    for reason in dict.fromkeys(page.left_out.values()):
        titles = [title for title, each in page.left_out.items() if each == reason]
        print(f"left out  {', '.join(titles)}: {reason}")
    return 0
