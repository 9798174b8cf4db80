"""Reports and alerts of a backfill: nothing fails open, nothing is left out silently, no value of a row comes through."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops import reports
from dbops.backfill import charts, gate, records, summary
from dbops.backfill.charts import Sample
from dbops.backfill.records import FAILING, Chunk, Compared, Difference, Event, Plan, Rejected, Tally, Verification
from dbops.backfill.spec import BackfillSpec
from dbops.backfill.summary import Standing
from dbops.backfill.target import Index, TargetFacts
from dbops.reports import Verdict

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
COMMON: dict[str, Any] = {"dag_id": "backfill", "run_id": "r1", "provenance": "simulated AWS, real MySQL"}
HOSTILE = "<script>alert(1)</script> password=hunter2"


def spec(**more: Any) -> BackfillSpec:
    return BackfillSpec.model_validate(
        {
            "name": "rides", "description": "rides", "owner": "dba",
            "view": {"sql": "SELECT r.id, r.version FROM carshare.rides AS r WHERE {chunk}", "table": "carshare.rides", "alias": "r"},
            "version": {"column": "version"}, "target": {"kind": "dynamodb", "table": "rides", "key": {"pk": "RIDE#{id}"}},
            "live": {"since": "2026-04-01T00:00:00Z", "applications": ["app"], "replication_task": "rides-cdc"}, **more,
        }
    )  # fmt: skip


@dataclass(frozen=True)
class Check:
    id: str = "binlog_format"
    stops: bool = True
    text: str = "the binary log has format MIXED"
    fix: str = "set binlog_format to ROW"


WARNING = Check("indexes", stops=False)


@dataclass(frozen=True)
class TypeRow:
    column: str
    mysql_type: str
    form: str
    how: str


@dataclass(frozen=True)
class Estimate:
    rows: int = 100
    p50_bytes: int = 120
    p99_bytes: int = 900
    max_bytes: int = 400_000
    index_factor: float = 1.0
    items: tuple[tuple[str, float], ...] = (("writes", 0.75), ("verification", 0.25))
    warnings: tuple[str, ...] = ("prices are 200 days old",)
    units: float = 100.0
    usd: float = 1.0
    hours: float = 0.5
    verify_hours: float = 0.25
    limited_by: str = "limits.units_per_s"


PROOF = Verification(
    7, "rides-20260501-0a1b2c3d", "backfill/r1", "full", NOW, NOW + timedelta(minutes=5), "clean",
    {"forward": {"equal": 97, "target_newer": 3}, "reverse": {"equal": 100}},
)  # fmt: skip
PRESSURES = tuple(Event("pressure", "TableWriteKeyRangeThroughputExceeded", count=n, at=NOW) for n in (3, 4))
TALLY = Tally(
    read=100, written=90, buried=2, equal=3, newer=4, tombstones=1, checked=100, units=100.0, requests=10, write_s=2.0
)
PLAN = Plan(
    "rides-20260501-0a1b2c3d", "rides", "d" * 64, "verified", NOW - timedelta(hours=2), "uuid", "gtid:1-9", 100, 2
)


def chunk(number: int, **more: Any) -> Chunk:
    given: dict[str, Any] = {
        "plan_id": PLAN.plan_id, "number": number, "position": number, "low": None, "high": ("50",), "planned_rows": 50, "is_cold": True,
        "state": "done", "reached": ("50",), "tally": Tally(read=50, written=50), "attempt": 1, "owner": None, "leased_until": None,
        "done_at": NOW - timedelta(minutes=1), **more,
    }  # fmt: skip
    return Chunk(**given)


def standing(**more: Any) -> Standing:
    """A plan that is copied and proven."""
    given: dict[str, Any] = {
        "spec": spec(), "plan": PLAN, "estimate": Estimate(), "counts": {"done": 2}, "tally": TALLY, "chunks": (chunk(0), chunk(1)),
        "reject_count": 0, "verification": PROOF, "difference_count": 0, **more,
    }  # fmt: skip
    return Standing(**given)


def section(report: reports.Report, title: str) -> Any:
    return next(part for part in report.sections if part.title.startswith(title))


def proof(**more: Any) -> Verification:
    """A clean verification, but for this; a direction that is None was not read."""
    counts = {name: more.pop(name, PROOF.counts.get(name)) for name in ("forward", "reverse", "sample")}
    return replace(PROOF, counts={name: found for name, found in counts.items() if found is not None}, **more)


def sample(**more: Any) -> Verification:
    given: dict[str, Any] = {"mode": "sample", "forward": None, "sample": {"equal": 100}, "bound": 0.03, **more}
    return proof(**given)


def test_a_plan_that_is_copied_and_proven_is_ok() -> None:
    verdict, reasons = summary.judge(standing())
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
    verdict, reasons = summary.judge(standing(**more))
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
    verdict, reasons = summary.judge(standing(**more))
    assert verdict is Verdict.WARNING
    assert any(reason in told for told in reasons), reasons


@pytest.mark.parametrize("more", [pytest.param(m, id=i) for i, m, _ in WRONG])
def test_a_pause_hides_no_wrong_row(more: dict[str, Any]) -> None:
    assert summary.judge(standing(**more, held="paused by ann"))[0] is not Verdict.OK


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("refusal", {"findings": (Check(),)}, "set binlog_format to ROW"),
    ("over-the-budget", {"estimate": Estimate(usd=10.01)}, "approval: it would cost 10.01 USD"),
    ("cost-unknown", {"estimate": Estimate(usd=float("nan"))}, "approval"),
    ("too-long", {"estimate": Estimate(hours=72.5)}, "72.5 h"),
    ("time-unknown", {"estimate": Estimate(hours=float("nan"))}, "max_hours"),
    ("no-estimate", {"estimate": None, "plan": None}, "there is no estimate"),
]


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(("more", "reason"), [pytest.param(m, r, id=i) for i, m, r in REFUSED])
def test_what_must_not_begin_is_refused(more: dict[str, Any], reason: str, dry_run: bool) -> None:
    verdict, reasons = summary.judge(standing(**more), dry_run=dry_run)
    assert verdict is Verdict.REFUSED
    assert any(reason in told for told in reasons), reasons


def test_an_approval_lifts_the_budget_only() -> None:
    assert summary.judge(standing(estimate=Estimate(usd=11), approved_by="ann"))[0] is Verdict.OK
    assert summary.judge(standing(estimate=Estimate(usd=11, hours=99), approved_by="ann"))[0] is Verdict.REFUSED


def test_a_dry_run_says_what_it_would_cost() -> None:
    of = Standing(
        spec(), estimate=Estimate(), findings=(WARNING,),
        types=(TypeRow("total", "decimal(65,30)", "S", "as MySQL prints it"),),
        facts=TargetFacts(True, "ACTIVE", (("pk", "S"),), "PAY_PER_REQUEST", 4000.0, (Index("by_user", "ACTIVE"),)),
    )  # fmt: skip
    report = summary.preflight_report(of, COMMON)
    assert report.verdict is Verdict.DRY_RUN
    html = reports.render_html(report)
    for told in (
        "1.00 USD",
        "0.50 h",
        "limits.units_per_s",
        "decimal(65,30)",
        "by_user ACTIVE",
        "400,000 bytes",
        "MIXED",
        "4,000",
    ):
        assert told in html, told


@given(
    forward=st.dictionaries(st.sampled_from([*sorted(summary.MEANING), "odd"]), st.integers(0, 3)),
    reverse=st.none() | st.dictionaries(st.sampled_from([*sorted(summary.MEANING), "odd"]), st.integers(0, 3)),
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
    assert (summary.judge(of)[0] is Verdict.OK) == (
        whole and ended and reverse is not None and is_clean and sum(forward.values()) > 0
    )


def test_every_class_has_a_meaning_and_each_failing_one_a_repair() -> None:
    assert set(summary.MEANING) >= set(get_args(records.Class))
    assert set(summary.REPAIR) >= FAILING


def test_the_report_of_a_run_shows_outcomes_classes_and_what_the_condition_saved() -> None:
    report = summary.run_report(standing(events=PRESSURES), COMMON)
    figures = {one.label: one for one in report.figures}
    assert figures["Saved by the condition"].value == "5"
    assert figures["Cost"].value == "1.00 USD"
    outcomes = {row[0]: row[1] for row in section(report, "What became").rows}
    assert sum(outcomes.values()) == TALLY.read
    classes = {row[0]: row[1:4] for row in section(report, "Verification").rows}
    assert classes["equal"] == [97, 100, "fine"]
    assert classes["missing"] == [0, 0, "fails"]
    assert ["TableWriteKeyRangeThroughputExceeded", 7] in section(report, "What the store turned away").rows
    assert "What became of the rows" in reports.render_html(report)


def test_a_direction_that_was_not_read_has_no_column_of_zeros() -> None:
    report = summary.run_report(standing(verification=proof(reverse=None)), COMMON)
    assert section(report, "Verification").columns[:3] == ["class", "forward", ""]
    assert "not read" in section(report, "Verification").note


def test_strata_and_parts_that_fail_are_listed_the_rest_is_in_the_sums() -> None:
    parts = (
        Compared("forward", 0, {"equal": 50}), Compared("forward", 1, {"equal": 49, "missing": 1}),
        Compared("sample", 0, {"equal": 10}, unread=2, name="newest", note="gaps"),
    )  # fmt: skip
    table = section(summary.run_report(standing(parts=parts), COMMON), "Parts of")
    assert summary.judge(standing(parts=parts))[0] is Verdict.OK
    assert [row[:5] for row in table.rows] == [["forward", 1, None, 50, 1], ["sample", 0, "newest", 10, 0]]


def test_long_tables_are_bounded_and_say_so() -> None:
    chunks = tuple(chunk(n, tally=Tally(read=1, write_s=float(n))) for n in range(summary.MAX_ROWS + 5))
    open_one = chunk(9_999, state="planned", low=("77",), high=("99",), reached=("88",), error="lost 'secret value'")
    rejects = tuple(Rejected((str(n),), f"the item has {n:,} bytes") for n in range(summary.MAX_ROWS + 2))
    found = tuple(Difference(f"k{n}", "missing", "1", "", "") for n in range(summary.MAX_ROWS + 1))
    of = standing(
        chunks=(*chunks, open_one), rejects=rejects, reject_count=5_000, differences=found, difference_count=9_000
    )
    report = summary.run_report(of, COMMON)
    table = section(report, "Chunks")
    assert len(table.rows) == summary.MAX_ROWS + 1
    assert table.rows[0][:5] == ["all", "2 done", None, 50 * len(of.chunks), len(chunks) + 50]
    assert [table.rows[1][0], *table.rows[1][-3:]] == [9_999, "88", "99", "lost '...'"]
    assert table.rows[2][0] == summary.MAX_ROWS + 4
    assert "1,000 of 1,006 chunks; all of them are in backfill_chunk" in table.note
    assert "1,000 of 5,000 rejects" in section(report, "Rows that cannot").note
    assert "1,002 x the item has n bytes" in section(report, "Rows that cannot").note
    assert "1,000 of 9,000 differences" in section(report, "Rows and items").note
    assert table.file
    assert table.shown == summary.SHOWN


def test_keys_are_shown_only_where_a_row_has_to_be_found() -> None:
    key = "ann@example.org"
    of = standing(
        chunks=(chunk(0, low=(key,), high=(key,), reached=(key,)), chunk(1)),
        events=(Event("repair", f"Duplicate entry '{key}' for key", at=NOW), Event("wait", f'value "{key}"', at=NOW)),
    )
    report = summary.run_report(of, COMMON)
    assert key not in reports.render_html(report)
    found = standing(
        differences=(Difference(key, "missing", "3", "", ""),), rejects=(Rejected((key,), "too large"),), reject_count=1
    )
    report = summary.run_report(found, COMMON)
    assert reports.render_html(report).count(key) == 2
    assert not any(key in reason for reason in report.reasons)


def test_values_are_escaped_and_secrets_masked() -> None:
    of = standing(
        events=(Event("pressure", HOSTILE, at=NOW),), differences=(Difference(HOSTILE, "converter", HOSTILE, "1", HOSTILE),),
        rejects=(Rejected((HOSTILE,), HOSTILE),), reject_count=1, chunks=(chunk(0, state="planned", error=HOSTILE),),
        findings=(Check(text=HOSTILE),),
        held=HOSTILE,
    )  # fmt: skip
    html = reports.render_html(summary.run_report(of, COMMON))
    assert "<script>alert" not in html
    assert "hunter2" not in html
    assert "hunter2" not in reports.render_html(summary.preflight_report(of, COMMON))


def series(*rows: int, step_s: float = 60) -> tuple[Sample, ...]:
    return tuple(
        Sample(NOW + timedelta(seconds=n * step_s), done, done * 2.0, done // 100) for n, done in enumerate(rows)
    )


def drawn(chart: reports.Section) -> list[dict[str, Any]]:
    assert isinstance(chart, reports.Chart)
    return list(chart.vega["vconcat"][0]["data"]["values"])


def test_rates_are_of_the_time_between_two_checkpoints() -> None:
    points = drawn(charts.progress(series(0, 600, 1800), 500))
    assert [(one["rows"], one["units"], one["refused"]) for one in points] == [(10, 20, 0.1), (20, 40, 0.2)]


def test_no_line_leads_over_a_pause_or_chunks_that_were_opened_again() -> None:
    before = series(0, 60)
    after = tuple(one._replace(at=one.at + timedelta(hours=3), rows_done=one.rows_done + 60) for one in series(0, 120))
    points = drawn(charts.progress((*before, *after), 500))
    assert [(one["rows"], one["stretch"]) for one in points] == [(1, 0), (2, 1)]
    assert [(one["rows"], one["stretch"]) for one in drawn(charts.progress(series(0, 60, 0, 60), 500))] == [
        (1, 0),
        (1, 1),
    ]


@pytest.mark.parametrize("count", [401, 1_200, 5_000])
def test_many_samples_become_few_points_of_the_same_mean(count: int) -> None:
    points = drawn(charts.progress(series(*range(0, count * 60, 60)), 500))
    assert len(points) <= charts.MAX_POINTS + 1
    assert {one["rows"] for one in points} == {1.0}


@pytest.mark.parametrize("rows", [(), (5,)], ids=["none", "one"])
def test_without_two_samples_the_report_says_that_there_is_no_rate(rows: tuple[int, ...]) -> None:
    assert isinstance(charts.progress(series(*rows), 500), reports.Text)


def test_charts_are_drawn() -> None:
    of = standing(samples=series(0, 600, 1200), tally=replace(TALLY, read_s=1.0, waited_s=1.0))
    report = summary.run_report(of, COMMON)
    html = reports.render_html(report)
    assert "could not be drawn" not in html
    assert html.count("<svg") == 2
    assert "writing and reading back 2 s (50%)" in html
    assert {one.label: one.value for one in report.figures}["Rate"] == "10 rows/s"


ROLLED = replace(PLAN, state="rolled_back")
BACK = (chunk(0, state="rolled_back", removed=45, kept=2), chunk(1, state="rolled_back", removed=40, kept=3))


def rolled_back(**more: Any) -> Standing:
    return standing(
        **{
            "plan": ROLLED,
            "counts": {"rolled_back": 2, "done": 0},
            "chunks": BACK,
            "kept_by": {"tombstones": 5},
            **more,
        }
    )


def test_a_roll_back_says_what_it_removed_and_what_stays() -> None:
    report = summary.roll_back_report(rolled_back(), COMMON)
    assert report.verdict is Verdict.OK
    assert report.reasons == ["85 items removed; 5 stay, because others have written them or they are tombstones"]
    assert section(report, "Chunks").rows[0] == ["all", None, 85, 5, None, None]
    assert "85" in reports.render_html(report)


@pytest.mark.parametrize(
    ("more", "verdict", "reason"),
    [
        pytest.param({"plan": None}, Verdict.FAILED, "no plan", id="no-plan"),
        pytest.param({"findings": (Check(),)}, Verdict.REFUSED, "binlog_format", id="refused"),
        pytest.param({"counts": {"rolled_back": 1, "done": 1}}, Verdict.FAILED, "1 of 2 chunks", id="unfinished"),
        pytest.param({"counts": {}}, Verdict.FAILED, "0 of 2 chunks", id="not-counted"),
        pytest.param(
            {"plan": replace(PLAN, state="abandoned")}, Verdict.FAILED, "the plan is abandoned", id="not-closed"
        ),
        pytest.param({"kept_by": {"newer": 1}}, Verdict.WARNING, "1 items stay though", id="changed-in-the-store"),
    ],
)
def test_a_roll_back_is_fail_closed(more: dict[str, Any], verdict: Verdict, reason: str) -> None:
    found, reasons = summary.judge_roll_back(rolled_back(**more))
    assert found is verdict
    assert reason in reasons[0]
    assert summary.judge_roll_back(rolled_back(), dry_run=True)[0] is Verdict.DRY_RUN


QUIET = gate.Quiet("app", 1000, 0, None, NOW - timedelta(days=8), NOW, 1, (), 0)


def test_a_closed_gate_is_told_by_its_reasons_and_when_it_may_open() -> None:
    opens_at = NOW + timedelta(days=2)
    closed = gate.Gate(False, ("the stream lags", "app: silent since <then>"), ("a note",), (QUIET,), opens_at)
    report = summary.gate_report(spec(), PLAN, closed, COMMON)
    assert report.verdict is Verdict.WARNING
    assert list(report.reasons[:3]) == ["the stream lags", "app: silent since <then>", "a note"]
    assert f"from {opens_at:%Y-%m-%d %H:%M} UTC on" in report.reasons[3]
    assert report.figures[0].value == "closed"
    assert "&lt;then&gt;" in reports.render_html(report)


def test_the_gate_opens_when_every_application_was_quiet() -> None:
    report = summary.gate_report(spec(), PLAN, gate.Gate(True, (), (), (QUIET,)), COMMON)
    assert report.verdict is Verdict.OK
    assert report.figures[0].value == "open"
    assert "falls_back=False" in reports.render_html(report)
