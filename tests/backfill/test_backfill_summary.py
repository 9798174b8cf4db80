"""Reports of a backfill: nothing is left out silently, no value of a row comes through."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dbops import reports
from dbops.backfill import charts, gate, summary
from dbops.backfill.charts import Sample
from dbops.backfill.preflight import TypeRow
from dbops.backfill.records import Compared, Difference, Event, Rejected, Tally
from dbops.backfill.target import Index, TargetFacts
from dbops.backfill.verdict import Standing
from dbops.reports import Verdict
from tests.backfill.verdict_kit import (
    ESTIMATE,
    NOW,
    PLAN,
    REFUSAL,
    TALLY,
    WARNING,
    chunk,
    proof,
    rolled_back,
    spec,
    standing,
)

COMMON: dict[str, Any] = {"dag_id": "backfill", "run_id": "r1", "provenance": "simulated AWS, real MySQL"}
HOSTILE = "<script>alert(1)</script> password=hunter2"
PRESSURES = tuple(Event("pressure", "TableWriteKeyRangeThroughputExceeded", count=n, at=NOW) for n in (3, 4))


def section(report: reports.Report, title: str) -> Any:
    return next(part for part in report.sections if part.title.startswith(title))


def test_a_dry_run_says_what_it_would_cost() -> None:
    of = Standing(
        spec(), estimate=ESTIMATE, findings=(WARNING,),
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
        "CREATING",
        "4,000",
    ):
        assert told in html, told


def test_the_report_of_a_run_shows_outcomes_classes_and_what_the_condition_saved() -> None:
    report = summary.run_report(standing(events=PRESSURES), COMMON)
    figures = {one.label: one for one in report.figures}
    assert figures["Saved by the condition"].value == "5"
    assert figures["Cost"].value == "1.00 USD"
    imported = standing(spec=spec(engine="import", staging_s3_uri="s3://a/b"), tally=replace(TALLY, units=0.0))
    assert imported.spent_usd == pytest.approx(0.92), "of 100 rows 92 were staged"
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
    report = summary.run_report(standing(parts=parts), COMMON)
    table = section(report, "Parts of")
    assert report.verdict is Verdict.OK
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
        findings=(replace(REFUSAL, text=HOSTILE),),
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


def test_a_roll_back_says_what_it_removed_and_what_stays() -> None:
    report = summary.roll_back_report(rolled_back(), COMMON)
    assert report.verdict is Verdict.OK
    assert report.reasons == ["85 items removed; 5 stay, because others have written them or they are tombstones"]
    assert section(report, "Chunks").rows[0] == ["all", None, 85, 5, None, None]
    assert "85" in reports.render_html(report)


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
