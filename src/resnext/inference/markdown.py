"""Text of a user in Markdown: escaped, so that it stays text."""

import re

SPECIAL = re.compile(r"[!#$&*+:;<=>@\[\\\]^_`{|}~\"]")


def plain(text: str) -> str:
    """One line that UTF-8 can encode: what cannot be printed, such as a newline, is written as Python writes it."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def escape(text: str) -> str:
    """`text` within a line of Markdown, also in a cell of a table."""
    return SPECIAL.sub(r"\\\g<0>", plain(text).strip())


def code_block(text: str, language: str = "") -> str:
    """`text` as it is. The fence is longer than every row of backticks in the text."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    lines = [plain(line) for line in text.split("\n")]
    return "\n".join([f"{fence}{language}", *lines, fence])
