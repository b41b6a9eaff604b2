"""What makes two configurations two runs, in words."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from resnext.config import Config


def describe_difference(made: Config, asked: Config) -> str | None:
    """The first key in which `asked` is another run than `made`, with both values; None if it is the same."""
    differences = list(_differences(made.identity(), asked.identity()))
    if not differences:
        return None
    return differences[0] + (f" (and {len(differences) - 1} more)" if len(differences) > 1 else "")


def with_epochs(config: Config, epochs: int) -> Config:
    return replace(config, recipe=replace(config.recipe, epochs=epochs))


def _differences(made: Any, asked: Any, key: str = "") -> Iterator[str]:
    if isinstance(made, dict) and isinstance(asked, dict):
        for name in made | asked:
            yield from _differences(made.get(name), asked.get(name), f"{key}.{name}" if key else name)
    elif made != asked:
        shown = [re.sub(r"\s+", "", json.dumps(value)) for value in (made, asked)]
        yield f"{key} was {shown[0]} and is now {shown[1]}"
