"""resnext average RUN [RUN …]: average checkpoints of one run, or the best checkpoints of several runs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnext.cli.arguments import ArgumentParser, positive
from resnext.cli.json_output import add_json, only_json, print_json
from resnext.errors import UserError
from resnext.files import check_writable
from resnext.terminal import describe_bytes, pluralize

if TYPE_CHECKING:
    from resnext.inference.average import Trial
    from resnext.inference.average_parts import Part
    from resnext.run.directory import Run
    from resnext.task.accuracy import Scores

MAX_NAME = 100  # characters


def main(arguments: list[str]) -> int:
    options = _parse(arguments)
    with only_json(options.json):
        facts = _average(options)
    if options.json:
        print_json(facts)
    return 0


def _average(options: argparse.Namespace) -> dict[str, Any]:
    """Prints every step, and returns the facts for --json."""
    from resnext.inference.average_parts import find_parts
    from resnext.run.directory import Run

    runs = [Run.open(path) for path in options.runs]
    parts = find_parts(runs, last=options.last, best=options.best, raw=options.weights == "raw")
    output = options.output or _default_output(runs, options)
    _check_output(output, runs)  # a mistake is reported before torch is imported

    from resnext.inference.average import RunImages, greedy_soup, mean_of, whole_soup, write_average
    from resnext.inference.network import load_own_network

    trained = mean_of(parts, options.weights)
    images = RunImages(runs[0], trained.metadata)
    _print_images(images.val.root, len(images.val), runs)
    scores, averages = [], 0
    for part in parts:
        one = load_own_network(part.run, part.path, options.weights)
        averages += one.is_ema
        scores.append(images.validate(one, part.name))
        _print_row(part.name, scores[-1], parts)
    if options.greedy:
        tell = lambda trial: _print_trial(trial, parts)  # noqa: E731
        soup = greedy_soup(parts, scores, options.weights, images, recompute=options.recompute_batchnorm, tell=tell)
    else:
        soup = whole_soup(trained, parts, images, recompute=options.recompute_batchnorm)
    _print_row(f"average of {len(soup.parts)}", soup.scores, parts)
    write_average(soup.trained, output, soup.parts)
    print(f"weights   {_describe_weights(averages, len(parts))}")
    if soup.recomputed:
        print(f"batch     statistics recomputed on {pluralize(soup.recomputed, 'training image')}")
    print(f"wrote     {output}, {describe_bytes(output.stat().st_size)}")
    return {
        "path": output,
        "bytes": output.stat().st_size,
        "images": len(images.val),
        "checkpoints": [{"name": part.name, **_plain(each)} for part, each in zip(parts, scores, strict=True)],
        "average": {"checkpoints": [part.name for part in soup.parts], **_plain(soup.scores)},
        "recomputed_images": soup.recomputed,
    }


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        "resnext average",
        description="Average the weights of the checkpoints that a run has kept (checkpoint.keep_every_epochs), or of "
        "the best.ckpt of several runs with the same network and classes. Each checkpoint and the average are "
        "validated. Give the file to predict, export, evaluate or model.weights.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="runs/NAME; the first run's images are used")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--last", type=positive, metavar="N", help="only the newest N kept checkpoints")
    chosen.add_argument("--best", type=positive, metavar="N", help="only the N most accurate, by metrics.csv")
    parser.add_argument(
        "--weights", choices=("ema", "raw"), default="ema", help="the EMA weights if any (default), or the trained ones"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: a file in runs/NAME/averages/")
    parser.add_argument(
        "--recompute-batchnorm",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compute the batch statistics of the average on training images (default), or average them too",
    )
    parser.add_argument(
        "--greedy", action="store_true", help="add a checkpoint only if the validation accuracy does not fall"
    )
    add_json(parser)
    return parser.parse_args(arguments)


def _default_output(runs: "list[Run]", options: argparse.Namespace) -> Path:
    """A file in the directory of the first run. Its name tells what is averaged."""
    name = "+".join(run.path.name for run in runs)
    if len(runs) == 1:
        name = f"last-{options.last}" if options.last else f"best-{options.best}" if options.best else "all"
    elif len(name) > MAX_NAME:
        raise UserError(f"the names of {len(runs)} runs are too long for a file name: give --output FILE")
    ending = "".join(
        text
        for text, is_on in {
            "-greedy": options.greedy,
            "-raw": options.weights == "raw",
            "-averaged-statistics": not options.recompute_batchnorm,
        }.items()
        if is_on
    )
    return runs[0].path / "averages" / f"{name}{ending}.pt"


def _check_output(output: Path, runs: "list[Run]") -> None:
    """Raises UserError if `output` cannot be written, before the long work. Creates its folder."""
    if output.is_dir() or (output.exists() and not output.is_file()):
        raise UserError(f"--output {output} is not a file: give the name of a file")
    if output.resolve().parent in [run.checkpoints.resolve() for run in runs]:
        raise UserError(f"--output {output}: only the training writes to checkpoints/; choose another folder")
    try:
        check_writable(output.parent)
    except OSError as error:
        raise UserError(
            f"--output {output}: the folder cannot be written ({error.strerror}): choose another"
        ) from error


def _print_images(root: Path, count: int, runs: "list[Run]") -> None:
    print(f"validated {pluralize(count, 'image')} in {root}")
    for run in runs[1:]:
        if run.data_identity != runs[0].data_identity:
            print(f"note      {run.path} has other images: it may have been trained on some of these")


def _plain(scores: "Scores") -> dict[str, float]:
    return {name: value for name, value in scores._asdict().items() if name != "images"}


def _print_row(name: str, scores: "Scores", parts: "list[Part]") -> None:
    accuracies = f"top-1 {100 * scores.top1:6.2f} %  top-5 {100 * scores.top5:6.2f} %  loss {scores.loss:.4f}"
    print(f"  {name:{_width(parts)}}  {accuracies}", flush=True)


def _print_trial(trial: "Trial", parts: "list[Part]") -> None:
    sign, result = ("+", "added") if trial.is_added else ("-", "left out")
    top1 = f"top-1 {100 * trial.scores.top1:6.2f} %"
    print(f"{sign} {trial.part.name:{_width(parts)}}  {top1}  {result}", flush=True)


def _width(parts: "list[Part]") -> int:
    return max(len("average of 10"), *(len(part.name) for part in parts))


def _describe_weights(averages: int, count: int) -> str:
    if averages in (0, count):
        return "EMA weights" if averages else "trained weights"
    return f"EMA weights of {averages} checkpoints, trained weights of {count - averages}"
