"""The images of an evaluation, found again by the paths in its rows."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from resnext.config.data import register_ours
from resnext.data.decode import UnreadableImage
from resnext.data.images import load_other_images, load_split
from resnext.data.index import ImageIndex
from resnext.errors import UserError
from resnext.report.evaluation import Evaluation
from resnext.report.record import RunRecord


class EvaluatedImages:
    """The images of an evaluation, by the path that its rows have."""

    def __init__(self, index: ImageIndex) -> None:
        self._index = index
        self._places = {index.relative_path(image): image for image in range(len(index))}

    def pixels(self, path: bytes) -> np.ndarray:
        """uint8 [height, width, 3]. Raises UnreadableImage, also if the folder does not have the image any more."""
        if (image := self._places.get(path)) is None:
            raise UnreadableImage(str(self._index.root), "the image is not in this folder any more")
        return self._index.pixels(image)


def find_images(record: RunRecord, evaluation: Evaluation) -> EvaluatedImages:
    """Raises UserError if the folder is gone, or the evaluation is of a suite."""
    content = evaluation.content
    root = Path(str(content.get("data")))
    if content.get("suite"):
        raise UserError(f"the images of {content['suite']} are not shown: only images of train, val or test are shown")
    if not root.is_dir() and record.config.data.name in register_ours:
        raise UserError(f"{root} does not exist: its images are not shown")
    data = replace(record.config.data, root=str(root))
    if content.get("split") == "test":
        return EvaluatedImages(load_split(data, "test"))
    return EvaluatedImages(load_split(data, "val") if content.get("is_own") else load_other_images(data)[1])
