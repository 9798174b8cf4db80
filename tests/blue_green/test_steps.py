"""Steps of a rehearsal against made-up parts: what each holds against the upgrade, and what it does when it is repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dbops.blue_green import compare, steps
from dbops.blue_green.findings import Finding
from tests.blue_green.steps_kit import NAME, Kit


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    made = Kit(tmp_path)
    made.standing()
    return made


def compared(kit: Kit, monkeypatch: pytest.MonkeyPatch, *found: compare.Comparison) -> list[Finding]:
    monkeypatch.setattr(compare, "compare", lambda *_: list(found))
    return [Finding(**each) for each in steps.compare_sides(kit.services, NAME)["findings"]]


def test_a_statement_that_green_cannot_end_in_time_blocks(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    late = compare.Comparison(
        "q1", "worse", error_green="3024: time limit", note="it takes longer than the limit on green"
    )
    found = compared(kit, monkeypatch, late)
    assert [(f.weight, f.text) for f in found] == [
        ("blocker", "q1 is worse on green: it takes longer than the limit on green")
    ]


@pytest.mark.parametrize(("ratio", "weight"), [(1.6, "warning"), (3.0, "blocker")])
def test_a_slower_statement_weighs_by_how_much(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, ratio: float, weight: str
) -> None:
    found = compared(kit, monkeypatch, compare.Comparison("q1", "worse", time_ratio=ratio))
    assert [(f.weight, f.text) for f in found] == [(weight, f"q1 takes {ratio:.2f} times as long on green")]


@pytest.mark.parametrize(
    ("verdict", "weights"),
    [
        ("same", []), ("better", []), ("order only", ["warning"]), ("not compared", ["warning"]), ("different", ["blocker"]),
        ("broken", ["blocker"]),
    ],
)  # fmt: skip
def test_what_a_comparison_weighs(kit: Kit, monkeypatch: pytest.MonkeyPatch, verdict: Any, weights: list[str]) -> None:
    assert [f.weight for f in compared(kit, monkeypatch, compare.Comparison("q1", verdict))] == weights


def test_nothing_compared_is_said(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [f.weight for f in compared(kit, monkeypatch)] == ["warning"]
