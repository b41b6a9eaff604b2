"""The values of a run so far, and its configuration, in the form in which a logger sends them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resnext.config.schema import Config, to_dict
from resnext.run.directory import Run
from resnext.run.metrics import read_rows


def read_logged(folder: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, values) of each row of metrics.csv and perf.csv, by step, with the epoch, as a training logs them.

    These files must hold only rows that this start does not compute again.
    """
    rows = [row for name in ("metrics.csv", "perf.csv") for row in read_rows(folder / name)]
    for row in sorted(rows, key=lambda row: int(row["step"])):
        values = {name: float(value) for name, value in row.items() if value and name not in ("epoch", "step")}
        yield int(row["step"]), {"epoch": int(row["epoch"]), **values}


def shared_config(config: Config) -> dict[str, Any]:
    """The configuration as others may see it: without notify.command, which may hold an address that is a secret."""
    return {name: value for name, value in to_dict(config).items() if name != "notify"}


def flat_config(run: Run) -> dict[str, Any]:
    """Dotted key → value, for a table: the id of the run, and its configuration without `auto` values."""
    info, table = run.info, dict(_leaves(shared_config(run.config)))
    resolved = {f"trainer.{name}": value for name, value in info.get("resolved", {}).items()}
    return {"run_id": info["wandb_id"]} | {
        key: resolved.get(key, value) if value == "auto" else value for key, value in table.items()
    }


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
