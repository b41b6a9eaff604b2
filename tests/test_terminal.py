"""Words and numbers in the output of the commands."""

import pytest

from resnext.terminal import describe_bytes, first_three


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (999.7, "1 kB"), (1280, "1.28 kB"), (999_700, "1 MB"), (32e12, "32 TB")],
)
def test_sizes_have_three_digits(count: float, text: str):
    assert describe_bytes(count) == text


def test_of_many_names_the_first_three_are_shown():
    assert [first_three("abcde"[:count]) for count in (1, 3, 5)] == ["a", "a, b, c", "a, b, c and 2 more"]
