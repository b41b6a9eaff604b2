"""An evaluation as files: NAME.json with all metrics, and NAME.npz with the predictions for each image."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from resnext.files import atomic_write
from resnext.inference.evaluate import SetResult
from resnext.inference.evaluation_metrics import EvaluationMetrics, Interval, class_hits, count_confusions

TOPS = ("top1", "top5")


def to_plain(about: dict[str, Any], results: list[SetResult], classes: tuple[str, ...]) -> dict[str, Any]:
    """The content of NAME.json: `about`, and the metrics of each network.

    A suite of several sets has the metrics of each set in `sets`, and the mean of their accuracies in `networks`.
    """
    if len(results) == 1:
        (result,) = results
        networks = {name: _plain(each) | _by_class(result, name, classes) for name, each in result.metrics.items()}
        return {**about, "images": _counted(result), "networks": networks}
    sets = [
        {"name": each.images.name, "networks": {name: _plain(found) for name, found in each.metrics.items()}}
        for each in results
    ]
    means = {
        name: {top: float(np.mean([getattr(each.metrics[name], top).value for each in results])) for top in TOPS}
        for name in results[0].metrics
    }
    return {**about, "images": sum(map(_counted, results)), "networks": means, "sets": sets}


def write_evaluation(path: Path, content: dict[str, Any], results: list[SetResult]) -> None:
    """Writes `path`.json and `path`.npz, and creates their folder. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = io.BytesIO()
    np.savez_compressed(arrays, allow_pickle=False, **_rows(results))
    atomic_write(path.with_name(f"{path.name}.npz"), arrays.getvalue())
    atomic_write(path.with_name(f"{path.name}.json"), json.dumps(content) + "\n")


def _rows(results: list[SetResult]) -> dict[str, np.ndarray]:
    """One row for each image, in the order of the sets and their images.

    `paths` are bytes, relative to the folder of the images; those of a suite of several sets begin with the set's name.
    `targets` int64 [N] is -1 if an image has several correct classes. For each network, `ema_classes` int64 [N, 5] and
    `ema_probabilities` float32 [N, 5], or `raw_…`: the most likely classes, and their probabilities.
    """
    paths = [
        (f"{each.images.name}/".encode() if each.images.name else b"") + each.images.listed.relative_path(image)
        for each in results
        for image in range(len(each.images.listed))
    ]
    rows = {"paths": np.array(paths), "targets": np.concatenate([each.images.targets for each in results])}
    for name in results[0].outputs:
        rows[f"{name}_classes"] = np.concatenate([each.outputs[name].labels for each in results])
        rows[f"{name}_probabilities"] = np.concatenate([each.outputs[name].probabilities for each in results])
    return rows


def _counted(result: SetResult) -> int:
    return next(iter(result.metrics.values())).images


def _plain(metrics: EvaluationMetrics) -> dict[str, Any]:
    return {name: _number(value) for name, value in metrics._asdict().items()}


def _number(value: Any) -> Any:
    """JSON has neither NaN nor infinity: a network that diverged has such a loss."""
    if isinstance(value, dict):
        return {name: _number(each) for name, each in value.items()}
    if isinstance(value, Interval):
        return value._asdict()
    return value if value is None or math.isfinite(value) else None


def _by_class(result: SetResult, name: str, classes: tuple[str, ...]) -> dict[str, Any]:
    """The accuracy of each class, and [target, predicted class, images] for each pair that occurs."""
    targets, outputs = result.images.targets, result.outputs[name]
    if result.images.accepted.shape[1] > 1:
        return {}
    images, hits = class_hits(outputs, targets, len(classes))
    per_class = [
        {"class": each, "images": int(count), "top1": int(hit) / int(count) if count else None}
        for each, count, hit in zip(classes, images, hits, strict=True)
    ]
    return {"per_class": per_class, "confusion": count_confusions(outputs, targets)}
