"""Every image file is looked at once, in the background: a truncated one ends a run early, not after its first epoch.

It takes 15 µs of CPU time a file (docs/performance.md). Only one rank looks, and what it found is kept with the index,
so that later starts look at nothing but what was bad.
"""

import logging
import queue
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from resnext.data.decode import UnreadableImage
from resnext.data.image_file import looks_whole
from resnext.data.index import ImageIndex
from resnext.data.index_cache import keep_damaged, load_damaged, read_stamp
from resnext.errors import UserError, describe_error
from resnext.files import atomic_write
from resnext.terminal import pluralize

THREADS = 8  # 16 are twice as fast on a network file system, and take twice as much time from the training's thread

log = logging.getLogger(__name__)


class Finding(NamedTuple):
    """What one split was found to hold: the images that cannot be read, each with a line that says why."""

    split: str
    damaged: dict[int, str]


class ImageCheck:
    """Looks at the validation images, then at the training images; `report` says what was found.

    Args:
        root: the folder that both splits are in.
        allowed: `data.max_skipped`. Of the validation images none may be damaged.
        listing: the file that gets a line for each damaged image; each start writes it anew.
    """

    def __init__(self, root: Path, train: ImageIndex, val: ImageIndex, allowed: int, listing: Path) -> None:
        self._root, self._splits = root, {"validation": val, "training": train}
        # now: another process may list the folder anew while this one looks; None if no folder was listed
        self._stamp = read_stamp(root) if train.root != val.root else None
        self._allowed, self._listing = {"validation": 0, "training": allowed}, listing
        self._lines: list[str] = []  # of the listing
        self._findings: queue.SimpleQueue[Finding | Exception] = queue.SimpleQueue()
        self._decoding = threading.Lock()  # one image at a time, whatever its size
        self._thread = threading.Thread(target=self._look_at_splits, daemon=True)

    def start(self) -> None:
        """Starts the threads. To be called again and again, from the main thread.

        The training's loader processes are forked before, the validation's later, while the threads run. An import that
        a thread has begun at a fork never ends in the child, so all plugins of PIL are imported here.
        """
        if self._thread.ident is None:
            Image.init()
            self._thread.start()

    def report(self) -> None:
        """Raises UserError if more images than allowed are damaged. The training calls it again and again."""
        while not self._findings.empty():
            finding = self._findings.get()
            if isinstance(finding, Exception):
                reason = finding if isinstance(finding, UserError) else describe_error(finding)
                log.warning("not every image was looked at: %s", reason)
            elif finding.damaged:
                self._report(*finding)

    def _report(self, split: str, damaged: dict[int, str]) -> None:
        self._lines += damaged.values()
        try:
            atomic_write(self._listing, "".join(f"{line}\n" for line in self._lines))
        except OSError as error:
            log.warning("%s cannot be written: %s", self._listing, error)
        reason, count = next(iter(damaged.values())), pluralize(len(damaged), f"{split} image")
        if len(damaged) <= self._allowed[split]:
            log.warning("%s cannot be read and will be left out: %s", count, self._listing)
            return
        if len(damaged) > 1:
            reason = f"{count} cannot be read ({self._listing} lists them); {reason}"
        if split == "training":
            reason += f"; data.max_skipped={len(damaged)} would leave {count} out"
        raise UserError(reason)

    def _look_at_splits(self) -> None:
        try:
            known = load_damaged(self._root, self._stamp)
            for split, index in self._splits.items():
                damaged = self._look_at(index, known.get(split, range(len(index))))
                self._findings.put(Finding(split, damaged))
                known[split] = list(damaged)
                keep_damaged(self._root, self._stamp, known)
        except Exception as error:  # for example storage that fails, which the training finds out itself
            self._findings.put(error)

    def _look_at(self, index: ImageIndex, images: Iterable[int]) -> dict[int, str]:
        """On threads that end with the process, even if the storage hangs, as those of a ThreadPoolExecutor do not."""
        todo, damaged, failures = iter(images), dict[int, str](), list[Exception]()

        def look() -> None:
            try:
                for image in todo:
                    reason = self._why_damaged(index, image)
                    if reason is not None:
                        damaged[image] = reason
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=look, daemon=True) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return dict(sorted(damaged.items()))

    def _why_damaged(self, index: ImageIndex, image: int) -> str | None:
        """Raises UserError if the storage fails."""
        with suppress(OSError, ValueError):
            if looks_whole(index.path(image)):
                return None
        try:
            with self._decoding:
                index.pixels(image)
        except UnreadableImage as error:
            if not error.is_damaged:
                raise
            return str(error)
        return None
