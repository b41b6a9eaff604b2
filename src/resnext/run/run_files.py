"""Reads the files of a run directory, and checks that they are regular and have the expected types. Imports no torch.

A damaged file is a UserError of one line: the file, what is wrong with it, and what to do.
"""

import json
import stat
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from resnext.config.schema import Config, parse_config
from resnext.errors import UserError
from resnext.files import atomic_write, check_regular, read_text

Shape = Any  # a type, [shape of every item], or {key: shape}, where `key?` may be missing
RESTORE = "restore it, or start another RUN (run=NAME)"
NAMES = {dict: "a mapping", list: "a list", int: "an integer", int | float: "a number", bool: "true or false"}
FILES = (  # files that a verb may open
    *("config.yaml", "run.json", "summary.json", "metrics.csv", "perf.csv", "log.txt", "lock"),
    *("skipped.txt", "damaged.txt", "jobs.txt", "job.sbatch"),
)
RESOLVED = {"accelerator": str, "precision": str, "compile": bool, "channels_last": bool}
INFO = {
    "wandb_id": str,
    "code": str | None,
    "data": {"fingerprint": str, "classes": [str]},
    "starts": [{"config": str, "code": str | None, "steps?": int}],
    "resolved?": RESOLVED,
    "micro_batch?": {"size": int, "devices": int, "accelerator": str, "seconds": int},
    "teacher?": str,
}
ACCURACIES = {"val/top1": float, "val/top5": float, "val_ema/top1?": float, "val_ema/top5?": float}
NEW_NAMES = {"decayed": "weight_decay_on"}  # renamed keys of recipe.optimizer
SUMMARY = {"status": str, "steps?": int, "images_per_sec?": float, "stopped?": str}
VALIDATED = {**SUMMARY, **ACCURACIES, "best_epoch": int, "epochs": int, "last": ACCURACIES}


def is_run(path: Path) -> bool:
    """Whether `path` has a config.yaml. Raises OSError if the file system fails, which is not the user's mistake."""
    try:
        return stat.S_ISREG((path / "config.yaml").stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        return False


def check_files(folder: Path) -> None:
    """Raises UserError for a known file that is not a regular file, and if config.yaml or checkpoints/ is missing."""
    for name in FILES:
        with suppress(FileNotFoundError):
            check_regular(folder / name)
    if not is_run(folder):
        raise UserError(f"{folder}/config.yaml does not exist: copy {folder}/starts/1.yaml to it")
    if not (folder / "checkpoints").is_dir():
        raise UserError(
            f"{folder}/checkpoints is not a folder: restore it, or make an empty one to train from the start"
        )


def find_checkpoint(folder: Path, name: str) -> Path:
    """The run's file NAME.ckpt. Raises UserError if it does not exist."""
    path = folder / "checkpoints" / f"{name}.ckpt"
    if not path.exists():
        others = sorted(each.name for each in path.parent.glob("*.ckpt"))
        status = read_summary(folder / "summary.json")["status"]
        has = f"{path.parent} has {', '.join(others)}" if others else f"the run is {status} and has not written it"
        raise UserError(f"{path} does not exist: {has}")
    return path


def has_checkpoint(folder: Path) -> bool:
    """Whether the run has a checkpoint to resume from."""
    return (folder / "checkpoints/last.ckpt").exists()


def read_info(path: Path) -> dict[str, Any]:
    return _read_json(path, lambda _: INFO, RESTORE)


def read_summary(path: Path) -> dict[str, Any]:
    remedy = 'write {"status": "interrupted"} into the file, then resume the run: it computes the results again'
    return _read_json(path, lambda content: VALIDATED if "val/top1" in content else SUMMARY, remedy)


def read_config(path: Path) -> Config:
    """Raises UserError also if the schema refuses the content, for example after an edit."""
    content = _with_moved_keys(read_yaml(path))
    try:
        return parse_config(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    text = _read_text(path, RESTORE)
    try:
        return deepcopy(_parse_yaml(text))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes the file atomically: readers see the old content or the new content, even after a kill."""
    atomic_write(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    atomic_write(path, OmegaConf.to_yaml(OmegaConf.create(content)))


def _with_moved_keys(content: dict[str, Any]) -> dict[str, Any]:
    """The content of an older run's file with the keys of the current schema."""
    model, recipe = content.get("model"), content.get("recipe")
    if not isinstance(model, dict) or not isinstance(recipe, dict):
        return content
    model, recipe = dict(model), dict(recipe)
    if "zero_init_last" in model and "init" not in recipe:  # in older runs, false is the network's default
        recipe["init"] = {"zero_init_last": model.pop("zero_init_last") or None}
    optimizer = recipe.get("optimizer")
    if isinstance(optimizer, dict) and "decayed" in optimizer:
        recipe["optimizer"] = {NEW_NAMES.get(key, key): value for key, value in optimizer.items()}
    return {**content, "model": model, "recipe": recipe}


@lru_cache(maxsize=8)  # a start reads its few files several times, and PyYAML takes 50 ms for one
def _parse_yaml(text: str) -> dict[str, Any]:
    try:
        content = OmegaConf.to_container(OmegaConf.load(StringIO(text)))
    except (YAMLError, OmegaConfBaseException, OSError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"this is not YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"the file is empty, or does not map keys to values: {RESTORE}")
    return content  # pyright: ignore[reportReturnType]


def _read_json(path: Path, find_shape: Callable[[dict[str, Any]], Shape], remedy: str) -> dict[str, Any]:
    text = _read_text(path, remedy)
    try:
        content = json.loads(text)
        _check_shape(content, {})
        _check_shape(content, find_shape(content))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error if text.strip() else 'it is empty'}): {remedy}") from error
    return content


def _read_text(path: Path, remedy: str) -> str:
    try:
        return read_text(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: {remedy}") from None


def _check_shape(value: Any, shape: Shape, key: str = "the content") -> None:
    """Raises ValueError with the first key that has another type."""
    expected: Any = type(shape) if isinstance(shape, dict | list) else int | float if shape is float else shape
    if not isinstance(value, expected):
        raise ValueError(f"{key} is not {NAMES.get(expected, 'text')}")
    if isinstance(shape, list):
        for number, item in enumerate(value):
            _check_shape(item, shape[0], f"{key}[{number}]")
    elif isinstance(shape, dict):
        for name, inner in shape.items():
            plain = name.removesuffix("?")
            if plain in value:
                _check_shape(value[plain], inner, plain)
            elif plain == name:
                raise ValueError(f"{name} is missing")


def changed_at(path: Path) -> float:
    """The time of the last change; 0 if it cannot be read."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
