"""An evaluation as lines of text, for a terminal of 80 columns."""

import os
from collections.abc import Iterator
from pathlib import Path

from resnext.data.index import printable
from resnext.inference.evaluate import SetResult
from resnext.inference.evaluated_model import EvaluatedModel, EvaluationImages
from resnext.inference.evaluation_metrics import EvaluationMetrics, Interval, class_hits
from resnext.terminal import pluralize

NAMES = {"ema": "EMA weights", "raw": "trained weights"}


def describe_evaluation(
    model: EvaluatedModel, chosen: EvaluationImages, results: list[SetResult], *, flip: bool
) -> Iterator[str]:
    step = "" if model.step is None else f", step {model.step:,}"
    yield f"evaluated {printable(os.fsencode(model.checkpoint))}{step}"
    yield from _describe_images(model, chosen, results, flip=flip)
    for name in results[0].metrics:
        metrics = [each.metrics[name] for each in results]
        title = NAMES[name] if model.step is not None else "weights of the file"
        if len(metrics) > 1:
            yield f"{title}, mean of {len(metrics)} sets"
            yield from _describe_means(metrics)
        else:
            yield title
            yield from _describe_metrics(metrics[0])
            yield from _describe_lowest_classes(results[0], name, model.metadata.classes)


def _describe_images(
    model: EvaluatedModel, chosen: EvaluationImages, results: list[SetResult], *, flip: bool
) -> Iterator[str]:
    images = pluralize(sum(next(iter(each.metrics.values())).images for each in results), "image")
    split = ", split test" if chosen.name.startswith("test") else ""
    mirrored = ", with mirror images" if flip else ""
    yield f"images    {images} of {model.metadata.image_size} pixels{split}{mirrored}"
    if chosen.elsewhere is None:
        return
    own = "" if model.run is None else ", not the run's own"
    yield f"folder    {printable(os.fsencode(chosen.elsewhere))}{own}"
    if model.data.val_fraction is not None and chosen.elsewhere == Path(model.data.root):  # no val/ in it
        yield f"          only the images that data.val_fraction={model.data.val_fraction:g} holds out"


def _describe_metrics(found: EvaluationMetrics) -> Iterator[str]:
    yield f"  top-1   {_percent(found.top1)}"
    if found.top5.value < 1:  # else there may be five classes or fewer
        yield f"  top-5   {_percent(found.top5)}"
    if found.loss is not None:
        yield f"  loss    {found.loss:.4f}"
    hint = "" if found.temperature is None else f"; a temperature of {found.temperature:.3g} gives the lowest loss"
    yield f"  calibration error {100 * found.calibration_error:.2f} %{hint}"
    yield from (f"  {name:7} {value:.4f}" for name, value in found.named.items())


def _describe_means(metrics: list[EvaluationMetrics]) -> Iterator[str]:
    for name, top in (("top-1", "top1"), ("top-5", "top5")):
        yield f"  {name}   {100 * sum(getattr(each, top).value for each in metrics) / len(metrics):.2f} %"


def _describe_lowest_classes(result: SetResult, name: str, classes: tuple[str, ...]) -> Iterator[str]:
    """The three classes with the lowest accuracy; all classes are in the JSON file."""
    images, hits = class_hits(result.outputs[name], result.images.targets, len(classes))
    counts = zip(classes, images.tolist(), hits.tolist(), strict=True)
    ranked = sorted((hit / count, each) for each, count, hit in counts if count)
    if len(ranked) > 1:
        lowest = ", ".join(f"{printable(os.fsencode(each))[:16]} {100 * top1:.0f} %" for top1, each in ranked[:3])
        yield f"  lowest of {len(ranked):,} classes: {lowest}"


def _percent(interval: Interval) -> str:
    low, high = (f"{100 * each:.2f}" for each in (interval.low, interval.high))
    return f"{100 * interval.value:.2f} %, 95 % interval {low} to {high} %"
