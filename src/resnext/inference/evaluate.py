"""evaluate(job): the predictions of trained networks for sets of images, and their metrics."""

from collections import defaultdict
from typing import NamedTuple

from resnext.errors import RunFailed
from resnext.inference.evaluation_metrics import EvaluationMetrics, compute_metrics
from resnext.inference.forward import EvaluationJob, compute_outputs
from resnext.inference.image_sets import ImageSet
from resnext.inference.outputs import Outputs
from resnext.runtime.signals import StopRequest
from resnext.terminal import progress


class SetResult(NamedTuple):
    """The predictions for one set of images and their metrics, for each network: `ema`, `raw` or both."""

    images: ImageSet
    outputs: dict[str, Outputs]
    metrics: dict[str, EvaluationMetrics]


def evaluate(job: EvaluationJob, processes: int = 1) -> list[SetResult]:
    """Evaluates every image once, in batches that are the same for any number of processes. Writes nothing.

    Raises:
        UserError, RunFailed: see `compute_outputs`.
        Interrupted: at a signal.
    """
    batches = job.batches()
    found: dict[int, dict[str, Outputs]] = {}
    images = sum(len(batch) for _, batch in batches)
    with StopRequest().received(deferred=False), progress("evaluating", images) as advance:
        for number, outputs in compute_outputs(job, min(processes, len(batches))):
            found[number] = outputs
            advance(len(batches[number][1]))
    parts: dict[int, dict[str, list[Outputs]]] = defaultdict(lambda: defaultdict(list))
    for number, (which, _) in enumerate(batches):
        for name, outputs in found[number].items():
            parts[which][name].append(outputs)
    return [_join(images, parts[number], job.metrics) for number, images in enumerate(job.sets)]


def _join(images: ImageSet, parts: dict[str, list[Outputs]], names: tuple[str, ...]) -> SetResult:
    outputs = {name: Outputs.join(each) for name, each in parts.items()}
    for each in outputs.values():
        if len(each.losses) != len(images.listed):
            raise RunFailed(f"{len(images.listed):,} images were listed, but {len(each.losses):,} were evaluated")
    metrics = {name: compute_metrics(each, images.accepted, names) for name, each in outputs.items()}
    return SetResult(images, outputs, metrics)
