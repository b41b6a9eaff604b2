"""Finds images that are twice in a dataset: the same bytes, or almost the same picture.

Two pictures are almost the same if their very small grey pictures are. Only pairs with an equal part of a hash are
compared: the hash has one bit for each two neighbours in a row of the grey picture, whether the right one is clearly
brighter (difference hash). Of 60 photographs and their copies of half the size, at JPEG quality 60, 3 of the 256 bits
differed (median; at most 10) and 0.2 levels of grey (at most 0.4). Other photographs differed by 9 levels or more.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from resnext.check.looks import Look

LEVELS = 3.0  # the grey pictures differ by at most so many of 255 levels, in the mean
BRIGHTER = 2  # levels
CONTRAST = 4.0  # a picture with a lower standard deviation has nothing to compare
MANY = 64  # a part that more pictures share says nothing


class Pair(NamedTuple):
    """Two positions in the list of looks. `is_same`: the files have the same bytes."""

    one: int
    other: int
    is_same: bool


def find_pairs(looks: Sequence[Look]) -> list[Pair]:
    """Each image with the first image that it repeats, in the order of the looks."""
    first: dict[bytes, int] = {}
    same = {}
    for position, look in enumerate(looks):
        if first.setdefault(look.digest, position) != position:
            same[position] = first[look.digest]
    alone = [position for position in range(len(looks)) if position not in same]
    near: dict[int, int] = {}
    for one, other in sorted(_near(looks, alone)):
        near.setdefault(other, near.get(one, one))
    return sorted(
        [Pair(one, other, True) for other, one in same.items()]
        + [Pair(one, other, False) for other, one in near.items()]
    )


def _near(looks: Sequence[Look], positions: list[int]) -> set[tuple[int, int]]:
    """Pairs of pictures that are almost the same."""
    chosen = [each for each in positions if looks[each].greys.std() >= CONTRAST]
    if len(chosen) < 2:
        return set()
    greys = np.stack([looks[each].greys for each in chosen]).astype(np.int16)
    brighter = greys[:, :, 1:] - greys[:, :, :-1] > BRIGHTER
    hashes = np.packbits(brighter.reshape(len(chosen), -1), axis=1)
    pairs = set(_candidates(hashes))
    return {(chosen[a], chosen[b]) for a, b in pairs if np.abs(greys[a] - greys[b]).mean() <= LEVELS}


def _candidates(hashes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of rows of uint8 [N, 32] that have a part of 32 bits in common."""
    for part in np.ascontiguousarray(hashes).view(np.uint32).T:
        groups = defaultdict(list)
        for position, value in enumerate(part.tolist()):
            groups[value].append(position)
        for group in groups.values():
            if 1 < len(group) <= MANY:
                yield from combinations(group, 2)
