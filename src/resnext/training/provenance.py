"""Where a run comes from: code, versions and machine, for run.json."""

import hashlib
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
PACKAGE = Path(__file__).parents[1]


def describe_code() -> str | None:
    """The git commit of this package, and a digest of what is not committed; None where there is no git."""
    commit, diff = _git("rev-parse", "HEAD"), _git("diff", "HEAD", "--", str(PACKAGE))
    changes = f"+{hashlib.sha256(diff.encode(errors='surrogateescape')).hexdigest()[:8]}" if diff else ""
    return f"{commit}{changes}" if commit else None


def write_diff(path: Path) -> None:
    """What is not committed, where there is anything."""
    if diff := _git("diff", "HEAD"):
        path.write_text(diff[:MAX_DIFF_CHARACTERS] + "\n", errors="surrogateescape")


def describe_machine() -> dict[str, Any]:
    """Host, cores, SLURM job and package versions."""
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
        command = ["git", "-C", str(PACKAGE), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, errors="surrogateescape", check=True, timeout=20
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
