"""The project's folder, and absolute paths in a configuration: a rank or a later start may run in another folder."""

import os
from dataclasses import replace
from pathlib import Path

from resnext.config.schema import Config

PROJECT = Path(__file__).parents[3]


def with_absolute_paths(config: Config) -> Config:
    """The same configuration, with its paths made absolute from the current folder."""
    teacher = config.recipe.teacher
    return replace(
        config,
        data=replace(config.data, root=_absolute_path(config.data.root)),
        model=replace(config.model, weights=_absolute_weights(config.model.weights)),
        recipe=replace(config.recipe, teacher=replace(teacher, weights=_absolute_weights(teacher.weights))),
    )


def _absolute_weights(weights: str | None) -> str | None:
    """The absolute path of a file; any other name of weights is unchanged."""
    return _absolute_path(weights) if weights is not None and Path(weights).expanduser().exists() else weights


def _absolute_path(path: str) -> str:
    return os.path.abspath(Path(path).expanduser())  # noqa: PTH100 - also drops `..`, and keeps links as they are
