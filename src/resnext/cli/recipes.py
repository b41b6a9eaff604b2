"""resnext recipes [NAME]: the published ways to train, and what one of them would run on some machine."""

import argparse
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from resnext.batch import describe_split, describe_steps
from resnext.cli.composition import CONFIGS, apply_overrides
from resnext.config import Config, parse_config
from resnext.config_errors import nearest
from resnext.errors import UserError
from resnext.recipe_text import (
    describe_augmentation,
    describe_image_sizes,
    describe_mixing,
    describe_recipe,
    describe_schedule,
    doubt_lr,
    optimizer_name,
)

IMAGENET = 1_281_167  # training images of ImageNet-1k


@dataclass(frozen=True)
class Recipe:
    """A file of configs/recipe/, with what its first lines say."""

    name: str
    source: str
    published: str
    settings: dict[str, Any]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("resnext recipes", description="The recipes, or what one of them would run.")
    parser.add_argument("recipe", nargs="?", metavar="NAME", help="a recipe; without it, a table of all")
    parser.add_argument("--network", default="resnext50_32x4d", help="as model.name (resnext50_32x4d)")
    parser.add_argument("--devices", type=_count, default=1, help="of each node (1)")
    parser.add_argument("--nodes", type=_count, default=1, help="(1)")
    parser.add_argument("--images", type=_count, default=IMAGENET, help="in the training split (ImageNet's 1,281,167)")
    parser.add_argument("--picture", type=_svg, metavar="FILE.svg", help="of the learning rate (lr-NAME.svg)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="such as trainer.micro_batch_size=128")
    options = parser.parse_intermixed_args(arguments)
    if options.recipe is None:
        _print_table(_load(path) for path in sorted((CONFIGS / "recipe").glob("*.yaml")))
    else:
        recipe = _find(options.recipe)
        config = _configure(recipe, network=options.network, devices=options.devices, nodes=options.nodes)
        picture = options.picture or Path(f"lr-{recipe.name}.svg")
        _print_plan(recipe, apply_overrides(config, options.overrides), options.images, picture)
    return 0


def _find(name: str) -> Recipe:
    path = CONFIGS / f"recipe/{name}.yaml"
    if not path.is_file():
        known = sorted(each.stem for each in path.parent.glob("*.yaml"))
        raise UserError(f"{name} is not a recipe; there are {', '.join(known)}{nearest(name, known)}")
    return _load(path)


def _load(path: Path) -> Recipe:
    comments = [line.removeprefix("# ") for line in path.read_text().splitlines() if line.startswith("# ")]
    said = {key: text for key, _, text in (line.partition(": ") for line in comments)}
    settings: Any = OmegaConf.to_container(OmegaConf.load(path))
    return Recipe(path.stem, said["Source"], said["Published"], settings)


def _configure(recipe: Recipe, *, network: str, devices: int = 1, nodes: int = 1) -> Config:
    return parse_config(
        {
            "experiment": recipe.name,
            "model": {"name": network},
            "data": {"name": "imagenet", "root": "imagenet"},
            "recipe": recipe.settings,
            "trainer": {"devices": devices, "nodes": nodes},
        }
    )


def _print_table(recipes: Iterable[Recipe]) -> None:
    """Three lines or more for each: numbers, augmentation, what was published."""
    print(f"{'recipe':13}{'optimizer':14}{'lr at batch':15}{'epochs':8}schedule, in epochs")
    for recipe in recipes:
        config = _configure(recipe, network="resnext50_32x4d").recipe
        lr = f"{config.optimizer.lr:g} at {config.batch_size}"
        schedule = describe_schedule(config)
        numbers = f"{recipe.name:13}{optimizer_name(config.optimizer):14}{lr:15}{config.epochs:<8}{schedule}"
        augmentation = ", ".join([*describe_augmentation(config.augmentation), *describe_mixing(config.mixing)])
        for line in (numbers, *(" " * 13 + text for text in (augmentation, recipe.published))):
            print(textwrap.fill(line, 80, subsequent_indent=" " * 13, break_on_hyphens=False))


def _print_plan(recipe: Recipe, config: Config, images: int, picture: Path) -> None:
    from resnext.data.order import steps_per_epoch
    from resnext.models.factory import check_model_name
    from resnext.task.lr_curve import draw_lr_curve, sample_lr
    from resnext.task.optimization import total_steps

    check_model_name(config.model.name)
    trainer, settings = config.trainer, config.recipe
    if trainer.devices == "auto":
        raise UserError("trainer.devices=auto: say how many, this machine's do not count")
    world_size = trainer.devices * trainer.nodes
    per_epoch = steps_per_epoch(images, settings.batch_size)
    total = total_steps(settings, per_epoch)
    rates = sample_lr(settings, per_epoch)
    highest = max(rates, key=rates.__getitem__)
    described = describe_recipe(settings)
    lines = {
        "recipe": recipe.name,
        "source": recipe.source,
        "published": recipe.published,
        "network": config.model.name,
        "images": f"{images:,} of {describe_image_sizes(settings)} pixels, evaluated at {settings.eval_image_size}",
        "batch": describe_split(config.split_batch(world_size), world_size),
        "steps": describe_steps(total, settings.epochs, per_epoch),
        "warm-up": f"{min(round(settings.schedule.warmup_epochs * per_epoch), total):,} steps",
        "rate": f"{rates[0]:.6g} first, {rates[highest]:.6g} from step {highest:,}, {rates[total - 1]:.3g} last",
        "how": described.pop("recipe"),
        **described,
        "warning": doubt_lr(settings),
        "picture": str(picture),
    }
    picture.write_text(draw_lr_curve(settings, per_epoch, f"{recipe.name}, {config.model.name}"))
    for name, line in lines.items():
        if line is not None:
            print(textwrap.fill(f"{name:9} {line}", 80, subsequent_indent=" " * 10, break_on_hyphens=False))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a count")
    return int(text)


def _svg(text: str) -> Path:
    if not text.endswith(".svg"):
        raise argparse.ArgumentTypeError(f"{text!r}: the picture is SVG, such as lr.svg")
    return Path(text)
