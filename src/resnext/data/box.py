"""Box: a rectangle of pixels, for crops, random erasing and CutMix."""

from typing import NamedTuple


class Box(NamedTuple):
    """Rows from `top` to `bottom` and columns from `left` to `right`; `bottom` and `right` are exclusive."""

    top: int
    left: int
    bottom: int
    right: int
