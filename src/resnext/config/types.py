"""The value types of the schema: strict, finite and bounded."""

from typing import Annotated, Any, Literal

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
Interpolation = Literal["bilinear", "bicubic", "random"]
Options = Annotated[Any, "an open mapping"]  # the options of a part; config/parts.py checks and converts them
