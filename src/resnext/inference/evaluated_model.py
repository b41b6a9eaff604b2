"""What is evaluated: the weights of a run or of a file, on a split of the run, on other images or on a suite."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from resnext.config.augmentation import EvaluationConfig
from resnext.config.checkpoint_metadata import CheckpointMetadata, parse_metadata
from resnext.config.data import DataConfig
from resnext.config.schema import Config, TrainerConfig, to_dict
from resnext.data.images import Split
from resnext.errors import UserError
from resnext.inference.image_sets import ImageSet, find_images, find_other_images
from resnext.inference.network import Choice, find_step, read_weights
from resnext.inference.suites import load_suite
from resnext.models.weights import EMA_KEY
from resnext.run.directory import Run
from resnext.run.identity import check_mark
from resnext.run.run_files import find_checkpoint
from resnext.runtime.checkpoint import parse_checkpoint
from resnext.runtime.device import resolve_auto


class EvaluatedModel(NamedTuple):
    """The weights in `checkpoint`, and how they are evaluated.

    Attributes:
        owner: the run directory or the file.
        step: optimizer steps done; None if the file does not tell it.
        metadata, trainer: the preprocessing and the precision of this evaluation, without `auto` values.
        metrics: the names of recipe.evaluation.metrics.
        made, precision: those of the training.
    """

    owner: Path
    run: Run | None
    checkpoint: Path
    step: int | None
    metadata: CheckpointMetadata
    data: DataConfig
    trainer: TrainerConfig
    metrics: tuple[str, ...]
    made: EvaluationConfig
    precision: str

    @classmethod
    def of_run(cls, run: Run, config: Config, checkpoint: str, choice: Choice) -> "EvaluatedModel":
        """The checkpoint `best` or `last`. `config` may differ from the run's in evaluation, trainer and data.

        Raises:
            UserError: if the checkpoint does not exist, is damaged, or belongs to another run.
        """
        path = find_checkpoint(run.path, checkpoint)
        content = read_weights(path)
        _check_choice(path, content, choice)
        parse_checkpoint(path, content)
        check_mark(path, content, run.mark, required=False)
        metadata, made = (CheckpointMetadata.of(each, run.data_identity.classes) for each in (config, run.config))
        resolved = run.info.get("resolved")
        trainer, own = (resolve_auto(each.trainer, resolved) for each in (config, run.config))
        step = find_step(content)
        names, before = config.recipe.evaluation.metrics, made.evaluation
        return cls(run.path, run, path, step, metadata, config.data, trainer, names, before, own.precision)

    @classmethod
    def of_file(cls, path: Path, data: DataConfig, trainer: TrainerConfig, choice: Choice) -> "EvaluatedModel":
        """A checkpoint file or an export, with the preprocessing in its metadata. Raises UserError without metadata."""
        content = read_weights(path)
        _check_choice(path, content, choice)
        metadata, trainer = parse_metadata(path, content), resolve_auto(trainer)
        step = find_step(content)
        return cls(path, None, path, step, metadata, data, trainer, (), metadata.evaluation, trainer.precision)

    def at_size(self, image_size: int | None) -> "EvaluatedModel":
        if image_size is None:
            return self
        evaluation = dataclasses.replace(self.metadata.evaluation, image_size=image_size)
        return self._replace(metadata=self.metadata._replace(evaluation=evaluation))


class EvaluationImages(NamedTuple):
    """The images to evaluate, and a name for them in the name of the result."""

    sets: list[ImageSet]
    elsewhere: Path | None
    name: str


def _check_choice(path: Path, content: dict[str, Any], choice: Choice) -> None:
    if choice == "ema" and not content.get(EMA_KEY):
        raise UserError(f"{path} has no EMA weights: give --weights raw, or leave it out")


def find_evaluation_images(model: EvaluatedModel, split: Split, suite: str | None) -> EvaluationImages:
    """The images of `split` below model.data.root, or of a suite in this folder. Raises UserError."""
    classes, owner = model.metadata.classes, str(model.owner)
    if suite is not None:
        root = Path(model.data.root)
        return EvaluationImages(load_suite(suite, root, classes, owner), root, suite)
    if model.run is not None:
        images, elsewhere = find_images(model.run, model.data, split)
    else:
        images, elsewhere = find_other_images(model.data, split, classes, owner)
    name = split if model.run is not None and elsewhere is None else f"{split}-{_name_folder(Path(model.data.root))}"
    return EvaluationImages([images], elsewhere, name)


def find_results(model: EvaluatedModel) -> Path:
    """The folder for results. Only a training writes to checkpoints/."""
    beside = model.owner.parent.parent if model.owner.parent.name == "checkpoints" else model.owner.parent
    return (model.owner if model.run is not None else beside) / "evaluations"


def name_result(
    model: EvaluatedModel, checkpoint: str, chosen: EvaluationImages, weights: Choice, *, flip: bool
) -> str:
    """`best-val`, with everything that differs from the training: `best-val-288px-flip`."""
    given, made = to_dict(model.metadata.evaluation), to_dict(model.made)
    changes = [f"{key}={given[key]}" for key in made if given[key] != made[key] and key != "image_size"]
    if given["image_size"] != made["image_size"]:
        changes = [f"{given['image_size']}px", *changes]
    if model.trainer.precision != model.precision:
        changes.append(model.trainer.precision)
    if weights != "both":
        changes.append(weights)
    first = checkpoint if model.run is not None else model.owner.stem
    return "-".join([first, chosen.name, *changes, *(["flip"] if flip else [])])


def _name_folder(root: Path) -> str:
    """Its name, and six digits that tell folders of the same name apart."""
    place = os.fsencode(root.resolve())
    return f"{root.resolve().name}-{hashlib.sha256(place).hexdigest()[:6]}"
