"""Makes a run directory: builds it under another name and renames it, so that an incomplete run never exists."""

import time
from pathlib import Path

from resnext.config.schema import Config, to_dict
from resnext.files import atomic_folder
from resnext.run.identity import DataIdentity
from resnext.run.provenance import describe_code, new_wandb_id, write_diff
from resnext.run.run_files import write_json, write_yaml


def make_run(path: Path, config: Config, data: DataIdentity, command: list[str]) -> bool:
    """Makes the run. Returns False if another process has made it first."""
    try:
        with atomic_folder(path) as folder:
            _write_files(folder, config, data, command)
    except OSError:
        if not path.is_dir():
            raise
        return False
    return True


def free_name(folder: Path, experiment: str) -> str:
    """EXPERIMENT-YYYYMMDD-HHMMSS, with a suffix if this name exists in `folder`."""
    name = f"{experiment}-{time.strftime('%Y%m%d-%H%M%S')}"
    taken = {path.name for path in folder.glob(f"{name}*")}
    return next(each for each in (name, *(f"{name}-{count}" for count in range(2, 10_000))) if each not in taken)


def _write_files(folder: Path, config: Config, data: DataIdentity, command: list[str]) -> None:
    write_yaml(folder / "config.yaml", to_dict(config))
    (folder / "starts").mkdir()
    write_yaml(folder / "starts" / "1.yaml", to_dict(config))
    (folder / "checkpoints").mkdir()
    info = {
        "name": config.run,
        "wandb_id": new_wandb_id(),
        "command": command,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "code": describe_code(),
        "data": {"fingerprint": data.fingerprint, "classes": data.classes},
        "starts": [],
    }
    write_diff(folder / "code.diff")
    write_json(folder / "run.json", info)
    write_json(folder / "summary.json", {"status": "new"})
