"""The newest evaluation in RUN/evaluations/: NAME.json and NAME.npz, which `resnext evaluate` writes."""

import json
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from resnext.errors import UserError
from resnext.files import check_regular, read_text
from resnext.report.record import RunRecord

BINS = 15  # of confidence, as in the calibration error of `resnext evaluate`
NAMES = {"ema": "EMA weights", "raw": "trained weights"}


class NoEvaluation(UserError):
    """The run has no evaluation."""


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of one set of images.

    Attributes:
        path: the JSON file.
        content: its content.
        network: `ema` if there are EMA weights, else `raw`.
    """

    path: Path
    content: dict[str, Any]
    network: str

    @property
    def metrics(self) -> dict[str, Any]:
        return self.content["networks"][self.network]

    @property
    def classes(self) -> list[str]:
        """The names of the classes. Raises UserError if the evaluation has no results by class."""
        if "per_class" not in self.metrics:
            raise UserError(
                f"{self.path} has no results by class: its images have several correct classes, or the test set has "
                "several parts"
            )
        return [str(each["class"]) for each in self.metrics["per_class"]]

    @cached_property
    def predictions(self) -> "Predictions":
        return read_predictions(self.path.with_suffix(".npz"), self.network)

    def confusion(self) -> dict[tuple[int, int], int]:
        """(class, predicted class) → images."""
        count = len(self.classes)
        found = {(int(one), int(other)): int(images) for one, other, images in self.metrics["confusion"]}
        if any(not (0 <= one < count and 0 <= other < count) for one, other in found):
            raise UserError(
                f"{self.path} is damaged: its confusion has a class that it does not list: {_again(self.path)}"
            )
        return found


@dataclass(frozen=True)
class Predictions:
    """A row for each image: its path in its split, its class, the predicted class, and the probability of it."""

    paths: np.ndarray
    targets: np.ndarray
    classes: np.ndarray
    confidences: np.ndarray

    @property
    def mistakes(self) -> np.ndarray:
        """The rows with a wrong class, the most confident first."""
        wrong = np.flatnonzero((self.targets >= 0) & (self.classes != self.targets))
        return wrong[np.argsort(-self.confidences[wrong], kind="stable")]

    def bins(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean confidence, accuracy and images of each bin of confidence that has images."""
        known = self.targets >= 0
        confidences, hits = self.confidences[known].astype(float), (self.classes == self.targets)[known]
        places = np.clip(np.ceil(confidences * BINS).astype(int) - 1, 0, BINS - 1)
        images = np.bincount(places, minlength=BINS)
        used = images > 0
        means, accuracies = (np.bincount(places, each, BINS)[used] / images[used] for each in (confidences, hits))
        return means, accuracies, images[used]


def find_evaluation(record: RunRecord) -> Evaluation:
    """The newest evaluation. Raises UserError if there is none, or the newest is damaged."""
    folder = record.run.path / "evaluations"
    files = sorted(folder.glob("*.json"), key=lambda path: (path.lstat().st_mtime_ns, path.name))
    if not files:
        raise NoEvaluation(
            f"the run has no evaluation: `resnext evaluate {shlex.quote(str(record.run.path))}` makes one"
            + ("" if (record.run.checkpoints / "best.ckpt").exists() else ", after the first validation")
        )
    path = files[-1]
    try:
        content = json.loads(read_text(path))
        network = next(name for name in ("ema", "raw") if name in content["networks"])
        _check(content["networks"])
        return Evaluation(path, content, network)
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}): {_again(path)}") from error


def read_predictions(path: Path, network: str) -> Predictions:
    """Raises UserError if the file is missing or damaged."""
    try:
        check_regular(path)
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            labels, confidences = arrays[f"{network}_classes"], arrays[f"{network}_probabilities"]
            found = Predictions(arrays["paths"], arrays["targets"], labels[:, 0], confidences[:, 0])
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: {_again(path)}") from None
    except (OSError, ValueError, KeyError, IndexError, EOFError, BadZipFile, NotImplementedError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}): {_again(path)}") from error
    if len({len(found.paths), len(found.targets), len(found.classes), len(found.confidences)}) > 1:
        raise UserError(f"{path} is damaged: its arrays have different lengths: {_again(path)}")
    return found


def _check(networks: dict[str, Any]) -> None:
    """Raises an error of any type if a value that the page shows is missing or is not a number."""
    for metrics in networks.values():
        for top in ("top1", "top5"):
            float(metrics[top]["value"] if isinstance(metrics[top], dict) else metrics[top])
        for each in metrics.get("per_class", ()):
            _ = each["class"], int(each["images"]), float(each["top1"] or 0)
        for one, other, images in metrics.get("confusion", ()):
            _ = int(one), int(other), int(images)


def _again(path: Path) -> str:
    return f"`resnext evaluate {shlex.quote(str(path.parent.parent))}` writes it again"
