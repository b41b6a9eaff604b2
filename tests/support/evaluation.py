"""Evaluates a run by the command, and reads what it wrote."""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnext.run.directory import Run


def evaluated(run: "Run", checkpoint: str = "best") -> dict[str, Any]:
    """The content of the JSON file. Raises the errors of the command."""
    from resnext.cli.evaluate import main

    assert main([str(run.path), "--checkpoint", checkpoint]) == 0
    return json.loads((run.path / f"evaluations/{checkpoint}-val.json").read_text())
