"""Predictor: the most likely classes of images outside a dataset, with their probabilities."""

import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from resnext.data.augment import build_eval_transform, normalize
from resnext.data.decode import UnreadableImage, decode_image, to_rgb, unreadable
from resnext.data.image_file import read_image_file
from resnext.data.index import printable
from resnext.data.loader import ImageLoader, prepare_reader
from resnext.data.worker_watchdog import LoaderFailed
from resnext.errors import RunFailed, UserError
from resnext.inference.network import TrainedNetwork, open_network
from resnext.inference.outputs import check_finite

SECONDS_PER_BATCH = 86_400.0  # the list of paths may come slowly, from another program

ImageLike = str | Path | Image.Image | np.ndarray


class ClassProbability(NamedTuple):
    """A class and its probability, in [0, 1]."""

    name: str
    probability: float


class Prediction(NamedTuple):
    """The most likely classes of an image, in this order; or the reason why the image cannot be read."""

    path: str
    guesses: list[ClassProbability]
    error: str | None = None


class Predictor:
    """The network of a run, with the run's own preprocessing and class names.

        predictor = Predictor.from_run("runs/main")
        for guesses in predictor(["photos/a.jpg", Image.open("b.png")], topk=3):
            print(guesses[0].name, guesses[0].probability)

    The network computes in float32, on the first GPU if there is one, else on the CPU.
    """

    def __init__(self, trained: TrainedNetwork, device: str | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.metadata = trained.metadata
        network = trained.network
        self.network = network.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.transform = build_eval_transform(self.metadata.evaluation, self.metadata.image_size)

    @classmethod
    def from_run(cls, path: str | Path, device: str | None = None) -> Self:
        """`path` is a run directory, whose best.ckpt is read, or a file of `load_network`. Raises UserError."""
        return cls(open_network(Path(path)), device)

    def __call__(self, images: Sequence[ImageLike], topk: int = 5) -> list[list[ClassProbability]]:
        """The `topk` most likely classes of each image: a path, a PIL image, or a uint8 array [height, width, 3].

        Raises:
            UserError: for an image that cannot be read, an array of another kind, and a `topk` below 1.
        """
        if isinstance(images, str | Path) or topk < 1:
            raise UserError("give a list of images, and a topk of 1 or more")
        if not images:
            return []
        try:
            pixels = torch.stack([torch.from_numpy(self.transform(_pixels(image))) for image in images])
        except UnreadableImage as error:
            raise UserError(f"{error.name} cannot be read as an image: {error.reason}") from error
        return self.rank(self.probabilities(pixels), topk)

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """Transformed pixels uint8 [N, size, size, 3] → float32 [N, classes] on the CPU. Each row has the sum 1.

        Raises:
            UserError: if the images do not fit in the memory of the device.
        """
        try:
            images = normalize(pixels.to(self.device, non_blocking=True), self.metadata)
            logits = self.network(images).float()
            check_finite(logits, "the network")
            return logits.softmax(dim=1).cpu()
        except torch.OutOfMemoryError as error:
            raise UserError(f"{len(pixels)} images do not fit in the memory of {self.device}: give fewer") from error

    def rank(self, probabilities: Tensor, topk: int) -> list[list[ClassProbability]]:
        names = self.metadata.classes
        values, labels = probabilities.topk(min(topk, len(names)), dim=1)
        return [
            [ClassProbability(names[label], value) for label, value in zip(*row, strict=True)]
            for row in zip(labels.tolist(), values.tolist(), strict=True)
        ]

    def predict_files(
        self, paths: Iterable[str], *, batch_size: int, workers: int, topk: int = 5
    ) -> Generator[list[Prediction]]:
        """Yields the predictions of each batch, in the order of `paths`. A file that cannot be read has an error.

        `paths` may be longer than memory: only the batches that the workers prepare are held.

        Raises:
            RunFailed: if a worker was killed.
        """
        loader = ImageLoader(
            _Files(self.transform),
            batch_sampler=_batches(paths, batch_size),
            worker_timeout=SECONDS_PER_BATCH,
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=prepare_reader,
        )
        try:
            for paths_of_batch, pixels, errors in loader:
                guesses = iter(self.rank(self.probabilities(pixels), topk) if len(pixels) else ())
                yield [
                    Prediction(path, [], error) if error is not None else Prediction(path, next(guesses))
                    for path, error in zip(paths_of_batch, errors, strict=True)
                ]
        except LoaderFailed as error:
            raise RunFailed(
                "a process that decodes images was killed: if memory ran out, give a lower --batch-size"
            ) from error


class _Files(Dataset[Any]):
    """Paths → the paths, transformed pixels uint8 [readable, size, size, 3], and an error or None for each path."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __getitems__(self, paths: list[str]) -> tuple[list[str], Tensor, list[str | None]]:
        pixels: list[Tensor] = []
        errors: list[str | None] = []
        for path in paths:
            try:
                pixels.append(torch.from_numpy(self.transform(_pixels(path))))
                errors.append(None)
            except UnreadableImage as error:
                errors.append(error.reason)
        return paths, torch.stack(pixels) if pixels else torch.empty(0), errors


def _pixels(image: ImageLike) -> np.ndarray:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UserError(f"an image array must be uint8 [height, width, 3], not {image.dtype} {list(image.shape)}")
        return image
    if isinstance(image, Image.Image):
        try:
            return to_rgb(image)
        except (OSError, ValueError) as error:
            raise unreadable(str(getattr(image, "filename", "") or "the image"), error) from error
    name = printable(str(image).encode(errors="surrogateescape"))
    try:
        content = read_image_file(Path(image))
    except (OSError, ValueError) as error:
        raise unreadable(name, error) from error
    return decode_image(content, name)


def _batches(paths: Iterable[str], size: int) -> Iterator[list[str]]:
    paths = iter(paths)
    while batch := list(itertools.islice(paths, size)):
        yield batch
