"""evaluate(work): the predictions of trained networks for sets of images, and their metrics."""

from collections import defaultdict
from typing import NamedTuple

from resnext.errors import RunFailed
from resnext.inference.answers import Answers
from resnext.inference.forward import Pass, answer
from resnext.inference.image_sets import ImageSet
from resnext.inference.measures import Measures, measure
from resnext.runtime.signals import StopRequest
from resnext.terminal import progress


class SetResult(NamedTuple):
    """The predictions for one set of images and their metrics, for each network: `ema`, `raw` or both."""

    images: ImageSet
    answers: dict[str, Answers]
    measures: dict[str, Measures]


def evaluate(work: Pass, processes: int = 1) -> list[SetResult]:
    """Evaluates every image once, on any number of processes with the same result. Writes nothing.

    Raises:
        UserError, RunFailed: see `answer`.
        Interrupted: at a signal.
    """
    batches = work.batches()
    found: dict[int, dict[str, Answers]] = {}
    images = sum(len(batch) for _, batch in batches)
    with StopRequest().received(deferred=False), progress("evaluating", images) as advance:
        for number, answers in answer(work, min(processes, len(batches))):
            found[number] = answers
            advance(len(batches[number][1]))
    parts: dict[int, dict[str, list[Answers]]] = defaultdict(lambda: defaultdict(list))
    for number, (which, _) in enumerate(batches):
        for name, answers in found[number].items():
            parts[which][name].append(answers)
    return [_join(images, parts[number]) for number, images in enumerate(work.sets)]


def _join(images: ImageSet, parts: dict[str, list[Answers]]) -> SetResult:
    answers = {name: Answers.join(each) for name, each in parts.items()}
    for each in answers.values():
        if len(each.losses) != len(images.listed):
            raise RunFailed(f"{len(images.listed):,} images were listed, but {len(each.losses):,} were evaluated")
    return SetResult(images, answers, {name: measure(each, images.accepted) for name, each in answers.items()})
