"""resnext recipes: list all recipes, show the training plan of one, or compare two."""

import argparse
import itertools
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resnext.cli.arguments import ArgumentParser
from resnext.config.batch import describe_split, describe_steps
from resnext.config.compose import Composer, composer
from resnext.config.config_file import FileMistake
from resnext.config.describe import (
    describe_augmentation,
    describe_image_sizes,
    describe_mixing,
    describe_recipe,
    describe_schedule,
    lr_warning,
    optimizer_name,
)
from resnext.config.errors import as_typed, nearest
from resnext.config.folders import config_file, config_names
from resnext.config.recipe import RecipeConfig
from resnext.config.schema import TEXTS, Config, find_differences, to_dict
from resnext.errors import UserError
from resnext.terminal import COLUMNS, pluralize

EXPERIMENT = "resnext50_imagenet"  # each recipe is composed with this experiment
IMAGENET = 1_281_167  # training images of ImageNet-1k
USAGE = """resnext recipes [--config-dir FOLDER]
       resnext recipes NAME [OPTIONS] [KEY=VALUE ...]
       resnext recipes --diff A B"""
DESCRIPTION = "List all recipes, show the training plan of one (NAME), or compare two (--diff)."


def main(arguments: list[str]) -> int:
    options = _parse(arguments)
    with composer(options.config_dir) as compose:
        if options.diff:
            _print_diff(options.diff, compose)
        elif options.recipe is None:
            return _print_table(compose)
        else:
            given = {"model.name": options.network, "trainer.devices": options.devices, "trainer.nodes": options.nodes}
            overrides = [f"{key}={value}" for key, value in given.items() if value is not None]
            config = _compose(options.recipe, [*overrides, *options.overrides], compose)
            _print_plan(options.recipe, config, options.images or IMAGENET, options.picture)
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = ArgumentParser("resnext recipes", usage=USAGE, description=DESCRIPTION)
    parser.add_argument(
        "recipe",
        nargs="?",
        metavar="NAME",
        help="a recipe: a file name in configs/recipe/, or recipe/ of --config-dir, without .yaml",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="config override, as for resnext train; takes precedence over the options",
    )
    parser.add_argument("--diff", nargs=2, metavar=("A", "B"), help="show the fields in which recipes A and B differ")
    parser.add_argument("--config-dir", metavar="FOLDER", help="a folder whose recipe/ has more recipes")
    plan = parser.add_argument_group("options for NAME")
    plan.add_argument("--network", help="same as model.name=NETWORK (default: resnext50_32x4d)")
    plan.add_argument(
        "--devices", metavar="N", type=_count, help="same as trainer.devices=N: devices per node (default: 1)"
    )
    plan.add_argument("--nodes", metavar="N", type=_count, help="same as trainer.nodes=N (default: 1)")
    plan.add_argument(
        "--images", metavar="N", type=_count, help=f"number of training images (default: ImageNet's {IMAGENET:,})"
    )
    plan.add_argument("--picture", metavar="FILE.svg", type=_svg, help="plot the learning rate to this SVG file")
    options = parser.parse_intermixed_args(arguments)
    _check(options)
    return options


def _check(options: argparse.Namespace) -> None:
    """Raises UserError for arguments that would be ignored or misread."""
    of_plan = [f"--{name}" for name in ("network", "devices", "nodes", "images", "picture") if vars(options)[name]]
    if options.diff and (others := [*of_plan, *filter(None, [options.recipe, *options.overrides])]):
        raise UserError(f"--diff takes two recipe names and no other arguments: remove {others[0]}")
    if options.recipe is None and not options.diff and of_plan:
        raise UserError(f"{of_plan[0]} needs a recipe: resnext recipes NAME {of_plan[0]} …")
    if options.recipe is not None and "=" in options.recipe:
        raise UserError(f"{options.recipe} needs a recipe name first: resnext recipes NAME {options.recipe}")
    for override in options.overrides:
        if override.startswith("recipe="):
            raise UserError(f"{override} conflicts with the recipe name {options.recipe}: remove {override}")


def _compose(name: str, overrides: list[str], compose: Composer) -> Config:
    """The recipe `name` as `train` composes it.

    Raises:
        UserError: for an unknown name, a mistake in the recipe's file (the message names it), or a wrong override.
    """
    known = config_names(compose.folders, "recipe")
    if others := [each for each in overrides if each in known]:
        raise UserError(f"give one recipe; to compare two: resnext recipes --diff {name} {others[0]}")
    if name not in known:
        raise UserError(f"{name} is not a recipe; the recipes are {', '.join(known)}{nearest(name, known)}")
    try:
        return compose([f"experiment={EXPERIMENT}", f"recipe={name}", *overrides])
    except UserError as error:
        if overrides:
            _compose(name, [], compose)  # raises for a mistake in the file; else the mistake is in the overrides
            raise
        if isinstance(error, FileMistake):
            raise
        raise UserError(f"{_file_name(name, compose.folders)}: {error}") from error


def _file_name(name: str, folders: list[Path]) -> str:
    """`configs/recipe/NAME.yaml`, or the whole path in the folder of --config-dir."""
    path = config_file(folders, f"recipe/{name}")
    return str(path.relative_to(folders[0].parent) if path.is_relative_to(folders[0]) else path)


def _print_table(compose: Composer) -> int:
    """Prints at least four lines per recipe, then the errors in recipe files. Returns 2 if there are errors, else 0."""
    mistakes: list[UserError] = []
    names = config_names(compose.folders, "recipe")
    width = max(map(len, names), default=0) + 1
    print(f"{'recipe':{width}}{'optimizer':14}{'lr at batch':15}epochs")
    for name in names:
        try:
            _print_row(f"{name:{width}}", _compose(name, [], compose).recipe)
        except UserError as error:
            mistakes.append(error)
    sys.stdout.flush()
    for mistake in mistakes:
        print(f"resnext recipes: {mistake}", file=sys.stderr)
    return 2 if mistakes else 0


def _print_row(name: str, recipe: RecipeConfig) -> None:
    lr = f"{recipe.optimizer.lr:g} at {recipe.batch_size}"
    print(f"{name}{optimizer_name(recipe.optimizer):14}{lr:15}{recipe.epochs}")
    _print_wrapped(f"  {describe_schedule(recipe)}", indent=4)
    pixels = f"{describe_image_sizes(recipe)} px"
    augmentation = [pixels, *describe_augmentation(recipe.augmentation), *describe_mixing(recipe.mixing)]
    _print_wrapped(f"  {', '.join(augmentation)}", indent=4)
    if recipe.published:
        _print_wrapped(f"  published: {recipe.published}", indent=4)


def _print_wrapped(line: str, indent: int) -> None:
    """Wraps at 80 columns with a hanging indent; keeps a number and its unit on one line."""
    joined = re.sub(r"(?<=\d) (?=%|px|epoch)", "\N{NO-BREAK SPACE}", line)
    filled = textwrap.fill(joined, COLUMNS, subsequent_indent=" " * indent, break_on_hyphens=False)
    print(filled.replace("\N{NO-BREAK SPACE}", " "))


def _print_plan(name: str, config: Config, images: int, picture: Path | None) -> None:
    from resnext.data.sampler import steps_per_epoch
    from resnext.models.factory import check_model_name
    from resnext.report.plots import check_available, draw_lr_file
    from resnext.task.lr_curve import sample_lr
    from resnext.task.optimization import total_steps

    check_model_name(config.model.name)
    trainer, recipe = config.trainer, config.recipe
    world_size = (1 if trainer.devices == "auto" else trainer.devices) * trainer.nodes
    per_epoch = steps_per_epoch(images, recipe.batch_size)
    total = total_steps(recipe, per_epoch)
    rates = sample_lr(recipe, per_epoch)
    first, last, highest = rates[0], rates[total - 1], max(rates, key=rates.__getitem__)
    warmup = min(round(recipe.schedule.warmup_epochs * per_epoch), total)
    peak = f"{rates[highest]:.6g} at step {highest:,} (highest), " if 0 < highest < total - 1 else ""
    described = describe_recipe(recipe)
    lines = {
        "recipe": name,
        "source": recipe.source,
        "published": recipe.published,
        "network": config.model.name,
        "images": f"{images:,} of {describe_image_sizes(recipe)} pixels, evaluated at {recipe.eval_image_size}",
        "batch": describe_split(config.split_batch(world_size), world_size, auto=trainer.micro_batch_size == "auto"),
        "steps": describe_steps(total, recipe.epochs, per_epoch),
        "warm-up": pluralize(warmup, "step") if warmup else None,
        "rate": f"{first:.6g} first, {peak}{last:.3g} last",
        "optimizer": described.pop("recipe"),
        **described,
        "warning": lr_warning(recipe),
        "picture": str(picture) if picture else None,
    }
    if picture:
        check_available("--picture")
        epochs = [step / per_epoch for step in rates]
        title = f"learning rate: {name}, {config.model.name}, batch {recipe.batch_size}"
        axis = f"epoch, of {pluralize(per_epoch, 'step')}"
        picture.write_text(draw_lr_file(epochs, list(rates.values()), title, axis))
    for label, line in lines.items():
        if line is not None:
            _print_wrapped(f"{label:9} {line}", indent=10)


def _print_diff(names: list[str], compose: Composer) -> None:
    """A row for each field that differs: its key, and the two values."""
    one, other = (_fields(_compose(name, [], compose).recipe) for name in names)
    differences = [(key, as_typed(value), as_typed(their)) for key, value, their in find_differences(one, other)]
    if not differences:
        print(f"{names[0]} and {names[1]} do not differ")
        return
    for row in [("recipe.", names[0], names[1]), *differences]:
        print("\n".join(_columns(row, width=max(len(key) for key, *_ in differences))))


def _fields(recipe: RecipeConfig) -> dict[str, Any]:
    """The recipe's fields without source and published, which differ between any two recipes."""
    return {key: value for key, value in to_dict(recipe).items() if key not in TEXTS}


def _columns(row: tuple[str, str, str], width: int) -> Iterator[str]:
    """The lines of a row: a key of at most `width` characters; two values share the rest of the width, and wrap."""
    half = (COLUMNS - width) // 2 - 2
    cells = [textwrap.wrap(value, half, break_on_hyphens=False) for value in row[1:]]
    for key, one, other in itertools.zip_longest([row[0]], *cells, fillvalue=""):
        yield f"{key:{width}}  {one:{half}}  {other}".rstrip()


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def _svg(text: str) -> Path:
    if not text.endswith(".svg"):
        raise argparse.ArgumentTypeError(f"{text!r} must end with .svg, such as lr.svg")
    return Path(text)
