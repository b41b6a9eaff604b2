"""Parts by name: networks, losses, callbacks, loggers and data sets; ours and a user's register by the same call.

    @register_network("my_net", options=MyOptions)
    def build(options: MyOptions, num_classes: int) -> nn.Module: ...

`options` is a frozen pydantic dataclass; what it declares becomes `model.options.*` (or recipe.loss.options.* …). Parts
of a user are in src/resnext/extensions/, and in modules that installed packages name as entry points of the group
`resnext.extensions`. Imports no torch; an extension may.
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

FOLDER = GROUP = "resnext.extensions"  # a package, and a group of entry points
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")  # it is part of Hydra's dotted keys

Build = TypeVar("Build", bound=Callable[..., Any])


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class NoOptions:
    """Of a part that takes none."""


@dataclass
class Part:
    """A registered name. `build` is None until the module with its function is imported, which is so for ours only."""

    options: type
    module: str
    describe: Callable[[Any], str] | None = None
    build: Callable[..., Any] | None = None


_parts: dict[tuple[str, str], Part] = {}  # by kind and name


def register_network(name: str, *, options: type = NoOptions) -> Callable[[Build], Build]:
    """`build(options, num_classes) -> nn.Module`, from images [N, 3, H, W] to logits [N, num_classes].

    A function that also has a parameter `drop_path_rate` takes recipe.drop_path_rate.
    """
    return _register("network", name, options)


def register_loss(
    name: str, *, options: type = NoOptions, describe: Callable[[Any], str] | None = None
) -> Callable[[Build], Build]:
    """`build(options) -> loss`, where loss(logits, targets) is a scalar, the mean over images.

    `logits` are float32 [N, classes]; `targets` are int64 [N], or float32 [N, classes] for mixed images.
    `describe(options)` is the loss in a few words, for the first lines of a run.
    """
    return _register("loss", name, options, describe)


def register_callback(name: str, *, options: type = NoOptions) -> Callable[[Build], Build]:
    """`build(options) -> lightning.pytorch.Callback`."""
    return _register("callback", name, options)


def register_logger(name: str, *, options: type = NoOptions) -> Callable[[Build], Build]:
    """`build(options, run) -> lightning.pytorch.loggers.Logger`, of a resnext.run.directory.Run."""
    return _register("logger", name, options)


def register_dataset(name: str, *, options: type = NoOptions) -> Callable[[Build], Build]:
    """`load(options, root) -> (train, val)`, two ImageIndex, of the folder data.root."""
    return _register("dataset", name, options)


def find_part(kind: str, name: str) -> Part | None:
    """Raises UserError if an extension cannot be imported."""
    load_extensions()
    return _parts.get((kind, name))


def part_names(kind: str) -> list[str]:
    load_extensions()
    return [name for each, name in _parts if each == kind]


def build_part(kind: str, name: str, options: Any, *arguments: Any, **keywords: Any) -> Any:
    """What the function of a registered name makes of its options. A mistake inside it keeps its traceback."""
    part = find_part(kind, name)
    assert part is not None, "checked when the configuration is read"
    assert part.build is not None, "the module that builds it is imported"
    built = part.build(options, *arguments, **keywords)
    if built is None:
        raise UserError(f"the {kind} {name} of {part.module} is None: its function must return what it builds")
    return built


def build_named(kind: str, options: Mapping[str, Any], *arguments: Any) -> list[Any]:
    """One part for each name."""
    return [build_part(kind, name, each, *arguments) for name, each in options.items()]


@functools.cache
def load_extensions() -> tuple[str, ...]:
    """Imports the extensions once, and returns the names of their modules.

    Raises:
        UserError: the first that cannot be imported, or registers a name that is taken.
    """
    modules = tuple(dict.fromkeys([*_modules_in_folder(), *_modules_of_packages()]))
    for module in modules:
        _import(module)
    return modules


def _register(
    kind: str, name: str, options: type, describe: Callable[[Any], str] | None = None
) -> Callable[[Build], Build]:
    module = sys._getframe(2).f_globals["__name__"]  # of who calls register_KIND
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
    """Those that begin with _ are left to be imported by the others."""
    found = pkgutil.iter_modules(importlib.import_module(FOLDER).__path__)
    return sorted(f"{FOLDER}.{each.name}" for each in found if not each.name.startswith("_"))


def _modules_of_packages() -> list[str]:
    return sorted(each.module for each in entry_points(group=GROUP))


def _import(module: str) -> None:
    before = dict(_parts)
    try:
        importlib.import_module(module)
    except BaseException as error:
        _parts.clear()
        _parts.update(before)  # it is imported again, whole, if this process goes on
        if isinstance(error, UserError) or not isinstance(error, Exception):
            raise
        reason = describe_error(error) + _describe_place(error)
        raise UserError(f"the extension {module} cannot be imported: {reason}; correct it, or move it away") from error


def _describe_place(error: BaseException) -> str:
    """` (FILE:LINE)` of the extension; nothing for a SyntaxError, which says it itself."""
    frames = [each for each in traceback.extract_tb(error.__traceback__)[1:] if "importlib" not in each.filename]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
