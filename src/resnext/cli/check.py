"""resnext check: what can be known about a training before it starts. Makes no run.

Takes the arguments of `resnext train`, and its own flags.
"""

import argparse
import textwrap

from resnext.check.finding import Finding, Report
from resnext.cli.arguments import ArgumentParser
from resnext.cli.json_output import add_json, only_json, print_json
from resnext.config.compose import run_with_hydra
from resnext.config.schema import Config
from resnext.errors import UserError
from resnext.terminal import COLUMNS, pluralize

VERDICTS = {
    "ok": "the training can start",
    "warn": "the training can start; read the warnings first",
    "fail": "the training would fail or not learn",
}


def main(arguments: list[str]) -> int:
    """Returns 1 if the training would fail, or would not learn."""
    options, rest = split_flags(arguments)
    report = Report(_say_nothing if options.json else _print)
    try:
        with only_json(options.json):
            run_with_hydra("check", rest, lambda config: _check(config, options, report))
    except UserError as error:
        report.add(Finding.of_error("configuration", error))
    if not report.findings:  # --help, --cfg job …
        return 0
    if options.json:
        print_json(report.to_plain())
    else:
        counts = [
            pluralize(count, noun)
            for level, noun in (("fail", "failure"), ("warn", "warning"))
            if (count := sum(each.level == level for each in report.findings))
        ]
        print(f"{'verdict':14} {VERDICTS[report.verdict]}" + (f" ({', '.join(counts)})" if counts else ""))
    return 1 if report.verdict == "fail" else 0


def split_flags(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The flags of this verb, and the arguments of `resnext train`. Raises UserError."""
    parser = ArgumentParser("resnext check", add_help=False, allow_abbrev=False)  # Hydra has the page for --help
    add_json(parser)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--price-per-hour", type=_price, metavar="PRICE")
    options, rest = parser.parse_known_args(arguments)
    if {"-m", "--multirun"}.intersection(rest):
        raise UserError("this command checks one training: leave out -m, and give one value for each key")
    return options, rest


def _price(text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = -1.0
    if not 0 <= price < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not a price: give a number")
    return price


def _check(config: Config, options: argparse.Namespace, report: Report) -> None:
    from resnext.check.check import check  # imports torch

    check(config, report, full=options.full, price_per_hour=options.price_per_hour)


def _say_nothing(finding: Finding) -> None:
    """With --json, the report is printed at the end."""


def _print(finding: Finding) -> None:
    lines = textwrap.wrap(str(finding), COLUMNS - 15, break_long_words=False, break_on_hyphens=False)
    print(f"{finding.level:4} {finding.subject:9} {lines[0]}", flush=True)
    for line in lines[1:]:
        print(f"{'':15}{line}", flush=True)
