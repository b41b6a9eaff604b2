"""Sends the confusion matrix and the worst mistakes of a run's evaluation to its W&B run."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np
import wandb

from resnext.config.redaction import redact_urls
from resnext.data.augment import build_eval_transform
from resnext.data.decode import UnreadableImage
from resnext.errors import RunFailed, UserError, describe_error
from resnext.loggers.wandb import build_wandb_logger, is_wanted, send_summary
from resnext.loggers.wandb_pictures import (
    CONFUSION,
    WORST_MISTAKES,
    Picture,
    make_confusion,
    make_sheet,
    send_pictures,
)
from resnext.report.evaluated_images import find_images
from resnext.report.evaluation import Evaluation, find_evaluation
from resnext.report.mistakes import WORST, count_confusions, read_mistakes
from resnext.report.record import RunRecord
from resnext.run.directory import Run
from resnext.training.pictures import send_first_pictures

CLASSES = 100  # of the whole confusion matrix; W&B's table of it has a row for each pair, and at most 10,000


def send_evaluation(run: Run) -> None:
    """Continues the W&B run of the training, online or offline, and adds the pictures of its newest evaluation.

    Raises:
        RunFailed: for an error of W&B.
        UserError: if the run does not log to W&B, is being trained, or has no evaluation with results by class, or if
            the images have changed.
    """
    record = RunRecord(run)
    config = record.config
    if not is_wanted(config.logger.mode):
        raise UserError(f"{run.path} does not log to W&B (logger.mode=disabled, or WANDB_MODE): leave out --wandb")
    evaluation = find_evaluation(record)
    images, starts = None, record.starts
    pictures = {CONFUSION: make_confusion(*count_confusions(evaluation, CLASSES))}
    if config.logger.pictures:
        pictures[WORST_MISTAKES] = make_sheet(_worst_mistakes(record, evaluation))
        images = record.images
    resolved = replace(config, trainer=replace(config.trainer, **record.info.get("resolved", {})))
    with run.lock(), _failing():  # a training would write to the same W&B run
        build_wandb_logger(resolved, run.path, record.info["wandb_id"])
        try:
            if images is not None:  # an offline start stores the whole run
                send_first_pictures(resolved, *images, starts[0]["world_size"] if starts else 1)
            send_pictures(pictures, evaluation.content["step"])
            send_summary(record.summary)
        finally:
            wandb.finish(exit_code=0 if record.summary["status"] == "finished" else 1)


@contextmanager
def _failing() -> Iterator[None]:
    """Turns any error of W&B into RunFailed."""
    try:
        yield
    except Exception as error:
        raise RunFailed(f"W&B: {redact_urls(describe_error(error))}") from error


def _worst_mistakes(record: RunRecord, evaluation: Evaluation) -> list[Picture]:
    """The crops of the images that the network gives a wrong class with the highest probability."""
    images, rows = find_images(record, evaluation), evaluation.predictions.mistakes[:WORST].tolist()
    crop = build_eval_transform(record.config.recipe.evaluation, evaluation.content["image_size"])
    pictures = []
    for true, predicted, percent, path in read_mistakes(evaluation, rows):
        with suppress(UnreadableImage):
            pixels = np.asarray(crop(images.pixels(path)))
            pictures.append(Picture(pixels, f"{true} taken for {predicted}, {percent}"))
    return pictures
