"""resnext evaluate RUN|FILE: compute accuracies and calibration on validation images, other images or a suite."""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnext.cli.arguments import ArgumentParser, positive
from resnext.cli.json_output import only_json, print_json
from resnext.errors import UserError
from resnext.files import check_writable
from resnext.terminal import pluralize

if TYPE_CHECKING:
    from resnext.inference.evaluated_model import EvaluatedModel, EvaluationImages

SUITES = ("imagenet-v2", "imagenet-r", "imagenet-a", "imagenet-sketch", "imagenet-real", "imagenet-c")
BATCH_SIZE = 128


def main(arguments: list[str]) -> int:
    options = _parse(arguments)
    model = _open_file(options) if options.run.is_file() else _open_run(options)

    from resnext.data.cores import count_workers
    from resnext.data.index import printable
    from resnext.inference.evaluate import evaluate
    from resnext.inference.evaluated_model import find_evaluation_images, find_results, name_result
    from resnext.inference.evaluation_file import to_plain, write_evaluation
    from resnext.inference.evaluation_text import describe_evaluation
    from resnext.inference.forward import EvaluationJob

    model = model.at_size(options.image_size)
    chosen = find_evaluation_images(model, options.split, options.suite)
    processes = _count_processes(model, options.devices)
    job = EvaluationJob(
        model.checkpoint,
        model.step,
        options.weights,
        model.metadata,
        chosen.sets,
        model.trainer,
        metrics=() if options.suite else model.metrics,
        batch_size=options.batch_size,
        flip=options.tta is not None,
        workers=-(-count_workers(model.data) // processes),
        worker_timeout=model.data.worker_timeout,
    )
    path = find_results(model) / name_result(model, options.checkpoint, chosen, options.weights, flip=job.flip)
    check_writable(path.parent)
    with only_json(options.json):
        results = evaluate(job, processes)
    content = to_plain(_describe(options, model, chosen), results, model.metadata.classes)
    write_evaluation(path, content, results)
    if options.json:
        print_json(content)
    else:
        print("\n".join(describe_evaluation(model, chosen, results, flip=job.flip)))
        print(f"wrote     {printable(os.fsencode(path))}.json and .npz")
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        "resnext evaluate",
        description="Compute the accuracy of a trained network, its calibration, and the accuracy of each class. Each "
        "image counts once, on any number of devices. The result is written to RUN/evaluations/.",
    )
    parser.add_argument("run", type=Path, metavar="RUN|FILE", help="runs/NAME, or a checkpoint file with --data")
    parser.add_argument("--checkpoint", choices=("best", "last"), help="which checkpoint of a run (default: best)")
    weights = "the EMA weights, the trained weights, or both (default)"
    parser.add_argument("--weights", choices=("ema", "raw", "both"), default="both", help=weights)
    parser.add_argument(
        "--data", metavar="PATH", help="other images: PATH/val/CLASS/, with all or some of the network's classes"
    )
    parser.add_argument("--split", choices=("val", "test"), default="val", help="test: DATA/test/CLASS/ (default: val)")
    parser.add_argument("--suite", choices=SUITES, help="a test set for ImageNet networks; --data is its folder")
    parser.add_argument("--image-size", type=positive, metavar="N", help="image size in pixels (default: the run's)")
    parser.add_argument("--tta", choices=("flip",), help="average the logits of each image and of its mirror image")
    parser.add_argument(
        "--devices", type=positive, metavar="N", help="processes, one for each GPU (default: all GPUs, or one process)"
    )
    batch_size = f"images per device (default: {BATCH_SIZE})"
    parser.add_argument("--batch-size", type=positive, default=BATCH_SIZE, metavar="N", help=batch_size)
    parser.add_argument("--json", action="store_true", help="print the content of the result's JSON file")
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="for a run, such as recipe.evaluation.crop_pct=1, trainer.precision=32-true or data.workers=8",
    )
    options = parser.parse_intermixed_args(arguments)
    _check_options(options)
    options.checkpoint = options.checkpoint or "best"
    return options


def _check_options(options: argparse.Namespace) -> None:
    """Raises UserError for options that do not go together."""
    if options.checkpoint is not None and options.run.is_file():
        raise UserError(f"--checkpoint is for a run, and {options.run} is a file: leave it out")
    if options.data is not None:
        try:
            options.data.encode()
        except UnicodeEncodeError:
            raise UserError(f"--data {options.data!a} is not valid UTF-8: rename the folder, or link to it") from None
    if options.suite is not None and options.data is None:
        raise UserError(f"--suite {options.suite} needs --data PATH, the folder of its images")
    if options.suite is not None and options.split != "val":
        raise UserError(f"--suite {options.suite} has no splits: leave out --split")


def _open_run(options: argparse.Namespace) -> "EvaluatedModel":
    from resnext.config.compose import apply_overrides
    from resnext.run.directory import Run
    from resnext.run.run_files import find_checkpoint

    run = Run.open(options.run)
    config = apply_overrides(run.config, options.overrides)
    own = replace(config.recipe, evaluation=run.config.recipe.evaluation)  # recipe.evaluation may change
    run.check_identity(replace(config, recipe=own), run.data_identity)
    if options.suite and config.recipe.evaluation.metrics != run.config.recipe.evaluation.metrics:
        raise UserError("recipe.evaluation.metrics is not computed for a suite: leave it out")
    find_checkpoint(run.path, options.checkpoint)
    if options.data is not None:
        config = replace(config, data=replace(config.data, root=options.data))

    from resnext.inference.evaluated_model import EvaluatedModel  # imports torch, so that a mistake is reported first

    return EvaluatedModel.of_run(run, config, options.checkpoint, options.weights)


def _open_file(options: argparse.Namespace) -> "EvaluatedModel":
    if options.overrides:
        raise UserError(
            f"{options.overrides[0]} is for a run, but {options.run} is a file: leave out {options.overrides[0]}"
        )
    if options.data is None:
        raise UserError(f"{options.run} is a file, so give its images: --data PATH, with PATH/val/CLASS/")

    from resnext.config.data import DataConfig
    from resnext.config.schema import TrainerConfig
    from resnext.inference.evaluated_model import EvaluatedModel

    data = DataConfig(name="image_folder", root=options.data)
    return EvaluatedModel.of_file(options.run, data, TrainerConfig(), options.weights)


def _count_processes(model: "EvaluatedModel", devices: int | None) -> int:
    """Raises UserError if there are fewer GPUs."""
    from resnext.runtime.device import count_devices

    if model.trainer.accelerator == "cpu":
        return devices or 1
    gpus = count_devices(replace(model.trainer, devices="auto"))
    if devices is not None and devices > gpus:
        raise UserError(
            f"--devices {devices}, but this machine has {pluralize(gpus, 'GPU')}: give --devices {gpus} or less"
        )
    return devices or gpus


def _describe(options: argparse.Namespace, model: "EvaluatedModel", chosen: "EvaluationImages") -> dict[str, Any]:
    """The part of the JSON file that is known before the evaluation."""
    from resnext.config.schema import to_dict
    from resnext.run.provenance import describe_code

    return {
        "run": str(model.owner),
        "checkpoint": options.checkpoint if model.run else model.owner.name,
        "step": model.step,
        "split": None if options.suite else options.split,
        "suite": options.suite,
        "data": str(Path(model.data.root).absolute()),
        "is_own": model.run is not None and chosen.elsewhere is None,
        "classes": max(len(each.listed.classes) for each in chosen.sets),
        "image_size": model.metadata.image_size,
        "evaluation": to_dict(model.metadata.evaluation),
        "precision": model.trainer.precision,
        "tta": options.tta,
        "code": describe_code(),
    }
