"""Finding: one thing that a check found, and what to do about it; and the report of all."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self

from resnext.errors import UserError

Level = Literal["ok", "warn", "fail"]
LEVELS: tuple[Level, ...] = ("ok", "warn", "fail")  # in the order of their weight


class Finding(NamedTuple):
    """`text` is one line without a full stop. `remedy` is empty if there is nothing to do.

    fail: the training would end with an error, or would not learn. warn: it would run, but perhaps not as intended.
    """

    level: Level
    subject: str
    text: str
    remedy: str = ""

    @classmethod
    def of_error(cls, subject: str, error: UserError) -> Self:
        """The errors of this project are `what is wrong: what to do`."""
        text, _, remedy = str(error).partition(": ")
        return cls("fail", subject, text, remedy)

    def __str__(self) -> str:
        return f"{self.text}: {self.remedy}" if self.remedy else self.text


Say = Callable[[Finding], None]


@dataclass
class Report:
    """All findings in the order in which they were made, and `facts`: values by name, for programs."""

    say: Say
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        self.findings.append(finding)
        self.say(finding)

    @property
    def verdict(self) -> Level:
        """The heaviest level."""
        return LEVELS[max((LEVELS.index(each.level) for each in self.findings), default=0)]

    def to_plain(self) -> dict[str, Any]:
        findings = [each._asdict() for each in self.findings]
        return {"verdict": self.verdict, "findings": findings, **self.facts}
