"""Lists the image files that a user names: files, folders, patterns, or a list on standard input. Imports no torch."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from io import TextIOWrapper

from resnext.data.class_folders import IMAGE_SUFFIXES
from resnext.errors import UserError

STDIN = "-"  # the lines of standard input


def find_images(arguments: list[str]) -> Iterator[str]:
    """Yields image files in the order of `arguments`; the files of a folder in the order of their names.

    An argument is a file, whatever its suffix; a folder, which gives the images in it and in its subfolders, except
    hidden ones; a pattern such as `photos/*.jpg`; or `-`, which gives the files and folders in the lines of stdin. A
    path that cannot be listed is yielded like a file: the code that reads it reports the reason.

    Raises:
        UserError: for an argument that does not exist, and for a folder without images.
    """
    for argument in arguments:
        if argument == STDIN:
            continue
        if not os.path.lexists(argument) and next(_match(argument), None) is None:
            raise UserError(
                f"'{argument}' does not exist: give image files, folders, patterns in quotes ('photos/*.jpg'), or -"
            )
        if os.path.isdir(argument) and next(_expand_path(argument), None) is None:  # noqa: PTH112 - as in _expand_path
            raise UserError(f"{argument} and its subfolders have no images ({', '.join(IMAGE_SUFFIXES)})")
    return _expand(arguments)


def _expand(arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        if argument == STDIN:
            for line in TextIOWrapper(sys.stdin.buffer, "utf-8", "surrogateescape", newline="\n"):
                if path := line.rstrip("\r\n"):
                    yield from _expand_path(path)
        elif os.path.lexists(argument):  # a name may look like a pattern
            yield from _expand_path(argument)
        else:
            for path in sorted(_match(argument)):
                yield from _expand_path(path)


def _match(pattern: str) -> Iterator[str]:
    """With `**`, only files: it matches a folder and all that is in the folder."""
    found = glob.iglob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    return (path for path in found if "**" not in pattern or not os.path.isdir(path))  # noqa: PTH112


def _expand_path(path: str) -> Iterator[str]:
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for a name that is too long
        yield from _walk(path, ())
    else:
        yield path


def _walk(folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """The images below `folder`. Only the names of the folders on the way are in memory, not those of all files.

    `above` identifies these folders: a link to one of them is not followed.
    """
    try:
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        with os.scandir(folder) as entries:
            names = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    except OSError:
        yield folder
        return
    if here in above:
        return
    for name, is_folder in names:
        path = os.path.join(folder, name)
        if is_folder:
            yield from _walk(path, (*above, here))
        elif name.lower().endswith(IMAGE_SUFFIXES):
            yield path
