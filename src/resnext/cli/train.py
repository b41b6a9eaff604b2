"""resnext train: make a run from a configuration and train it."""

from resnext.cli.composition import run_with_hydra
from resnext.config import Config


def main(arguments: list[str]) -> int:
    """Takes Hydra's arguments: KEY=VALUE, GROUP=NAME, --cfg job, -m …"""
    run_with_hydra("train", arguments, lambda config: train(config, ["resnext", "train", *arguments]))
    return 0


def train(config: Config, command: list[str]) -> None:
    """Checks what can be checked before there is a run, makes its directory (or opens it), and trains it."""
    from resnext.data.images import load_images
    from resnext.data.index import DataIdentity

    images = load_images(config.data)  # first: neither weights nor networks are touched without data

    from resnext.launch.local import launch
    from resnext.launch.preflight import check_before_run
    from resnext.training.run import Run

    check_before_run(config, *images)
    launch(Run.create(config, DataIdentity.of(*images), command))
