"""The dataset of a run: its folder, and how its images are read and normalised. Imports no torch."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from resnext.config.parts import parse_options
from resnext.config.types import STRICT, Fraction, Name, Options, Positive
from resnext.registry import register_dataset

OF_THE_MACHINE = ("root", "workers", "worker_timeout", "cache", "max_skipped")  # keys of data; may differ at each start


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataConfig:
    """The images, and how they are normalised. A user's dataset has its own layout.

    `name`: a registered dataset. `root`: a folder with train/CLASS/ and val/CLASS/, a folder with CLASS/ (see
    `val_fraction`), or a pack. `options`: those registered with the name. `val_fraction`: the share of each class that
    is for validation, of images without a val/; null: val/ is needed. `num_classes`: checked against the folders; null:
    counted. `workers`: DataLoader workers of each process; null: set from the number of cores. `worker_timeout`: the
    run fails if a DataLoader worker returns no batch for this number of seconds. `cache`: with ram, decoded images stay
    in memory. `max_skipped`: how many unreadable training images may be left out; every validation image must be
    readable. `mean`: of RGB in [0, 1]. `std`: of RGB in [0, 1].
    """

    name: Name
    root: Name
    options: Options = None
    val_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    num_classes: Annotated[int, Field(ge=2)] | None = None
    workers: Annotated[int, Field(ge=0)] | None = None
    worker_timeout: Positive = 300.0
    cache: Literal["none", "ram"] = "none"
    max_skipped: Annotated[int, Field(ge=0)] = 0
    mean: tuple[Fraction, Fraction, Fraction] = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        options = parse_options("dataset", self.name, self.options, name_key="data.name", key="data.options")
        object.__setattr__(self, "options", options)
        if self.val_fraction is not None and self.name not in register_ours:
            raise ValueError(
                f"data.val_fraction={self.val_fraction:g} splits folders of images, but data.name={self.name} has its "
                "own splits: set data.val_fraction=null"
            )
        return self


OURS = ("image_folder", "imagenet", "digits", "digits_few", "cifar10", "cifar100")
# The functions that load them are in data/images.py.
register_ours = {name: register_dataset(name) for name in OURS}
