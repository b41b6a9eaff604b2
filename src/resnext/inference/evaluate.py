"""evaluate(run): validates a checkpoint of a run on the validation images, in one process."""

import copy
import warnings
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from resnext.config.schema import Config, DataConfig
from resnext.data.datamodule import ImageDataModule
from resnext.data.images import load_images, load_other_images
from resnext.data.index import ImageIndex, identify_data
from resnext.errors import UserError
from resnext.models.factory import build_model
from resnext.models.weights import EMA_KEY, NETWORK_PREFIX, network_weights
from resnext.run.directory import Run
from resnext.run.identity import check_mark
from resnext.run.run_files import find_checkpoint
from resnext.runtime.checkpoint import check_network, load_checkpoint, parse_checkpoint
from resnext.runtime.device import resolve_auto
from resnext.runtime.logs import ignore_harmless_warnings, quiet_lightning
from resnext.runtime.signals import StopRequest
from resnext.runtime.world import World
from resnext.task.accuracy import Scores
from resnext.task.classification import ClassificationTask
from resnext.training.trainer import build_trainer


class Evaluation(NamedTuple):
    """The scores of a checkpoint's network after `step` optimizer steps, and of its average (EMA) if it has one.

    `elsewhere` is the folder of the images if they are not the images of the run.
    """

    scores: Scores
    average: Scores | None
    step: int
    elsewhere: Path | None


def evaluate(run: Run, config: Config, checkpoint: str) -> Evaluation:
    """Validates checkpoints/`checkpoint`.ckpt in the precision of the training. Writes nothing.

    `config.data.root` may hold other images of the same classes; of a folder, only val/ is needed.

    Raises:
        UserError: if the checkpoint does not exist or belongs to another run; if another data.root has other classes;
            if the images in the run's own data.root have changed.
        Interrupted: at a signal. Lightning itself would exit with code 1 after a Ctrl-C.
    """
    path = find_checkpoint(run.path, checkpoint)
    content = load_checkpoint(path)
    found = parse_checkpoint(path, content)
    check_mark(path, content, run.mark, required=False)
    val, is_own = _load_val(run, config.data)
    elsewhere = None if is_own else val.root
    trainer_config = resolve_auto(config.trainer, run.info.get("resolved"))
    config = replace(config, trainer=replace(trainer_config, devices=1, nodes=1, micro_batch_size=None, compile=False))
    network = build_model(replace(config.model, weights=None), len(run.data_identity.classes))
    task = ClassificationTask(network, config.recipe, seed=config.seed, log_every_steps=1)
    check_network(found, network.state_dict(), NETWORK_PREFIX)
    network.load_state_dict(network_weights(content["state_dict"]))
    if config.recipe.ema.decay is not None:
        task.validate_also("val_ema", copy.deepcopy(network))
        task.validated["val_ema"].load_state_dict(network_weights(content[EMA_KEY]))
    quiet_lightning()
    trainer = build_trainer(config, World(0, 1), run.path, callbacks=[], loggers=[])
    datamodule = ImageDataModule(
        config.data, config.recipe, val, val, {}, seed=config.seed, skipped=run.path / "skipped.txt"
    )  # nothing is trained: `train` is not used
    with warnings.catch_warnings(), StopRequest().received(deferred=False):
        ignore_harmless_warnings()
        trainer.validate(task, datamodule, verbose=False)
    return Evaluation(task.last_scores["val"], task.last_scores.get("val_ema"), found.step, elsewhere)


def _load_val(run: Run, data: DataConfig) -> tuple[ImageIndex, bool]:
    """The validation images, and whether they are the run's own: only both splits together identify them."""
    if data.root == run.config.data.root:
        train, val = load_images(data)
        run.check_data(identify_data(train, val))
        return val, True
    train, val = load_other_images(data)
    _check_classes(run, data.root, val.classes)
    return val, train is not None and identify_data(train, val) == run.data_identity


def _check_classes(run: Run, root: str, classes: tuple[str, ...]) -> None:
    """Raises UserError if the list of classes differs: a label is a position in this list."""
    made = run.data_identity.classes
    if classes == made:
        return
    differences = {"missing": sorted({*made} - {*classes}), "new": sorted({*classes} - {*made})}
    found = [
        f"{len(names):,} {word} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for word, names in differences.items()
        if names
    ]
    raise UserError(
        f"data.root={root} does not have the classes of {run.path}: {', '.join(found) or 'they are in another order'}; "
        "give images of the same classes, in folders of the same names"
    )
