"""The verdict on a backfill: nothing fails open."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.backfill import records
from dbops.backfill.records import FAILING, Compared, Rejected, Verification
from dbops.backfill.verdict import MEANING, REPAIR, judge, judge_roll_back
from dbops.reports import Verdict
from tests.backfill.verdict_kit import (
    ESTIMATE,
    NOW,
    PLAN,
    REFUSAL,
    TALLY,
    WARNING,
    proof,
    rolled_back,
    spec,
    standing,
)


def sample(**more: Any) -> Verification:
    given: dict[str, Any] = {"mode": "sample", "forward": None, "sample": {"equal": 100}, "bound": 0.03, **more}
    return proof(**given)


def test_a_plan_that_is_copied_and_proven_is_ok() -> None:
    verdict, reasons = judge(standing())
    assert verdict is Verdict.OK
    assert reasons == [
        "all 100 rows are in the store or superseded there; compared in both directions, nothing differs"
    ]


SAMPLED = {"mode": "sample", "sample_rows": 1000}
WRONG: list[tuple[str, dict[str, Any], str]] = [
    *((f"forward-{name}", {"verification": proof(forward={"equal": 99, name: 1})}, f"1 row {name}: ") for name in sorted(FAILING)),
    *((f"reverse-{name}", {"verification": proof(reverse={"equal": 99, name: 1})}, f"1 item {name}: ") for name in sorted(FAILING)),
    ("unknown-class", {"verification": proof(forward={"equal": 99, "odd": 1})}, "1 row odd: "),
    ("no-plan", {"plan": None}, "there is no plan"),
    ("rolled-back", {"plan": replace(PLAN, state="rolled_back")}, "is rolled back"),
    ("abandoned", {"plan": replace(PLAN, state="abandoned")}, "is abandoned"),
    ("unfinished", {"counts": {"done": 1, "planned": 1}}, "of 2 chunks 1 done, 1 planned"),
    ("chunks-not-counted", {"counts": {}}, "none counted"),
    ("a-chunk-too-many", {"counts": {"done": 2, "planned": 1}}, "unfinished"),
    ("a-chunk-lost", {"counts": {"done": 1}}, "unfinished"),
    ("unaccounted", {"tally": replace(TALLY, read=101)}, "101 rows read and 100 outcomes"),
    ("rejects-over", {"reject_count": 1}, "1 row cannot be an item, rejects.max_rows is 0"),
    ("rejects-listed-but-not-counted", {"rejects": (Rejected(("1",), "too large"),)}, "rejects.max_rows is 0"),
    ("rejects-unknown", {"reject_count": None}, "not counted"),
    ("rejects-stop", {"reject_count": 1, "spec": spec(rejects={"policy": "stop", "max_rows": 9})}, "rejects.policy is stop"),
    ("not-imported", {"spec": spec(engine="import", staging_s3_uri="s3://a/b"), "plan": replace(PLAN, state="copying"),
                      "verification": None}, "the table is not imported: do what the task import_table says"),
    ("not-verified", {"verification": None}, "was not verified"),
    ("verification-unfinished", {"verification": proof(ended_at=None)}, "did not come to its end"),
    ("verification-before-the-copy", {"verification": proof(began_at=NOW - timedelta(minutes=2))}, "verify again"),
    ("nothing-compared", {"verification": proof(forward={})}, "compared no row"),
    ("forward-not-read", {"verification": proof(forward=None)}, "compared no row"),
    ("reverse-not-read", {"verification": proof(reverse=None)}, "verify.reverse is set"),
    ("plan-not-closed", {"plan": replace(PLAN, state="copied")}, "the plan is copied"),
    ("a-chunk-was-not-compared", {"parts": (Compared("forward", 1), Compared("reverse", 0))}, "1 of 2 chunks were compared"),
    ("ended-with-differences", {"verification": proof(verdict="differences")}, "ended as differences"),
    ("ended-early", {"verification": proof(verdict="unfinished")}, "ended as unfinished"),
    ("ended-as-nobody-knows", {"verification": proof(verdict="")}, "ended as unknown"),
    ("a-sample-that-has-only-walked", {"spec": spec(verify=SAMPLED), "verification": sample(sample=None)}, "compared no row"),
    ("odd-mode", {"verification": proof(mode="quick")}, "'quick' is unknown"),
    (
        "sample-too-small",
        {"spec": spec(verify=SAMPLED), "verification": sample(sample={"equal": 99})}, "99 rows of 100",
    ),
    ("sample-without-bound", {"spec": spec(verify=SAMPLED), "verification": sample(bound=None)}, "states no bound"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "reason"), [pytest.param(m, r, id=i) for i, m, r in WRONG])
def test_what_is_wrong_unfinished_or_unknown_fails(more: dict[str, Any], reason: str) -> None:
    verdict, reasons = judge(standing(**more))
    assert verdict is Verdict.FAILED
    assert any(reason in told for told in reasons), reasons


DOUBTS: list[tuple[str, dict[str, Any], str]] = [
    ("rejects-within", {"reject_count": 2, "spec": spec(rejects={"max_rows": 2})}, "2 rows cannot be an item"),
    ("sample", {"spec": spec(verify=SAMPLED), "verification": sample()}, "at most 0.03 of all rows"),
    ("reverse-off", {"spec": spec(verify={"reverse": False}), "verification": proof(reverse=None)}, "verify.reverse is off"),
    ("unversioned", {"tally": replace(TALLY, written=89, unversioned=1)}, "1 items without version"),
    ("paused", {"held": "paused by ann", "counts": {"done": 1, "planned": 1}}, "stopped on purpose at 1 of 2 chunks"),
    ("warning", {"findings": (WARNING,)}, "warning: indexes"),
    ("only-a-sample", {"verification": sample()}, "verify.mode is full, and only a sample was compared: the plan is not verified"),
    ("over-the-budget", {"tally": replace(TALLY, units=2_000.0)}, "it cost 20.00 USD, limits.budget_usd is 10"),
    ("no-estimate", {"estimate": None}, "not compared with the budget"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "reason"), [pytest.param(m, r, id=i) for i, m, r in DOUBTS])
def test_what_a_person_should_look_at_warns(more: dict[str, Any], reason: str) -> None:
    verdict, reasons = judge(standing(**more))
    assert verdict is Verdict.WARNING
    assert any(reason in told for told in reasons), reasons


@pytest.mark.parametrize("more", [pytest.param(m, id=i) for i, m, _ in WRONG])
def test_a_pause_hides_no_wrong_row(more: dict[str, Any]) -> None:
    assert judge(standing(**more, held="paused by ann"))[0] is not Verdict.OK


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("refusal", {"findings": (REFUSAL,)}, "set binlog_format to ROW"),
    ("over-the-budget", {"estimate": replace(ESTIMATE, usd=10.01)}, "approval: it would cost 10.01 USD"),
    ("cost-unknown", {"estimate": replace(ESTIMATE, usd=float("nan"))}, "approval"),
    ("too-long", {"estimate": replace(ESTIMATE, hours=72.5)}, "72.5 h"),
    ("time-unknown", {"estimate": replace(ESTIMATE, hours=float("nan"))}, "max_hours"),
    ("no-estimate", {"estimate": None, "plan": None}, "there is no estimate"),
]


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(("more", "reason"), [pytest.param(m, r, id=i) for i, m, r in REFUSED])
def test_what_must_not_begin_is_refused(more: dict[str, Any], reason: str, dry_run: bool) -> None:
    verdict, reasons = judge(standing(**more), dry_run=dry_run)
    assert verdict is Verdict.REFUSED
    assert any(reason in told for told in reasons), reasons


def test_an_approval_lifts_the_budget_only() -> None:
    assert judge(standing(estimate=replace(ESTIMATE, usd=11), approved_by="ann"))[0] is Verdict.OK
    assert judge(standing(estimate=replace(ESTIMATE, usd=11, hours=99), approved_by="ann"))[0] is Verdict.REFUSED


@given(
    forward=st.dictionaries(st.sampled_from([*sorted(MEANING), "odd"]), st.integers(0, 3)),
    reverse=st.none() | st.dictionaries(st.sampled_from([*sorted(MEANING), "odd"]), st.integers(0, 3)),
    ended=st.booleans(), rejected=st.none() | st.integers(0, 2), done=st.integers(0, 3), left=st.integers(0, 2),
    state=st.sampled_from(["planned", "copying", "copied", "verified", "rolled_back", "abandoned"]),
)  # fmt: skip
def test_ok_is_only_what_is_whole_proven_and_closed(
    forward: dict[str, int], reverse: dict[str, int] | None, ended: bool, rejected: int | None, done: int, left: int, state: Any
) -> None:  # fmt: skip
    verified = proof(forward=forward, reverse=reverse, ended_at=NOW if ended else None)
    of = standing(
        verification=verified, reject_count=rejected, counts={"done": done, "planned": left}, plan=replace(PLAN, state=state)
    )  # fmt: skip
    fine = {"equal", "target_newer"}
    is_clean = all(name in fine or not n for counts in (forward, reverse or {}) for name, n in counts.items())
    whole = done == 2 and left == 0 and rejected == 0 and state == "verified"
    assert (judge(of)[0] is Verdict.OK) == (
        whole and ended and reverse is not None and is_clean and sum(forward.values()) > 0
    )


def test_every_class_has_a_meaning_and_each_failing_one_a_repair() -> None:
    assert set(MEANING) >= set(get_args(records.Class))
    assert set(REPAIR) >= FAILING


@pytest.mark.parametrize(
    ("more", "verdict", "reason"),
    [
        pytest.param({"plan": None}, Verdict.FAILED, "no plan", id="no-plan"),
        pytest.param({"findings": (REFUSAL,)}, Verdict.REFUSED, "binlog_format", id="refused"),
        pytest.param({"counts": {"rolled_back": 1, "done": 1}}, Verdict.FAILED, "1 of 2 chunks", id="unfinished"),
        pytest.param({"counts": {}}, Verdict.FAILED, "0 of 2 chunks", id="not-counted"),
        pytest.param(
            {"plan": replace(PLAN, state="abandoned")}, Verdict.FAILED, "the plan is abandoned", id="not-closed"
        ),
        pytest.param({"kept_by": {"newer": 1}}, Verdict.WARNING, "1 items stay though", id="changed-in-the-store"),
    ],
)
def test_a_roll_back_is_fail_closed(more: dict[str, Any], verdict: Verdict, reason: str) -> None:
    found, reasons = judge_roll_back(rolled_back(**more))
    assert found is verdict
    assert reason in reasons[0]
    assert judge_roll_back(rolled_back(), dry_run=True)[0] is Verdict.DRY_RUN
