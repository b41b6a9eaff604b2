"""A published command, read with the defaults of the script that it is for."""

import argparse
import shlex
from typing import Any


def parse(command: str, defaults: dict[str, Any]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name, value in defaults.items():
        if value is False:
            parser.add_argument(f"--{name}", action="store_true")
        else:
            known = {"norm-weight-decay": float, "clip-grad-norm": float, "clip-grad": float, "drop-path": float}
            kind = known.get(name, float if name == "bce-target-thresh" else str if value is None else type(value))
            parser.add_argument(f"--{name}", type=kind, default=value)
    arguments, _others = parser.parse_known_args(shlex.split(command))
    return arguments
