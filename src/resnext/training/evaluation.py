"""evaluate(run): a checkpoint of a run on its validation images, in one process."""

import warnings
from dataclasses import replace
from typing import NamedTuple

from resnext.config import Config
from resnext.data.datamodule import ImageDataModule
from resnext.data.images import load_images
from resnext.data.index import DataIdentity
from resnext.errors import UserError
from resnext.models.factory import build_model
from resnext.task.accuracy import Scores
from resnext.task.classification import ClassificationTask
from resnext.training.checkpoint import read_step
from resnext.training.device import World, resolve_auto
from resnext.training.log import ignore_harmless_warnings, quiet_lightning
from resnext.training.preemption import StopRequest
from resnext.training.run import Run
from resnext.training.trainer import build_trainer


class Evaluation(NamedTuple):
    """The scores of the checkpoint that was written after `step` optimizer steps."""

    scores: Scores
    step: int


def evaluate(run: Run, config: Config, checkpoint: str) -> Evaluation:
    """Validates checkpoints/`checkpoint`.ckpt, in the precision the run trains in.

    Raises:
        UserError: if there is no such checkpoint, or the data is not the run's.
        Interrupted: at a signal; Lightning would end a Ctrl-C with exit code 1.
    """
    path = run.checkpoints / f"{checkpoint}.ckpt"
    if not path.is_file():
        raise UserError(f"{path} does not exist: the run is {run.summary['status']} and has not written it")
    step = read_step(path)
    train, val = load_images(config.data)
    run.check_data(DataIdentity.of(train, val))
    trainer_config = resolve_auto(config.trainer, run.info.get("resolved"))
    config = replace(config, trainer=replace(trainer_config, devices=1, nodes=1, micro_batch_size=None, compile=False))
    network = build_model(replace(config.model, weights=None), len(train.classes))
    task = ClassificationTask(network, config.recipe, seed=config.seed, log_every_steps=1)
    quiet_lightning()
    trainer = build_trainer(config, World(0, 1), run.path, callbacks=[], loggers=[])
    datamodule = ImageDataModule(
        config.data, config.recipe, train, val, seed=config.seed, skipped=run.path / "skipped.txt"
    )
    with warnings.catch_warnings(), StopRequest().received(deferred=False):
        ignore_harmless_warnings()
        trainer.validate(task, datamodule, ckpt_path=path, verbose=False, weights_only=True)
    assert task.last_scores is not None
    return Evaluation(task.last_scores, step)
