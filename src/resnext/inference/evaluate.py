"""evaluate(run): a checkpoint of a run on its validation images, in one process."""

import copy
import warnings
from dataclasses import replace
from typing import NamedTuple

from resnext.config.schema import Config
from resnext.data.datamodule import ImageDataModule
from resnext.data.images import load_images
from resnext.data.index import identify_data
from resnext.errors import UserError
from resnext.models.factory import build_model
from resnext.models.weights import EMA_KEY, network_weights
from resnext.run.directory import Run
from resnext.run.identity import check_mark
from resnext.runtime.checkpoint import check_network, load_checkpoint, parse_checkpoint
from resnext.runtime.device import resolve_auto
from resnext.runtime.logs import ignore_harmless_warnings, quiet_lightning
from resnext.runtime.signals import StopRequest
from resnext.runtime.world import World
from resnext.task.accuracy import Scores
from resnext.task.classification import ClassificationTask
from resnext.training.trainer import build_trainer


class Evaluation(NamedTuple):
    """The scores of a checkpoint's network after `step` optimizer steps, and of its average where it has one."""

    scores: Scores
    average: Scores | None
    step: int


def evaluate(run: Run, config: Config, checkpoint: str) -> Evaluation:
    """Validates checkpoints/`checkpoint`.ckpt, in the precision the run trains in.

    Raises:
        UserError: if the checkpoint does not exist or is of another run, or the data is not the run's.
        Interrupted: at a signal; Lightning would end a Ctrl-C with exit code 1.
    """
    path = run.checkpoints / f"{checkpoint}.ckpt"
    if not path.exists():
        raise UserError(f"{path} does not exist: the run is {run.summary['status']} and has not written it")
    content = load_checkpoint(path)
    found = parse_checkpoint(path, content)
    check_mark(path, content, run.mark, required=False)
    train, val = load_images(config.data)
    run.check_data(identify_data(train, val))
    trainer_config = resolve_auto(config.trainer, run.info.get("resolved"))
    config = replace(config, trainer=replace(trainer_config, devices=1, nodes=1, micro_batch_size=None, compile=False))
    network = build_model(replace(config.model, weights=None), len(train.classes))
    task = ClassificationTask(network, config.recipe, seed=config.seed, log_every_steps=1)
    check_network(found, task.state_dict())
    task.load_state_dict(content["state_dict"])
    if config.recipe.ema.decay is not None:
        task.validate_also("val_ema", copy.deepcopy(network))
        task.validated["val_ema"].load_state_dict(network_weights(content[EMA_KEY]))
    quiet_lightning()
    trainer = build_trainer(config, World(0, 1), run.path, callbacks=[], loggers=[])
    datamodule = ImageDataModule(
        config.data, config.recipe, train, val, {}, seed=config.seed, skipped=run.path / "skipped.txt"
    )
    with warnings.catch_warnings(), StopRequest().received(deferred=False):
        ignore_harmless_warnings()
        trainer.validate(task, datamodule, verbose=False)
    return Evaluation(task.last_scores["val"], task.last_scores.get("val_ema"), found.step)
