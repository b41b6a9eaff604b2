"""What is evaluated: the weights of a run or of a file, on a split of the run, on other images or on a suite."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from resnext.config.checkpoint_metadata import CheckpointMetadata, parse_metadata
from resnext.config.data import DataConfig
from resnext.config.schema import Config, TrainerConfig, to_dict
from resnext.data.images import Split
from resnext.inference.image_sets import ImageSet, find_images, find_other_images
from resnext.inference.network import read_weights
from resnext.inference.suites import load_suite
from resnext.run.directory import Run
from resnext.run.identity import check_mark
from resnext.run.run_files import find_checkpoint
from resnext.runtime.checkpoint import parse_checkpoint
from resnext.runtime.device import resolve_auto


class EvaluatedModel(NamedTuple):
    """`owner` is the run or the file; `step` is None if the file does not tell it. `trainer` has no `auto` values."""

    owner: Path
    run: Run | None
    checkpoint: Path
    step: int | None
    metadata: CheckpointMetadata
    data: DataConfig
    trainer: TrainerConfig

    @classmethod
    def of_run(cls, run: Run, config: Config, checkpoint: str) -> "EvaluatedModel":
        """The checkpoint `best` or `last`, in the precision of the training. `config` may differ in its evaluation.

        Raises:
            UserError: if the checkpoint does not exist, is damaged, or belongs to another run.
        """
        path = find_checkpoint(run.path, checkpoint)
        content = read_weights(path)
        step = parse_checkpoint(path, content).step
        check_mark(path, content, run.mark, required=False)
        metadata = CheckpointMetadata.of(config, run.data_identity.classes)
        trainer = resolve_auto(config.trainer, run.info.get("resolved"))
        return cls(run.path, run, path, step, metadata, config.data, trainer)

    @classmethod
    def of_file(cls, path: Path, data: DataConfig, trainer: TrainerConfig) -> "EvaluatedModel":
        """A checkpoint file or an export, with the preprocessing in its metadata. Raises UserError without metadata."""
        content = read_weights(path)
        metadata = parse_metadata(path, content)
        return cls(path, None, path, content.get("global_step"), metadata, data, resolve_auto(trainer))

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
    foreign = model.run is not None and elsewhere is not None
    return EvaluationImages([images], elsewhere, split + (f"-{Path(model.data.root).name}" if foreign else ""))


def name_result(model: EvaluatedModel, checkpoint: str, chosen: EvaluationImages, *, flip: bool) -> str:
    """`best-val`, with everything that differs from the run: `best-val-288px-flip`."""
    own = None if model.run is None else model.run.config.recipe
    changes = []
    if own is not None:
        made = dataclasses.replace(own.evaluation, image_size=own.eval_image_size, metrics=())
        given: dict[str, Any] = to_dict(model.metadata.evaluation)
        changes = [f"{key}={given[key]}" for key, value in to_dict(made).items() if given[key] != value]
    changes = [f"{each.removeprefix('image_size=')}px" if each.startswith("image_size=") else each for each in changes]
    first = checkpoint if model.run is not None else model.owner.stem
    return "-".join([first, chosen.name, *changes, *(["flip"] if flip else [])])
