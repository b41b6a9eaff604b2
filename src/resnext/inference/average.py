"""Means of the weights of checkpoints: of one run (Izmailov et al. 2018) or of several (Wortsman et al. 2022)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from resnext.config.checkpoint_metadata import METADATA, CheckpointMetadata
from resnext.config.data import DataConfig
from resnext.config.schema import find_differences
from resnext.data.augment import build_eval_transform, normalize
from resnext.data.cores import count_workers
from resnext.data.dataset import EvalImages
from resnext.data.images import load_images
from resnext.data.index import ImageIndex, identify_data
from resnext.data.loader import MAX_EVAL_BATCH, ImageLoader, prepare_reader
from resnext.data.sampler import RankImages
from resnext.errors import UserError
from resnext.files import atomic_file, sync_folder
from resnext.inference.average_parts import Part
from resnext.inference.batch_statistics import find_batch_norms, recompute_statistics, training_batches
from resnext.inference.network import TrainedNetwork, Weights, load_own_network
from resnext.run.directory import Run
from resnext.runtime.checkpoint_io import save
from resnext.task.accuracy import EvaluationScores, Scores
from resnext.terminal import progress

NAMES = ("experiment", "recipe")  # keys of the metadata that may differ between two parts


class Trial(NamedTuple):
    """A step of a greedy soup: the scores with `part` added, and whether it was added."""

    part: Part
    scores: Scores
    is_added: bool


class Soup(NamedTuple):
    """An averaged network, its parts in the order of the sum, and its scores.

    `recomputed` is the number of images on which its batch statistics were computed; 0 if they are those of the parts.
    """

    trained: TrainedNetwork
    parts: list[Part]
    scores: Scores
    recomputed: int


def mean_of(parts: Sequence[Part], weights: Weights) -> TrainedNetwork:
    """The network with the mean of the parts' weights, on the CPU, with the metadata of the first part.

    Sums are in float64, in the order of the parts. Integer buffers, such as the number of batches in a batch norm, are
    those of the last part. One checkpoint at a time is in memory, beside the sum.

    Raises:
        UserError: if a file is damaged, has another network, other classes or another preprocessing than the first,
            or has weights that are not finite.
    """
    metadata: CheckpointMetadata | None = None
    total: dict[str, Tensor] = {}
    trained = None
    for part in parts:
        trained = load_own_network(part.run, part.path, weights)
        metadata = metadata or trained.metadata
        _check_same(part.path, trained.metadata, parts[0].path, metadata)
        for name, value in trained.network.state_dict().items():
            if not value.is_floating_point():
                total[name] = value
            elif not value.isfinite().all():
                raise UserError(f"{part.path} has values in {name} that are not finite: leave it out")
            else:
                total[name] = total[name].add_(value) if name in total else value.double()
    assert trained is not None
    assert metadata is not None
    means = {name: value / len(parts) if value.is_floating_point() else value for name, value in total.items()}
    trained.network.load_state_dict(means)  # rounds each mean once, to the type of the weight
    return trained._replace(metadata=metadata)


def _check_same(path: Path, found: CheckpointMetadata, first: Path, expected: CheckpointMetadata) -> None:
    """Raises UserError with the first difference of what the networks are and which images they take."""
    for key, theirs, ours in find_differences(expected.to_plain(), found.to_plain()):
        if key in NAMES:
            continue
        if key == "classes":
            shared = zip(ours, theirs, strict=False)
            at = next((at for at, (one, other) in enumerate(shared) if one != other), None)
            if at is None:
                ours, theirs = f"{len(ours):,} of them", f"{len(theirs):,}"
            else:
                key, ours, theirs = f"class {at}", repr(ours[at]), repr(theirs[at])
        raise UserError(
            f"{path} cannot be averaged with {first}: {key} is {ours} and not {theirs}; average checkpoints of one "
            "network, one list of classes and one preprocessing"
        )


class RunImages:
    """The images of a run and its augmentation: validates networks, and recomputes their batch statistics.

    Networks compute in float32, on the first GPU if there is one. Raises UserError if the images have changed.
    """

    def __init__(self, run: Run, metadata: CheckpointMetadata) -> None:
        self.config, self.metadata = run.config, metadata
        self.train, self.val = load_images(self.config.data)
        run.check_data(identify_data(self.train, self.val))
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def validate(self, trained: TrainedNetwork, name: str) -> Scores:
        """The scores on the validation images; `name` is for the progress bar."""
        network = self._on_device(trained)
        with _naming_memory(self.device), progress(f"validating {name}", len(self.val)) as advance:
            return measure_accuracy(network, self.metadata, self.val, self.config.data, self.device, advance)

    def recompute(self, trained: TrainedNetwork) -> int:
        """Recomputes the batch statistics; returns the number of images, 0 if the training had no batch norm."""
        frozen = self.config.model.freeze
        if not find_batch_norms(trained.network, frozen):
            return 0
        network = self._on_device(trained)
        with _naming_memory(self.device), progress("batch statistics", None) as advance:
            batches = training_batches(self.config, self.train, self.device, advance)
            return recompute_statistics(network, batches, frozen)

    def _on_device(self, trained: TrainedNetwork) -> nn.Module:
        return trained.network.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


@torch.inference_mode()
def measure_accuracy(
    network: nn.Module,
    metadata: CheckpointMetadata,
    images: ImageIndex,
    data: DataConfig,
    device: torch.device,
    advance: Callable[[int], None],
) -> Scores:
    """The scores of `network`, which is on `device` and in evaluation mode; each image counts once."""
    loader = ImageLoader(
        EvalImages(images, None, build_eval_transform(metadata.evaluation, metadata.image_size)),
        batch_size=MAX_EVAL_BATCH,
        sampler=RankImages(len(images), 0, 1),
        worker_timeout=data.worker_timeout,
        num_workers=count_workers(data),
        pin_memory=device.type == "cuda",
        worker_init_fn=prepare_reader,
    )
    scores = EvaluationScores().to(device)
    for pixels, targets in loader:
        scores.update(network(normalize(pixels.to(device, non_blocking=True), metadata)), targets.to(device))
        advance(len(targets))
    return scores.compute()


def whole_soup(trained: TrainedNetwork, parts: list[Part], images: RunImages, *, recompute: bool) -> Soup:
    """Validates `trained`, the mean of all parts, with the batch statistics recomputed if `recompute` is set."""
    recomputed = images.recompute(trained) if recompute else 0
    return Soup(trained, parts, images.validate(trained, "the average"), recomputed)


def greedy_soup(
    parts: Sequence[Part],
    scores: Sequence[Scores],
    weights: Weights,
    images: RunImages,
    *,
    recompute: bool,
    tell: Callable[[Trial], None],
) -> Soup:
    """Adds each part, the most accurate first, if the top-1 accuracy of the mean does not fall.

    `scores` are those of the parts. The first part stays as it is; the batch statistics of a mean are recomputed if
    `recompute` is set. `tell` gets each trial. (Wortsman et al. 2022, recipe 1)
    """
    ranked = sorted(range(len(parts)), key=lambda at: -scores[at].top1)
    first = parts[ranked[0]]
    soup = Soup(mean_of([first], weights), [first], scores[ranked[0]], recomputed=0)
    tell(Trial(first, soup.scores, is_added=True))
    for at in ranked[1:]:
        tried = [*soup.parts, parts[at]]
        trained = mean_of(tried, weights)
        recomputed = images.recompute(trained) if recompute else 0
        found = images.validate(trained, f"with {parts[at].name}")
        is_added = found.top1 >= soup.scores.top1
        tell(Trial(parts[at], found, is_added))
        if is_added:
            soup = Soup(trained, tried, found, recomputed)
    return soup


def write_average(trained: TrainedNetwork, output: Path, parts: Sequence[Part]) -> None:
    """Writes the file that `load_network` reads, with the names of the parts. It appears when it is complete.

    Raises:
        UserError: if it cannot be written, for example on a full disk.
    """
    state = {name: value.cpu().contiguous() for name, value in trained.network.state_dict().items()}
    content: dict[str, Any] = {
        "state_dict": state,
        METADATA: trained.metadata.to_plain(),
        "average_of": [f"{part.run.path.name}/{part.path.name}" for part in parts],
    }
    try:
        with atomic_file(output) as file:
            save(content, file)
        sync_folder(output.parent)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}; give another --output") from error


@contextmanager
def _naming_memory(device: torch.device) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(f"{MAX_EVAL_BATCH} images do not fit in the memory of {device}: use a larger GPU") from error
