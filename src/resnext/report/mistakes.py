"""What an evaluation shows of the network: confusion, accuracy by class, calibration, and its worst mistakes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from resnext.data.decode import UnreadableImage
from resnext.report.evaluated_images import EvaluatedImages, find_images
from resnext.report.evaluation import NAMES, Evaluation
from resnext.report.html import CLASSES, Html, details, join, name_rows, table, tag
from resnext.report.plots import plot_bars, plot_calibration, plot_matrix
from resnext.report.record import RunRecord
from resnext.report.thumbnails import thumbnail

MATRIX = 20  # classes of the confusion matrix
BARS = 24  # classes of the plot of accuracies
WORST = 24  # mistakes with a thumbnail
NO_MISTAKE = "No image was misclassified."
PAIRS, OF_PAIR = 6, 4  # pairs of classes, and thumbnails of each


class Mistake(NamedTuple):
    """An image with a wrong prediction; `confidence` is text in percent, and `path` as in EvaluatedImages.pixels."""

    true: str
    predicted: str
    confidence: str
    path: bytes


def results(evaluation: Evaluation) -> Html:
    """The metrics of each network, and which images were evaluated."""
    content = evaluation.content
    head = ["weights", "top-1", "95 % interval", "top-5", "loss", "calibration error", *_named(evaluation.metrics)]
    rows = [(NAMES.get(name, name), *cells(metrics)) for name, metrics in content["networks"].items()]
    split = content.get("suite") or content.get("split")
    words = f"{evaluation.path.name}: {content.get('images', 0):,} images of {split} in {content.get('data')}"
    pixels = f", {content['image_size']} pixels" if content.get("image_size") else ""
    flip = ", with mirror images" if content.get("tta") else ""
    return join([tag("p", words, pixels, flip, class_="note"), table(head, rows, numbers=True)])


def confusion_matrix(evaluation: Evaluation) -> Html:
    chosen, counts = count_confusions(evaluation, MATRIX)
    if not chosen:
        return tag("p", NO_MISTAKE, class_="note")
    every = len(evaluation.classes)
    some = f", {len(chosen)} of {every:,} classes: those of the most frequent confusions"
    title = "True class in rows, predicted class in columns" + (some if len(chosen) < every else "")
    return plot_matrix(title, chosen, counts)


def count_confusions(evaluation: Evaluation, whole: int) -> tuple[list[str], np.ndarray]:
    """Names of classes and int [N, N], the true class in rows.

    All classes if they are at most `whole`, else those of the most frequent confusions; none without a mistake.
    """
    found, names = evaluation.confusion(), evaluation.classes
    chosen = list(range(len(names))) if len(names) <= whole else _most_confused(found)
    counts = [[found.get((one, other), 0) for other in chosen] for one in chosen]
    return [names[each] for each in chosen], np.array(counts, int)


def class_accuracy(evaluation: Evaluation) -> Html:
    """The accuracy of each class: all, or the lowest, and all of them in a table."""
    rows = [each for each in evaluation.metrics["per_class"] if each["images"]]
    lowest = sorted(rows, key=lambda each: each["top1"])
    shown = lowest[:BARS]
    title = (
        "Accuracy by class, %" if len(rows) <= BARS else f"The {BARS} lowest of {len(rows):,} classes, accuracy in %"
    )
    bars = plot_bars(title, [each["class"] for each in shown], [100 * each["top1"] for each in shown], "top-1, %")
    body = [(each["class"], f"{each['images']:,}", f"{100 * each['top1']:.1f} %") for each in lowest]
    more = details(name_rows(len(rows), "lowest"), table(["class", "images", "top-1"], body[:CLASSES], numbers=True))
    return join([bars, more])


def calibration(evaluation: Evaluation) -> Html:
    means, accuracies, images = evaluation.predictions.bins()
    figure = plot_calibration("Calibration", 100 * means, 100 * accuracies, images)
    error, temperature = evaluation.metrics["calibration_error"], evaluation.metrics.get("temperature")
    words = f"Expected calibration error {100 * error:.2f} %. Below the dashed line, the network is too confident."
    hint = "" if temperature is None else f" A temperature of {temperature:.3g} gives the lowest loss on these images."
    return join([figure, tag("p", words, hint, class_="note")])


def worst_mistakes(record: RunRecord, evaluation: Evaluation) -> Html:
    """The images that the network gives a wrong class with the highest probability."""
    found = evaluation.predictions
    rows = found.mistakes[:WORST].tolist()
    if not rows:
        return tag("p", NO_MISTAKE, class_="note")
    note = f"{len(found.mistakes):,} of {len(found.targets):,} images are misclassified. The most confident first."
    return join(
        [tag("p", note, class_="note"), _sheet(find_images(record, evaluation), evaluation, rows, with_classes=True)]
    )


def confused_pairs(record: RunRecord, evaluation: Evaluation) -> Html:
    """The pairs of classes with the most mistakes, with the most confident ones of each."""
    found, names = evaluation.predictions, evaluation.classes
    wrong = found.mistakes
    images = find_images(record, evaluation)
    pairs = Counter(zip(found.targets[wrong].tolist(), found.classes[wrong].tolist(), strict=True))
    parts = []
    for (true, predicted), count in pairs.most_common(PAIRS):
        rows = wrong[(found.targets[wrong] == true) & (found.classes[wrong] == predicted)][:OF_PAIR].tolist()
        of_class = f": {count:,} of {int((found.targets == true).sum()):,}"
        title = tag("h3", names[true], " taken for ", names[predicted], of_class)
        parts.append(tag("div", title, _sheet(images, evaluation, rows, with_classes=False), class_="pair"))
    return tag("div", *parts, class_="pairs") if parts else tag("p", NO_MISTAKE, class_="note")


def cells(metrics: dict[str, Any]) -> list[str]:
    """Cells; of a suite of several sets, only the means of the accuracies are known."""
    if not isinstance(metrics["top1"], dict):
        return [_percent(metrics["top1"]), "", _percent(metrics["top5"]), "", ""]
    top1, loss = metrics["top1"], metrics.get("loss")
    interval = f"{100 * top1['low']:.2f} to {100 * top1['high']:.2f} %"
    error = metrics.get("calibration_error")
    cells = [_percent(top1["value"]), interval, _percent(metrics["top5"]["value"])]
    cells += ["" if loss is None else f"{loss:.4f}", "" if error is None else _percent(error)]
    return cells + ["" if value is None else f"{value:.4f}" for value in _named(metrics).values()]


def _named(metrics: dict[str, Any]) -> dict[str, float]:
    return metrics.get("named") or {}


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _most_confused(found: dict[tuple[int, int], int]) -> list[int]:
    """At most MATRIX classes, from the most frequent confusions; each class is beside the one it is confused with."""
    chosen: list[int] = []
    wrong = {pair: images for pair, images in found.items() if pair[0] != pair[1]}
    for pair in sorted(wrong, key=lambda pair: (-wrong[pair], pair)):
        fresh = [each for each in pair if each not in chosen]
        if len(chosen) + len(fresh) <= MATRIX:
            chosen += fresh
    return chosen


def read_mistakes(evaluation: Evaluation, rows: Sequence[int]) -> Iterator[Mistake]:
    found, names = evaluation.predictions, evaluation.classes
    for row in rows:
        true, predicted = names[int(found.targets[row])], names[int(found.classes[row])]
        yield Mistake(true, predicted, f"{100 * found.confidences[row]:.0f} %", bytes(found.paths[row]))


def _sheet(images: EvaluatedImages, evaluation: Evaluation, rows: Sequence[int], *, with_classes: bool) -> Html:
    cells = []
    for true, predicted, percent, path in read_mistakes(evaluation, rows):
        words = join([tag("b", true), f" taken for {predicted}, {percent}"] if with_classes else [percent])
        try:
            cells.append(thumbnail(images.pixels(path), words, alt=f"{true}, predicted as {predicted}"))
        except UnreadableImage as error:
            cells.append(tag("figure", tag("figcaption", words, tag("br"), f"{error.name}: {error.reason}")))
    return tag("div", *cells, class_="sheet")
