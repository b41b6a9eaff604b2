"""The registered networks, losses, callbacks, loggers and datasets. Our parts and yours use the same functions.

    @register_network("my_net", options=MyOptions)
    def build(options: MyOptions, num_classes: int) -> nn.Module: ...

`options` is a frozen pydantic dataclass. Its fields are the keys `model.options.*` (or recipe.loss.options.* …). A
user's parts are in src/resnext/extensions/, or in installed packages with an entry point in the group
`resnext.extensions`. This file imports no torch; an extension may import it.
"""

import functools
import importlib
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, TypeVar

import pydantic
from pydantic import ConfigDict
from pydantic.dataclasses import is_pydantic_dataclass

from resnext.errors import UserError, describe_error

FOLDER = GROUP = "resnext.extensions"  # the name of a package, and of a group of entry points
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")  # a name is part of Hydra's dotted keys

Build = TypeVar("Build", bound=Callable[..., Any])


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class NoOptions:
    """The options of a part that has none."""


@dataclass
class Part:
    """A registered part. Our own parts have no `build` until the module with the function is imported."""

    options: type
    module: str
    describe: Callable[[Any], str] | None = None
    build: Callable[..., Any] | None = None


_parts: dict[tuple[str, str], Part] = {}  # by kind and name


def register_network(name: str, *, options: type = NoOptions) -> Callable[[Build], Build]:
    """Registers `build(options, num_classes) -> nn.Module`: images [N, 3, H, W] to logits [N, num_classes].

    If the function has a parameter `drop_path_rate`, it receives recipe.drop_path_rate.
    """
    return _register("network", name, options)


def register_loss(
    name: str, *, options: type = NoOptions, describe: Callable[[Any], str] | None = None
) -> Callable[[Build], Build]:
    """Registers `build(options) -> loss`; loss(logits, targets) returns a scalar, the mean over the images.

    `logits` are float32 [N, classes]; `targets` are int64 [N], or float32 [N, classes] for mixed images.
    `describe(options)` returns a few words for the first lines of a run.
    """
    return _register("loss", name, options, describe)


def register_callback(name: str, *, options: type = NoOptions) -> Callable[[Build], Build]:
    """Registers `build(options) -> lightning.pytorch.Callback`."""
    return _register("callback", name, options)


def register_logger(name: str, *, options: type = NoOptions) -> Callable[[Build], Build]:
    """Registers `build(options, run) -> lightning.pytorch.loggers.Logger`; `run` is a resnext.run.directory.Run."""
    return _register("logger", name, options)


def register_dataset(name: str, *, options: type = NoOptions) -> Callable[[Build], Build]:
    """Registers `load(options, root) -> (train, val)`: two ImageIndex from `root`, the folder data.root."""
    return _register("dataset", name, options)


def find_part(kind: str, name: str) -> Part | None:
    """The registered part, or None. Raises UserError if an extension cannot be imported."""
    load_extensions()
    return _parts.get((kind, name))


def part_names(kind: str) -> list[str]:
    load_extensions()
    return [name for each, name in _parts if each == kind]


def build_part(kind: str, name: str, options: Any, *arguments: Any, **keywords: Any) -> Any:
    """Calls the function of a registered part with `options`. An error inside the function keeps its traceback."""
    part = find_part(kind, name)
    assert part is not None, "checked when the configuration is read"
    assert part.build is not None, "the module that builds it is imported"
    built = part.build(options, *arguments, **keywords)
    if built is None:
        raise UserError(f"the {kind} {name} of {part.module} is None: its function must return what it builds")
    return built


def build_named(kind: str, options: Mapping[str, Any], *arguments: Any) -> list[Any]:
    """Builds one part for each name in `options`."""
    return [build_part(kind, name, each, *arguments) for name, each in options.items()]


@functools.cache
def load_extensions() -> tuple[str, ...]:
    """Imports the extensions once, and returns the names of their modules.

    Raises:
        UserError: for the first extension that cannot be imported, or that registers a name a second time.
    """
    modules = tuple(dict.fromkeys([*_modules_in_folder(), *_modules_of_packages()]))
    for module in modules:
        _import(module)
    return modules


def _register(
    kind: str, name: str, options: type, describe: Callable[[Any], str] | None = None
) -> Callable[[Build], Build]:
    module = sys._getframe(2).f_globals["__name__"]  # the module that calls register_KIND
    if not NAME.fullmatch(name):
        raise UserError(f"{module} registers the {kind} {name!r}: a name has only letters, digits, _ and -")
    if (former := _parts.get((kind, name))) is not None:
        raise UserError(f"the {kind} {name} is registered twice, by {former.module} and by {module}: rename one")
    if not is_pydantic_dataclass(options) or not _is_strict(options):
        raise UserError(
            f"the options of the {kind} {name} of {module} must be a frozen pydantic dataclass that forbids other "
            "keys: @pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=resnext.config.types.STRICT)"
        )
    part = _parts[kind, name] = Part(options, module, describe)

    def keep(build: Build) -> Build:
        part.build = build
        return build

    return keep


def _is_strict(options: Any) -> bool:
    return options.__dataclass_params__.frozen and options.__pydantic_config__.get("extra") == "forbid"


def _modules_in_folder() -> list[str]:
    """The modules of the folder, except those that begin with _: other modules may import these."""
    found = pkgutil.iter_modules(importlib.import_module(FOLDER).__path__)
    return sorted(f"{FOLDER}.{each.name}" for each in found if not each.name.startswith("_"))


def _modules_of_packages() -> list[str]:
    return sorted(each.module for each in entry_points(group=GROUP))


def _import(module: str) -> None:
    before = dict(_parts)
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:
        _parts.clear()
        _parts.update(before)  # so that a second import of the module can register the same names
        if isinstance(error, UserError):
            raise
        reason = describe_error(error) + _describe_place(error)
        raise UserError(
            f"the extension {module} cannot be imported: {reason}; correct the extension, or move its file away"
        ) from error


def _describe_place(error: BaseException) -> str:
    """` (FILE:LINE)` in the extension; empty for a SyntaxError, whose message already has them."""
    frames = [each for each in traceback.extract_tb(error.__traceback__)[1:] if "importlib" not in each.filename]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
