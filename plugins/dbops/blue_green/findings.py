"""What steps hold against the upgrade, and the verdict that follows: GO, GO WITH WARNINGS or NO-GO. What was not shown is not a GO."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dbops.blue_green.preflight import Result

Weight = Literal["blocker", "warning"]
Verdict = Literal["GO", "GO WITH WARNINGS", "NO-GO"]
PROOFS = ("preflight", "green", "replication", "compare", "ladder", "verify", "watch", "measured", "teardown")
"""Steps without which nothing is proven."""


@dataclass(frozen=True)
class Finding:
    """Something that speaks against the upgrade. `step` is where it was found."""

    step: str
    weight: Weight
    text: str


@dataclass(frozen=True)
class Conclusion:
    """The verdict, and every finding, blockers first."""

    verdict: Verdict
    findings: tuple[Finding, ...]

    @property
    def reasons(self) -> list[str]:
        """The findings as sentences."""
        return [f"{finding.step}: {finding.text}" for finding in self.findings]


def conclude(steps: Mapping[str, Mapping[str, Any]]) -> Conclusion:
    """The verdict on the documents of a rehearsal's steps; each may have ``findings``."""
    found = [Finding(**each) for document in steps.values() for each in document.get("findings", ())]
    found += [
        Finding(step, "blocker", "this step did not end, so nothing is known of it")
        for step in PROOFS
        if step not in steps
    ]
    ordered = sorted(dict.fromkeys(found), key=lambda finding: finding.weight)  # "blocker" comes before "warning"
    if any(finding.weight == "blocker" for finding in ordered):
        return Conclusion("NO-GO", tuple(ordered))
    return Conclusion("GO WITH WARNINGS" if ordered else "GO", tuple(ordered))


def documents(found: Iterable[Finding]) -> list[dict[str, str]]:
    """Findings as a step's document holds them."""
    return [asdict(finding) for finding in found]


def of_preflight(results: Sequence[Result]) -> list[Finding]:
    """Errors and what could not be asked stop an upgrade; warnings and overridden errors go with it."""
    weights: dict[str, Weight] = {
        "error": "blocker",
        "unknown": "blocker",
        "warning": "warning",
        "overridden": "warning",
    }
    found = []
    for result in results:
        if (weight := weights.get(result.verdict)) is not None:
            objects = ", ".join(name for name, _ in result.objects[:3]) + (", ..." if len(result.objects) > 3 else "")
            text = f"{result.id} ({len(result.objects)}: {objects})" if objects else result.id
            found.append(Finding("preflight", weight, f"{text}: {result.note or result.fix}"))
    return found
