"""Where a run comes from: code, versions and machine, for run.json."""

import os
import platform
import secrets
import socket
import string
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "lightning", "timm", "torchmetrics", "wandb", "hydra-core", "numpy", "pillow")
MAX_DIFF_CHARACTERS = 200_000


def describe_code(diff_file: Path) -> dict[str, Any]:
    """The git commit of this package; what is not committed goes to `diff_file`. Nulls where there is no git."""
    commit = find_commit()
    diff = _git("diff", "HEAD") if commit else None
    if diff:
        diff_file.write_text(diff[:MAX_DIFF_CHARACTERS] + "\n", errors="surrogateescape")
    return {"commit": commit, "diff": diff_file.name if diff else None}


def find_commit() -> str | None:
    return _git("rev-parse", "HEAD")


def describe_machine() -> dict[str, Any]:
    """Host, cores, SLURM job and package versions; the device is added by who trains."""
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def new_wandb_id() -> str:
    """Eight characters, as W&B makes them itself."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, errors="surrogateescape", check=True, timeout=20
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
