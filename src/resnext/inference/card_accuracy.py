"""The accuracy on a model card: from `resnext evaluate`, else from the validation during the training."""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from resnext.config.types import Fraction
from resnext.errors import UserError
from resnext.files import read_text
from resnext.inference import evaluation_metrics
from resnext.inference.network import TrainedNetwork
from resnext.run.directory import Run
from resnext.run.metrics import read_rows

EVALUATION = Path("evaluations/best-val.json")


@dataclass(frozen=True)
class Interval:
    """A fraction of the images with its 95 % interval."""

    value: Fraction
    low: Fraction
    high: Fraction

    def __str__(self) -> str:
        return f"{100 * self.value:.2f} % | {100 * self.low:.2f} % to {100 * self.high:.2f} %"


@dataclass(frozen=True)
class Scores:
    """The part of a network's scores that a card has."""

    top1: Interval
    top5: Interval
    calibration_error: Annotated[float, Field(ge=0, le=1)] | None = None


@dataclass(frozen=True)
class Evaluation:
    """The part of an evaluation's file that a card needs; see inference/evaluation_file.py."""

    step: int
    split: str
    is_own: bool
    images: Annotated[int, Field(ge=1)]
    image_size: int
    networks: dict[Literal["ema", "raw"], Scores]
    tta: str | None = None


class CardAccuracy(NamedTuple):
    """`source` is a sentence. `is_evaluation`: from `resnext evaluate`, and not from the training."""

    scores: Scores
    images: int
    source: str
    is_evaluation: bool


def find_accuracy(run: Run, trained: TrainedNetwork) -> CardAccuracy | None:
    """The accuracy of the weights of `trained`, which is from `run`; None if it was not measured.

    Raises:
        UserError: if the file of the evaluation is damaged.
    """
    if trained.step is None:
        return None
    name = "ema" if trained.is_ema else "raw"
    evaluation = _read_evaluation(run.path / EVALUATION)
    if evaluation is not None and name in evaluation.networks and _describes(evaluation, trained):
        source = f"Measured by `resnext evaluate` on the {evaluation.images:,} validation images of the run."
        return CardAccuracy(evaluation.networks[name], evaluation.images, source, is_evaluation=True)
    return _from_training(run, trained)


def _describes(evaluation: Evaluation, trained: TrainedNetwork) -> bool:
    """Whether the evaluation is of these weights, on the run's own images, with the preprocessing of the card."""
    found = (evaluation.step, evaluation.split, evaluation.is_own, evaluation.image_size, evaluation.tta)
    return found == (trained.step, "val", True, trained.metadata.image_size, None)


def _read_evaluation(path: Path) -> Evaluation | None:
    try:
        return TypeAdapter(Evaluation).validate_json(read_text(path))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the content"
        raise UserError(
            f"{path} is damaged ({key}: {first['msg']}): remove it, or write it again (resnext evaluate)"
        ) from None


def _from_training(run: Run, trained: TrainedNetwork) -> CardAccuracy | None:
    prefix = "val_ema" if trained.is_ema else "val"
    images = run.summary.get("val_images")
    rows = (row for row in read_rows(run.path / "metrics.csv") if int(row["step"]) == trained.step)
    row = next((row for row in rows if row.get(f"{prefix}/top1")), None)
    if row is None or not images:
        return None
    hits = (round(float(row[f"{prefix}/{name}"]) * images) for name in ("top1", "top5"))
    top1, top5 = (Interval(*evaluation_metrics.Interval.of(each, images)) for each in hits)
    source = f"From the validation during the training, after epoch {row['epoch']}, on {images:,} images."
    return CardAccuracy(Scores(top1, top5), images, source, is_evaluation=False)
