"""Checks every image file once, in the background: a truncated file ends a run early, not after its first epoch.

It takes 15 µs of CPU time per file (docs/performance.md). Only one rank checks. The result is saved with the index, so
that later starts check only the files that were damaged.
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
from resnext.data.image_file import looks_complete
from resnext.data.index import ImageIndex
from resnext.data.index_cache import load_damaged, read_stamp, save_damaged
from resnext.errors import UserError, describe_error
from resnext.files import atomic_write
from resnext.terminal import pluralize

THREADS = 8  # 16 are twice as fast on a network file system, but take twice as much time from the training's thread

log = logging.getLogger(__name__)


class Finding(NamedTuple):
    """The result for one split: the images that cannot be read, each with a line that says why."""

    split: str
    damaged: dict[int, str]


class ImageCheck:
    """Checks the validation images, then the training images; `report` raises or logs the result.

    Args:
        root, val_fraction: data.root and data.val_fraction, by which the index is cached.
        allowed: `data.max_skipped`, for the training images. No validation image may be damaged.
        listing: the file that gets a line for each damaged image; each start rewrites it.
    """

    def __init__(
        self,
        root: Path,
        train: ImageIndex,
        val: ImageIndex,
        allowed: int,
        listing: Path,
        val_fraction: float | None = None,
    ) -> None:
        self._index, self._splits = (root, val_fraction), {"validation": val, "training": train}
        # read before the check, during which another process may list the folder again; None if no folder was listed
        self._stamp = read_stamp(*self._index) if train.root != val.root or val_fraction is not None else None
        self._allowed, self._listing = {"validation": 0, "training": allowed}, listing
        self._lines: list[str] = []  # of the listing
        self._findings: queue.SimpleQueue[Finding | Exception] = queue.SimpleQueue()
        self._decoding = threading.Lock()  # decodes one image at a time: it may take 400 MB
        self._thread = threading.Thread(target=self._check_splits, daemon=True)

    def start(self) -> None:
        """Starts the threads; a second call does nothing. Call it from the main thread.

        The training's workers are forked before this call. The validation's workers are forked later, while the threads
        run. If a thread is importing a module during a fork, that import never ends in the child. So this method
        imports all plugins of PIL.
        """
        if self._thread.ident is None:
            Image.init()
            self._thread.start()

    def report(self) -> None:
        """Raises UserError if more images than allowed are damaged. The training calls this repeatedly."""
        while not self._findings.empty():
            finding = self._findings.get()
            if isinstance(finding, Exception):
                reason = finding if isinstance(finding, UserError) else describe_error(finding)
                log.warning("not every image was checked: %s", reason)
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
            log.warning("%s cannot be read and will be skipped; see %s", count, self._listing)
            return
        if len(damaged) > 1:
            reason = f"{count} cannot be read ({self._listing} lists them); {reason}"
        if split == "training":
            reason += f"; data.max_skipped={len(damaged)} would skip {count}"
        raise UserError(reason)

    def _check_splits(self) -> None:
        try:
            known = load_damaged(*self._index, self._stamp)
            for split, index in self._splits.items():
                damaged = self._find_damaged(index, known.get(split, range(len(index))))
                self._findings.put(Finding(split, damaged))
                known[split] = list(damaged)
                save_damaged(*self._index, self._stamp, known)
        except Exception as error:  # for example an error of the storage, which the training will find too
            self._findings.put(error)

    def _find_damaged(self, index: ImageIndex, images: Iterable[int]) -> dict[int, str]:
        """Uses daemon threads, not a ThreadPoolExecutor: they end with the process even if the storage hangs."""
        todo, damaged, failures = iter(images), dict[int, str](), list[Exception]()

        def check() -> None:
            try:
                for image in todo:
                    reason = self._why_damaged(index, image)
                    if reason is not None:
                        damaged[image] = reason
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=check, daemon=True) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return dict(sorted(damaged.items()))

    def _why_damaged(self, index: ImageIndex, image: int) -> str | None:
        """Why an image cannot be read; None if it can. Raises UserError if the storage fails."""
        with suppress(OSError, ValueError):
            if looks_complete(index.path(image)):
                return None
        try:
            with self._decoding:
                index.pixels(image)
        except UnreadableImage as error:
            if not error.is_damaged:
                raise
            return str(error)
        return None
