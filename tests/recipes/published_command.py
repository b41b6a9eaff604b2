"""Parses a published command with the defaults of its script."""

import argparse
import shlex
from typing import Any

WITHOUT_EFFECT = ("--model", "-j", "--amp", "--dist-bn")  # on a recipe


def parse(command: str, defaults: dict[str, Any]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name, value in defaults.items():
        if value is False:
            parser.add_argument(f"--{name}", action="store_true")
        else:
            known = {"norm-weight-decay": float, "clip-grad-norm": float, "clip-grad": float, "drop-path": float}
            kind = known.get(name, float if name == "bce-target-thresh" else str if value is None else type(value))
            parser.add_argument(f"--{name}", type=kind, default=value)
    for flag in WITHOUT_EFFECT:
        parser.add_argument(*flag.split("|"), nargs="?")
    return parser.parse_args(shlex.split(command))
