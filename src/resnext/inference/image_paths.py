"""Lists the image files that a user names: files, folders, patterns, or a list on standard input. Imports no torch."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from pathlib import Path

from resnext.data.scan import IMAGE_SUFFIXES
from resnext.errors import UserError

STDIN = "-"  # the lines of standard input


def find_images(arguments: list[str]) -> Iterator[str]:
    """Yields image files in the order of `arguments`; the files of a folder in the order of their names.

    An argument is a file, whatever its suffix; a folder, which gives the images in it and in its subfolders, except
    hidden ones; a pattern such as `photos/*.jpg`; or `-`, which gives the files and folders in the lines of stdin.

    Raises:
        UserError: for an argument that does not exist, at once; for a folder without images, when it is reached.
    """
    for argument in arguments:
        found = argument == STDIN or os.path.lexists(argument) or any(True for _ in _match(argument))
        if not found:
            raise UserError(f"{argument} does not exist: give image files, folders, patterns ('photos/*.jpg'), or -")
    return _expand(arguments)


def _expand(arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        if argument == STDIN:
            yield from _expand_lines(TextIOWrapper(sys.stdin.buffer, "utf-8", "surrogateescape"))
        elif os.path.lexists(argument):  # a name may look like a pattern
            yield from _expand_path(argument)
        else:
            for path in sorted(_match(argument)):
                yield from _expand_path(path)


def _match(pattern: str) -> Iterator[str]:
    return glob.iglob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern


def _expand_lines(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if path := line.rstrip("\r\n"):
            yield from _expand_path(path)


def _expand_path(path: str) -> Iterator[str]:
    if not Path(path).is_dir():
        yield path
        return
    images = _walk(path)
    first = next(images, None)
    if first is None:
        raise UserError(f"{path} has no images ({', '.join(IMAGE_SUFFIXES)}), nor have its subfolders")
    yield first
    yield from images


def _walk(folder: str) -> Iterator[str]:
    """The images below `folder`. Only one folder's names at a time are in memory, not those of a million files."""
    with os.scandir(folder) as entries:
        names = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    for name, is_folder in names:
        path = os.path.join(folder, name)
        if is_folder:
            yield from _walk(path)
        elif name.lower().endswith(IMAGE_SUFFIXES):
            yield path
