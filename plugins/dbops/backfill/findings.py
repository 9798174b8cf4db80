"""What checks before a copy find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from dbops.backfill.query import ViewError


@dataclass(frozen=True)
class Finding:
    """Something that a check found."""

    id: str
    level: Literal["refusal", "warning"]
    text: str
    """What was found, with its value."""
    fix: str

    @property
    def stops(self) -> bool:
        """The run must not go on."""
        return self.level == "refusal"

    def __str__(self) -> str:
        return f"[{self.id}] {self.text}. Fix: {self.fix}"


Check = Callable[[], Iterable[Finding]]


def refusal(id_: str, text: str, fix: str) -> Finding:
    """A finding that stops the run."""
    return Finding(id_, "refusal", text, fix)


def warning(id_: str, text: str, fix: str) -> Finding:
    """A finding for the reader."""
    return Finding(id_, "warning", text, fix)


def run(checks: Mapping[str, Check]) -> list[Finding]:
    """Findings of all checks, refusals first. A check that raises is a refusal with what it raised."""
    found: list[Finding] = []
    for id_, check in checks.items():
        try:
            found += check()
        except ViewError as error:
            found.append(refusal("view", str(error), "correct the spec"))
        except Exception as error:  # whatever a driver or AWS raises is the answer here
            text = " ".join(str(error).split())[:300]
            found.append(
                refusal(
                    id_, f"cannot be looked at: {type(error).__name__}: {text}", "correct the connection or its grants"
                )
            )
    return sorted(found, key=lambda finding: not finding.stops)
