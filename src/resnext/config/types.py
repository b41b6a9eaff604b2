"""The value types of the schema: strict, finite and bounded."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

# strict: `epochs=true` is not 1, and "3" is not 3
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Name = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Pair = tuple[float, float]
Layers = Annotated[tuple[Count, ...], Field(min_length=1)]
Interpolation = Literal["bilinear", "bicubic", "random"]
