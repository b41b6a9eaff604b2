"""HTML as text. Whatever is not `Html` is escaped, so that a class name or an error message cannot become markup."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

VOID = ("img", "meta", "br")
CLASSES = 1000  # rows of a table of classes


class Html(str):
    """Markup, which is not escaped again."""


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """An element. `class_` is the attribute class; an attribute with None is left out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(printable(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>" if name in VOID else f"<{name}{given}>{join(children)}</{name}>")


def join(children: Iterable[Any]) -> Html:
    return Html("".join(child if isinstance(child, Html) else escape(printable(child)) for child in children))


def printable(value: Any) -> str:
    """The text, with an escape such as \\x1b or \\udc80 for each character that cannot be shown or encoded."""
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode() for each in str(value)
    )


def shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], *, numbers: bool = False) -> Html:
    """A table that scrolls in its own width. `numbers`: all columns but the first are right-aligned."""
    body = [tag("tr", *(tag("td", cell) for cell in row)) for row in rows]
    top = tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in head)))
    inner = tag("table", top, tag("tbody", *body), class_="numbers" if numbers else None)
    return tag("div", inner, class_="scroll")


def facts(pairs: Iterable[tuple[str, Any]]) -> Html:
    """A list of names and values; without the values that are None or empty."""
    shown = [(tag("dt", name), tag("dd", value)) for name, value in pairs if value not in (None, "")]
    return tag("dl", *(part for pair in shown for part in pair))


def name_rows(classes: int, which: str) -> str:
    return f"All {classes:,} classes" if classes <= CLASSES else f"The {CLASSES:,} {which} of {classes:,} classes"


def details(summary: str, *children: Any) -> Html:
    return tag("details", tag("summary", summary), *children)
