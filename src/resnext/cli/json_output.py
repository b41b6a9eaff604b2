"""JSON on standard output, for programs: one object on one line, and nothing else."""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")


def only_json(wanted: bool) -> AbstractContextManager[Any]:
    """If `wanted`, what is printed in this block goes to stderr: a line of a library would break the JSON."""
    return redirect_stdout(sys.stderr) if wanted else nullcontext()


def print_json(content: Mapping[str, Any]) -> None:
    """JSON has neither NaN nor infinite numbers: they become null. A path becomes a string."""
    print(json.dumps(_plain(content), allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
