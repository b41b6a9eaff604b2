"""Compares the speed of the data path with torchvision's and timm's own code, on the same bytes and the same core."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm.data
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

from resnext.config.data import DataConfig
from resnext.config.recipe import OptimizerConfig, RecipeConfig
from resnext.data.augment import build_train_transforms
from resnext.data.class_folders import IMAGE_SUFFIXES
from resnext.data.dataset import TrainImages
from resnext.data.decode import JPEG_START
from resnext.data.image_file import read_image_file
from resnext.data.index import ImageIndex
from resnext.data.loader import ImageLoader
from resnext.data.pack import is_pack, load_pack
from resnext.data.sampler import Sample
from resnext.errors import UserError
from resnext.terminal import progress

SIZE = 224
IMAGES = 200  # how many are timed; they are in memory, so no disk is timed
ROUNDS = 11
BATCH = 64
LOADER_IMAGES = 1024
LOADER_ROUNDS = 3
WORKER_TIMEOUT = 300.0  # seconds, as data.worker_timeout
REFERENCE = "pil_torchvision"
PACKED = "ours_packed"

Pipeline = Callable[[bytes], Any]


class Timing(NamedTuple):
    """CPU milliseconds per image, the speed as a multiple of the reference's, and the quartiles of this ratio."""

    milliseconds: float
    ratio: float
    quartiles: tuple[float, float]


class LoaderSpeed(NamedTuple):
    """Wall-clock speed of a DataLoader, its ratio to the reference's, and the bytes per image that a worker sends."""

    images_per_sec: float
    ratio: float
    bytes_per_image: int


@dataclass(frozen=True)
class HeldImages(ImageIndex):
    """An index that holds the image files in memory."""

    files: tuple[bytes, ...]

    def read(self, image: int) -> bytes:
        return self.files[image]


def read_jpegs(folder: Path) -> HeldImages:
    """At most IMAGES JPEG files, evenly spaced over the images below `folder` or in the pack `folder`.

    Other formats are skipped.

    Raises:
        UserError: if there are none.
    """
    if is_pack(folder):
        index = load_pack(folder)[0]
        chosen = _evenly(range(len(index)))
        files = [index.read(image) for image in chosen]
    else:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        files = [read_image_file(path) for path in _evenly(paths) if path.is_file()]
    files = tuple(data for data in files if _is_plain_jpeg(data))
    if not files:
        raise UserError(f"--images {folder} has no JPEG files: give a folder of photos, or a pack")
    labels, nothing = np.zeros(len(files), np.int64), np.zeros(len(files) + 1, np.int64)
    return HeldImages(folder, ("image",), labels, np.empty(0, np.uint8), nothing, files)


def time_pipelines(images: HeldImages, packed: HeldImages | None) -> dict[str, Timing]:
    """CPU time on one core, from bytes to the pixels of a training crop.

    The pipelines take turns, so that a change in the machine's speed affects all of them. A ratio compares the times of
    one turn; the result is the median ratio. `packed` is a second source of images for our pipeline, compared with the
    reference on `images`.
    """
    peers = {name: (build(), images.files) for name, build in PEERS.items()}
    pipelines = {"ours": (_ours(images), range(len(images))), **peers}
    if packed is not None:
        pipelines[PACKED] = (_ours(packed), range(len(packed)))
    times: dict[str, list[float]] = {name: [] for name in pipelines}
    with _one_core(), progress("timing", (ROUNDS + 1) * len(pipelines)) as advance:
        for turn in range(ROUNDS + 1):
            for name, (pipeline, items) in pipelines.items():
                taken = _cpu_milliseconds(pipeline, items)
                if turn:  # the first turn is a warm-up
                    times[name].append(taken)
                advance(1)
    return {name: _timing(own, times[REFERENCE]) for name, own in times.items()}


def time_loaders(images: HeldImages, workers: int) -> dict[str, LoaderSpeed]:
    """Wall-clock speed of our DataLoader and of the reference's, with `workers` workers each."""
    samples = [Sample(0, number % len(images), number // len(images)) for number in range(LOADER_IMAGES)]
    datasets: dict[str, Any] = {"ours": _our_dataset(images), REFERENCE: _PeerDataset(images.files, PEERS[REFERENCE]())}
    options: dict[str, Any] = {"batch_size": BATCH, "sampler": samples, "num_workers": workers}
    options["persistent_workers"] = workers > 0
    loaders = {
        "ours": ImageLoader(datasets["ours"], worker_timeout=WORKER_TIMEOUT, **options),
        REFERENCE: DataLoader(datasets[REFERENCE], **options),
    }
    speeds: dict[str, list[float]] = {name: [] for name in loaders}
    with progress("timing loaders", (LOADER_ROUNDS + 1) * len(loaders)) as advance:
        for turn in range(LOADER_ROUNDS + 1):
            for name, loader in loaders.items():
                began = time.perf_counter()
                for _ in loader:
                    pass
                if turn:
                    speeds[name].append(LOADER_IMAGES / (time.perf_counter() - began))
                advance(1)
    ratios = {name: [a / b for a, b in zip(own, speeds[REFERENCE], strict=True)] for name, own in speeds.items()}
    return {
        name: LoaderSpeed(statistics.median(own), statistics.median(ratios[name]), datasets[name][samples[0]][0].nbytes)
        for name, own in speeds.items()
    }


def _our_dataset(images: HeldImages) -> TrainImages:
    """The training dataset with random resized crop and flip."""
    recipe = RecipeConfig(epochs=1, batch_size=BATCH, image_size=SIZE, optimizer=OptimizerConfig(name="sgd", lr=0.1))
    data = DataConfig(name="image_folder", root=str(images.root))
    return TrainImages(images, None, recipe, data, build_train_transforms(recipe, data), 0)


def _ours(images: HeldImages) -> Callable[[int], Any]:
    dataset = _our_dataset(images)
    return lambda image: dataset[Sample(0, image)]


def _pil_torchvision() -> Pipeline:
    """The transforms of torchvision's and PyTorch's own ImageNet examples."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    return partial(_after_pillow, transform=transform)


def _torchvision_v2() -> Pipeline:
    """torchvision's fastest path: its decoder and its v2 transforms, uint8 throughout."""
    return partial(
        _after_torchvision,
        transform=v2.Compose([v2.RandomResizedCrop(SIZE, antialias=True), v2.RandomHorizontalFlip()]),
    )


def _timm() -> Pipeline:
    """The transforms of timm's create_loader with its prefetcher: uint8, normalised on the device."""
    transform: Any = timm.data.create_transform(SIZE, is_training=True, use_prefetcher=True, color_jitter=0.0)
    return partial(_after_pillow, transform=transform)


PEERS: dict[str, Callable[[], Pipeline]] = {
    REFERENCE: _pil_torchvision,
    "torchvision_v2": _torchvision_v2,
    "timm": _timm,
}


def _after_pillow(data: bytes, transform: Callable[..., Any]) -> Any:
    return transform(Image.open(BytesIO(data)).convert("RGB"))


def _after_torchvision(data: bytes, transform: Callable[..., Any]) -> Any:
    return transform(decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB))


class _PeerDataset(Dataset[Any]):
    def __init__(self, files: tuple[bytes, ...], pipeline: Pipeline) -> None:
        self.files, self.pipeline = files, pipeline

    def __getitem__(self, sample: Sample) -> tuple[Any, int]:
        return self.pipeline(self.files[sample.image]), 0


def _evenly(items: Any) -> list[Any]:
    """At most IMAGES of `items`, evenly spaced."""
    return [items[position] for position in np.linspace(0, len(items) - 1, min(IMAGES, len(items))).astype(int)]


def _is_plain_jpeg(data: bytes) -> bool:
    """Whether every peer can decode `data`."""
    if not data.startswith(JPEG_START):
        return False
    try:
        _after_torchvision(data, transform=lambda pixels: pixels)
    except RuntimeError:
        return False
    return True


def _cpu_milliseconds(pipeline: Callable[[Any], Any], items: Any) -> float:
    began = time.process_time()
    for item in items:
        pipeline(item)
    return 1000 * (time.process_time() - began) / len(items)


def _timing(own: list[float], reference: list[float]) -> Timing:
    ratios = [theirs / ours for ours, theirs in zip(own, reference, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return Timing(statistics.median(own), statistics.median(ratios), (low, high))


@contextmanager
def _one_core() -> Iterator[None]:
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)
