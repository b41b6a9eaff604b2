"""Predictions as CSV or JSON lines. Imports no torch."""

import csv
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from resnext.inference.predict import Prediction

FORMULA = tuple("=+-@\t\r\n＝＋－＠")

Write = Callable[["Prediction"], None]


def csv_writer(file: TextIO, topk: int) -> Write:
    """Writes the header path, class_1, probability_1, class_2 …, and returns the function that writes a row.

    All text is in quotes: a spreadsheet may split a cell at other characters than the comma.
    """
    rows = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    rows.writerow(["path", *(f"{name}_{rank}" for rank in range(1, topk + 1) for name in ("class", "probability"))])

    def write(prediction: "Prediction") -> None:
        guesses = [cell for guess in prediction.guesses for cell in (_text(guess.name), _rounded(guess.probability))]
        rows.writerow([_path(prediction.path), *guesses])

    return write


def json_writer(file: TextIO) -> Write:
    """{"path": …, "predictions": [{"class": …, "probability": …}, …]}, one line for each image."""

    def write(prediction: "Prediction") -> None:
        guesses = [{"class": each.name, "probability": _rounded(each.probability)} for each in prediction.guesses]
        file.write(json.dumps({"path": prediction.path, "predictions": guesses}) + "\n")

    return write


def _rounded(probability: float) -> float:
    """Six digits: float32 has about seven."""
    return float(f"{probability:.6g}")


def _path(path: str) -> str:
    """Another path to the same file, which no spreadsheet takes for a formula."""
    return f"./{path}" if path.startswith(FORMULA) else path


def _text(name: str) -> str:
    """An apostrophe tells a spreadsheet that the cell is text."""
    return f"'{name}" if name.startswith(FORMULA) else name
