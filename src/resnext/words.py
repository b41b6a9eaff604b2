"""Counts in words."""


def plural(count: int, noun: str, several: str | None = None) -> str:
    """`1 image`, `1,024 images`."""
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"
