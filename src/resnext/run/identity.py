"""The identity of a run: how two configurations differ, and which run a checkpoint belongs to."""

import hashlib
import json
import logging
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from resnext.config.data import OF_THE_MACHINE
from resnext.config.schema import TEXTS, Config, find_differences
from resnext.errors import UserError

ANOTHER_NAME = "choose another name (run=NAME)"
SHOWN = 5  # differences of two configurations in one line

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataIdentity:
    """Which data a run belongs to: its classes, and a fingerprint of all its image paths and labels."""

    classes: tuple[str, ...]
    fingerprint: str


class RunMark(NamedTuple):
    """Names the run in every checkpoint: its id, and a digest of everything that must not change between two starts."""

    id: str
    identity: str


def identity_digest(config: dict[str, Any], data: dict[str, Any]) -> str:
    """A digest of the data and of the text of config.yaml, because the current schema may have new keys."""
    own = {name: config.get(name) for name in ("seed", "model")}
    own["recipe"] = {name: value for name, value in (config.get("recipe") or {}).items() if name not in TEXTS}
    own["data"] = {name: value for name, value in config["data"].items() if name not in OF_THE_MACHINE}
    if (config.get("callbacks") or {}).get("names"):  # the digest of older runs has no callbacks
        own["callbacks"] = config["callbacks"]
    return hashlib.sha256(json.dumps([own, data], sort_keys=True).encode()).hexdigest()[:32]


def check_mark(path: Path, checkpoint: dict[str, Any], mark: RunMark, *, required: bool = True) -> None:
    """Raises UserError if `checkpoint`, read from `path`, does not belong to the run with `mark`.

    A checkpoint of an earlier version has no mark. If the mark is not `required`, this only logs a warning.
    """
    found = checkpoint.get("run")
    remedy = f"restore this run's own file, or move this one away (model.weights={path} uses its weights)"
    if not isinstance(found, dict):
        unmarked = f"{path} does not say which run wrote it (checkpoints of earlier versions do not)"
        if required or found is not None:
            raise UserError(f"{unmarked}: {remedy}")
        log.warning("%s; it is assumed to belong to this run", unmarked)
        return
    if found.get("id") != mark.id:
        raise UserError(f"{path} belongs to another run ({found.get('id')}; this is {mark.id}): {remedy}")
    if found.get("identity") != mark.identity:
        raise UserError(
            f"{path} belongs to this run, but config.yaml, run.json or the data changed after it was written: "
            f"restore them, or start another run (run=NAME; model.weights={path} uses the weights)"
        )


def describe_differences(made: Config, asked: Config) -> str:
    """The keys of the identity that differ between `made` and `asked`, with both values; empty if none differs."""
    differences = list(find_differences(made.identity(), asked.identity()))
    shown = [f"{key} was {_compact(was)} and is now {_compact(now)}" for key, was, now in differences[:SHOWN]]
    more = len(differences) - len(shown)
    return ", ".join(shown) + (f" (and {more} more)" if more else "")


def describe_conflict(path: Path, made: Config, asked: Config) -> str:
    """One line for a configuration `asked` that is not the configuration `made` of the run at `path`."""
    was, now = made.recipe.epochs, asked.recipe.epochs
    if now != was and not describe_differences(made, with_epochs(asked, was)):
        return f"{describe_epochs(path, was, now)}, or {ANOTHER_NAME}"
    return f"{path} is another run: {describe_differences(made, asked)}; give the values it has, or {ANOTHER_NAME}"


def describe_epochs(path: Path, was: int, now: int) -> str:
    """One line for a run with other epochs than `now`, and how to continue it."""
    raises = f"`resnext resume {shlex.quote(str(path))} recipe.epochs={now}` raises them"
    remedy = raises if now > was else f"they can only be raised: give {was} or more"
    return f"{path} has recipe.epochs={was}, and {now} was given; {remedy}"


def describe_experiments(path: Path, made: str, asked: str) -> str:
    """One line for a run that another experiment made."""
    resume = f"`make resume RUN={shlex.quote(path.name)}` resumes it"
    return f"{path} is a run of experiment={made}, not of {asked}: {resume}, or {ANOTHER_NAME}"


def _compact(value: Any) -> str:
    return re.sub(r"\s+", "", json.dumps(value))


def with_epochs(config: Config, epochs: int) -> Config:
    return replace(config, recipe=replace(config.recipe, epochs=epochs))
