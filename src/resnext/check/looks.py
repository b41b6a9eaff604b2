"""Reads the image files once, or a sample of them: which cannot be read, their sizes, and what tells copies apart."""

import hashlib
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from resnext.data.cores import count_cores
from resnext.data.decode import UnreadableImage, decode_image
from resnext.data.index import ImageIndex
from resnext.terminal import progress

SAMPLE = 2000  # images of a split
SECONDS = 30.0  # for all splits
GREYS = (17, 16)  # width and height of the small picture that tells copies apart


class Look(NamedTuple):
    """What one image file looks like.

    Attributes:
        image: its position in the index.
        error: why it cannot be read; then the other fields have no meaning.
        size: width and height.
        digest: of the file's bytes.
        greys: uint8 [16, 17], the image as a very small grey picture.
    """

    image: int
    error: str = ""
    size: tuple[int, int] = (0, 0)
    digest: bytes = b""
    greys: np.ndarray = np.zeros(GREYS[::-1], np.uint8)


def look_at(train: ImageIndex, val: ImageIndex, *, full: bool) -> tuple[list[Look], list[Look]]:
    """Reads all images if `full`; else at most SAMPLE of each split, drawn at random, for at most SECONDS.

    The looks at each split are in the order of its images.
    """
    chosen = [_choose(index, full=full) for index in (train, val)]
    found: tuple[list[Look], list[Look]] = ([], [])
    until = None if full else time.monotonic() + SECONDS
    todo = _in_turn(chosen)
    with progress("reading images", sum(map(len, chosen))) as advance, ThreadPoolExecutor(count_cores()) as pool:
        waiting: deque[tuple[int, Future[Look]]] = deque()
        try:
            for split, image in todo:
                waiting.append((split, pool.submit(_look, (train, val)[split], image)))
                if len(waiting) > 2 * count_cores():
                    split, look = waiting.popleft()
                    found[split].append(look.result())
                    advance(1)
                if until is not None and time.monotonic() > until:
                    break
            for split, look in waiting:
                found[split].append(look.result())
        finally:
            pool.shutdown(cancel_futures=True)
    for looks in found:
        looks.sort(key=lambda look: look.image)
    return found


def _choose(index: ImageIndex, *, full: bool) -> np.ndarray:
    """The images to read, in random order: a sample that ends early is still a fair one."""
    order = np.random.default_rng(0).permutation(len(index))
    return order if full else order[:SAMPLE]


def _in_turn(chosen: list[np.ndarray]) -> Iterator[tuple[int, int]]:
    """(split, image), from all splits alike."""
    for position in range(max(map(len, chosen))):
        for split, images in enumerate(chosen):
            if position < len(images):
                yield split, int(images[position])


def _look(index: ImageIndex, image: int) -> Look:
    try:
        data = index.read(image)
        pixels = decode_image(data, index.name(image))
    except UnreadableImage as error:
        return Look(image, error=error.reason)
    height, width = pixels.shape[:2]
    greys = Image.fromarray(pixels).convert("L").resize(GREYS, Image.Resampling.BILINEAR)
    return Look(image, "", (width, height), hashlib.sha256(data).digest(), np.asarray(greys))
