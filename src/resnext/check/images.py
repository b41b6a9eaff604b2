"""What a check says about the images: how many each class has, which cannot be read, which are there twice."""

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from resnext.check.duplicates import find_pairs
from resnext.check.finding import Finding
from resnext.check.looks import Look, look_at
from resnext.config.schema import Config
from resnext.data.index import ImageIndex, printable
from resnext.terminal import first_three, pluralize

FEW = 10  # training images of a class
IMBALANCE = 10  # the largest class has so many times the images of the smallest


def check_images(config: Config, train: ImageIndex, val: ImageIndex, *, full: bool) -> Iterator[Finding]:
    """Reads a sample of the image files, or with `full` all of them."""
    classes = pluralize(len(train.classes), "class", "classes")
    yield Finding("ok", "images", f"{len(train):,} for training and {len(val):,} for validation, {classes}")
    yield from _check_classes(train, val)
    looks = look_at(train, val, full=full)
    files = _Files((train, val), looks)
    yield from files.check_readable(config.data.max_skipped)
    yield from files.check_sizes(config.recipe.image_size)
    yield from files.check_copies()


def _check_classes(train: ImageIndex, val: ImageIndex) -> Iterator[Finding]:
    if len(train.classes) == 1:
        text = f"{train.root} has one class, {_shown(train.classes)}"
        yield Finding("fail", "classes", text, "give at least two folders of classes")
        return
    counts = np.bincount(train.labels, minlength=len(train.classes))
    smallest, largest = int(counts.min()), int(counts.max())
    few = [name for name, count in zip(train.classes, counts, strict=True) if count < FEW]
    if few:
        text = f"fewer than {FEW} training images, the fewest {smallest} ({_shown(few)})"
        text = f"{pluralize(len(few), 'class has', 'classes have')} {text}"
        yield Finding("warn", "classes", text, "add images, or leave these classes out")
    if largest > IMBALANCE * smallest:
        text = f"the largest class has {largest:,} training images and the smallest {smallest:,}"
        remedy = "recipe.loss.class_weights=balanced weights them alike, and recipe.evaluation.metrics=[f1] reports F1"
        yield Finding("warn", "classes", text, remedy)
    unseen = val.find_empty_classes()
    if unseen:
        text = f"{pluralize(len(unseen), 'class has', 'classes have')} no validation images ({_shown(unseen)})"
        yield Finding("warn", "classes", text, "add validation images to them, or their accuracy stays unknown")
    if not few and not unseen and largest <= IMBALANCE * smallest:
        each = f"{smallest:,}" if smallest == largest else f"{smallest:,} to {largest:,}"
        yield Finding("ok", "classes", f"{each} training images each")


class _Place(NamedTuple):
    """An image by split (0: training, 1: validation), with its label. `name`: `val/cat/1.jpg`."""

    split: int
    label: int
    name: str


class _Copy(NamedTuple):
    one: _Place
    other: _Place
    is_same: bool

    def __str__(self) -> str:
        return f"{self.other.name} {'is' if self.is_same else 'looks like'} {self.one.name}"


class _Files:
    """The images that were read, of both splits."""

    def __init__(self, indexes: tuple[ImageIndex, ImageIndex], looks: tuple[list[Look], list[Look]]) -> None:
        self.indexes, self.looks = indexes, looks
        self.count = sum(map(len, looks))
        self.total = sum(map(len, indexes))
        self.readable = [(split, look) for split in (0, 1) for look in looks[split] if not look.error]

    @property
    def of(self) -> str:
        """`of 2,000 of 1,281,167 images`."""
        return f"of {self.count:,}" + (f" of {self.total:,} images" if self.count < self.total else " images")

    @property
    def more(self) -> str:
        return "" if self.count == self.total else "; --full reads every image"

    def check_readable(self, allowed: int) -> Iterator[Finding]:
        damaged = [(split, look) for split in (0, 1) for look in self.looks[split] if look.error]
        if not damaged:
            yield Finding("ok", "files", f"all {self.of} can be read{self.more}")
            return
        split, look = damaged[0]
        first = f"{self.indexes[split].name(look.image)} ({look.error})"
        in_training = sum(split == 0 for split, _ in damaged)
        can_skip = in_training == len(damaged) <= allowed
        text = f"{len(damaged):,} {self.of} cannot be read, the first is {first}"
        skip = f", or skip them (data.max_skipped={in_training})" if in_training == len(damaged) else ""
        yield Finding("warn" if can_skip else "fail", "files", text, f"replace or remove them{skip}{self.more}")

    def check_sizes(self, image_size: int) -> Iterator[Finding]:
        if not self.readable:
            return
        sizes = np.array([look.size for _, look in self.readable])
        width, height = np.median(sizes, axis=0).astype(int)
        small = int((sizes.min(axis=1) < image_size).sum())
        text = f"median {width}×{height} pixels, the training takes {image_size}"
        if 2 * small > len(sizes):
            text = f"{small:,} {self.of} are smaller than {image_size} pixels (median {width}×{height})"
            yield Finding("warn", "sizes", text, f"a recipe.image_size near {min(width, height)} costs less time")
        else:
            yield Finding("ok", "sizes", text)

    def check_copies(self) -> Iterator[Finding]:
        pairs = find_pairs([look for _, look in self.readable])
        copies = [_Copy(self._place(pair.one), self._place(pair.other), pair.is_same) for pair in pairs]
        leaks = [each for each in copies if each.one.split != each.other.split]
        contradictory = [each for each in copies if each.one.label != each.other.label]
        inside = [each for each in copies if each.one.split == each.other.split and each not in contradictory]
        for found, where, subject, remedy in (
            (leaks, "in training and validation", "leaks", "remove them from one, or the accuracy is overestimated"),
            (contradictory, "in two classes", "copies", "keep the right one"),
            (inside, "twice in a split", "copies", "remove the copies"),
        ):
            if found:
                text = f"{pluralize(len(found), 'image is', 'images are')} {where} ({found[0]})"
                yield Finding("warn", subject, text, f"{remedy}{self.more}")
        if not copies:
            yield Finding("ok", "copies", f"no copies among {self.of.removeprefix('of ')}")

    def _place(self, position: int) -> _Place:
        split, look = self.readable[position]
        index = self.indexes[split]
        name = os.fsencode(index.root.name) + b"/" + index.relative_path(look.image)
        return _Place(split, int(index.labels[look.image]), printable(name))


def _shown(names: Iterable[str]) -> str:
    return first_three([printable(os.fsencode(name)) for name in names])
