"""Verdicts and reports of the archive."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from dbops import mysql, reports
from dbops.archive import codec, summary
from dbops.archive.checksum import Checksum
from dbops.archive.ending import Loss
from dbops.archive.ledger import Chunk, Event, Plan
from dbops.archive.preflight import Refusal
from dbops.archive.proof import Standing
from dbops.archive.restore import Restored
from dbops.archive.spec import ArchiveSpec
from dbops.archive.steps import Planned, Reconciled
from dbops.reports import Verdict

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SPEC = ArchiveSpec.model_validate({
    "name": "t", "description": "d", "owner": "o", "schema": "shop", "table": "t", "cold": {"column": "day", "older_than_days": 1},
    "target": {"namespace": "shop"},
})  # fmt: skip
ID = mysql.Column("id", "int", "int(11)", nullable=False)
TABLE = mysql.Table("shop", "t", "InnoDB", 10, 16384, 8192, 4096, 100, (ID,), ())
PLAN = Plan(
    "t-20260101-abc", "t", "shop.t", "open", "r", "u", AT, "`day` < '2026-01-01'", (codec.codec_for(ID),),
    "CREATE TABLE `t` (\n  `evil` varchar(9) DEFAULT '<script>'\n)", "lake.shop.t", 100, 4, 24_576, "run", AT,
)  # fmt: skip
COMMON: dict[str, Any] = {"dag_id": "s3_archive", "run_id": "r1", "provenance": "real AWS"}


def state(rows: int, batches: int = 1, deleted: int = 0) -> dict[str, int]:
    return {"batches": batches, "source_rows": rows, "deleted_rows": deleted}


def found(**over: Any) -> Reconciled:
    made = Reconciled(
        plan=PLAN, closed=True, totals={"done": state(100, 4, 100)}, chunk_states={"verified": 4}, lake_rows=100, source_rows=0,
            table=TABLE,
        file_bytes=1000, wire_bytes=5000, refused=[], events=[], problems=[],
    )  # fmt: skip
    return replace(made, **over)


DONE = {"done": state(50, 2, 50)}


@pytest.mark.parametrize(
    ("over", "purging", "verdict", "reasons"),
    [
        ({}, True, Verdict.OK, ["every row was proven equal before it was deleted"]),
        ({"problems": ["the lake holds 99"]}, True, Verdict.FAILED, ["the lake holds 99"]),
        ({"chunk_states": {"verified": 2, "planned": 1, "exported": 1}}, True, Verdict.FAILED,
        ["unfinished: chunks 1 exported, 1 planned"]),
        ({"totals": {**DONE, "refused": state(50, 2)}}, True, Verdict.FAILED, ["50 rows in 2 batches were refused"]),
        ({"totals": {**DONE, "changed": state(1234, 2)}}, True, Verdict.WARNING, ["1,234 rows in 2 batches changed after their export"]),
        ({"totals": {**DONE, "verified": state(7)}}, True, Verdict.WARNING, ["7 proven rows are still in MySQL"]),
        ({"totals": {"verified": state(100)}}, False, Verdict.OK,
        ["100 rows are proven and wait: purge them with dry_run: false and confirm: shop.t"]),
        ({"totals": {"verified": state(99), "refused": state(1)}}, False, Verdict.WARNING, ["1 rows in 1 batches were refused",
        "99 rows are proven"]),
        ({"totals": {"refused": state(1), "changed": state(2)}}, True, Verdict.FAILED, ["were refused", "changed after"]),
        ({"problems": ["p"], "totals": {"refused": state(1)}}, True, Verdict.FAILED, ["p"]),
        ({"warnings": ["w"]}, True, Verdict.WARNING, ["w"]),
        ({"warnings": ["w"], "totals": {"verified": state(100)}}, False, Verdict.WARNING, ["w", "100 rows are proven and wait"]),
        ({"plan": replace(PLAN, state="abandoning")}, True, Verdict.FAILED, ["t-20260101-abc is being given up, which is unfinished"]),
        ({"plan": replace(PLAN, state="abandoned"), "chunk_states": {"planned": 4}}, True, Verdict.WARNING,
        ["was given up: 100 rows left MySQL and are in the lake"]),
    ],
)  # fmt: skip
def test_verdict_of_a_run(over: dict[str, Any], purging: bool, verdict: Verdict, reasons: list[str]) -> None:
    given, said = summary.judge(SPEC, found(**over), purging=purging)
    assert given is verdict
    assert len(said) == len(reasons)
    assert [part for part, reason in zip(reasons, said, strict=True) if part not in reason] == []


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1,023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (5 * 1024**3, "5.0 GiB"), (3000 * 1024**4, "3,000.0 TiB")],
)  # fmt: skip
def test_sizes_for_people(count: float, text: str) -> None:
    assert summary.size(count) == text


def test_rates_without_time_or_rows_are_not_invented() -> None:
    assert summary.rate(1000, 0.5) == "2,000"
    assert summary.rate(1000, 0) == "n/a"
    assert summary.rate(0, 1) == "n/a"


def figures(report: reports.Report) -> dict[str, tuple[str, str]]:
    return {f.label: (f.value, f.note) for f in report.figures}


def test_the_report_of_a_run_has_what_was_done_and_how_to_read_the_archive() -> None:
    events = [
        Event("export", 2.0, 60, 600, "chunks 0-1", "run", AT), Event("export", 1.0, 40, 400, "chunks 2-3", "run", AT),
        Event("publish", 0.5, 100, 1000, "4 files", "run", AT), Event("purge", 1.0, 100, 0, "x <b>", "run", AT),
    ]  # fmt: skip
    refused = [
        {"chunk_no": 1, "batch_no": 2, "row_key": "7", "column_name": "a", "reason": "MySQL has 'x', the lake has 'y'"}
    ]
    made = found(events=events, refused=refused)
    report = summary.run_report(SPEC, made, purging=True, common=COMMON)
    shown = figures(report)
    assert shown["Rows purged from MySQL"] == ("100", "of 100 planned")
    assert shown["Parquet"][1].startswith("compression 5.0 : 1")
    assert shown["Table in MySQL"] == ("24.0 KiB", "before 24.0 KiB; InnoDB's estimate")
    assert summary.stage_totals(made) == [("export", 100, 3.0, 2), ("publish", 100, 0.5, 1), ("purge", 100, 1.0, 1)]
    sections = {s.title: s for s in report.sections}
    assert sections["Read the archive in Trino"].body == (
        'SELECT *\nFROM "lake"."shop"."t"\nWHERE "_archive_plan" = \'t-20260101-abc\'\nLIMIT 100'
    )
    assert sections["Rows that stay, and why"].rows == [[1, 2, "7", "a", "MySQL has 'x', the lake has 'y'"]]
    page = reports.render_html(report)
    assert "<script>'" not in page
    assert "x <b>" not in page
    assert "t-20260101-abc" in page


def test_a_run_that_moved_nothing_has_no_chart_and_divides_by_nothing() -> None:
    report = summary.run_report(SPEC, found(file_bytes=0, wire_bytes=0, totals={}), purging=True, common=COMMON)
    assert "chart" not in {s.kind for s in report.sections}
    assert "compression n/a" in figures(report)["Parquet"][1]


def test_the_report_of_a_loss_names_the_rows_by_chunk() -> None:
    standing = Standing(60, 100, missing={1: 30}, changed={0: 20})
    chunks = [Chunk(0, None, ("50",), 50), Chunk(1, ("50",), ("99",), 50)]
    report = summary.loss_report(SPEC, Loss(replace(PLAN, state="done"), standing, chunks), COMMON)
    assert report.verdict is Verdict.FAILED
    assert report.sections[0].rows == [
        [0, None, "50", 20, "other values than when they were purged"],
        [1, "50", "99", 30, "missing"],
    ]
    assert (
        "t-20260101-abc is done with a loss that was accepted: 30 purged rows are missing, by chunk {1: 30}"
        in report.reasons[0]
    )
    assert figures(report)["Missing in the lake"][0] == "30"


def planned(**over: Any) -> Planned:
    return replace(Planned(None, False, 1234, 5, "`day` < '2026-01-01'", [], None), **over)


REFUSAL = Refusal("zero_date", "zero or partial dates", "correct them", "day", 3, "17")


@pytest.mark.parametrize(
    ("refusals", "plan", "dry_run", "verdict"),
    [
        ([], planned(), True, Verdict.DRY_RUN), ([REFUSAL], None, True, Verdict.REFUSED), ([], planned(refusals=[REFUSAL]), True,
        Verdict.REFUSED),
        ([], planned(refusals=[REFUSAL]), False, Verdict.REFUSED), ([], planned(rows=0, chunks=0), False, Verdict.OK),
    ],
)  # fmt: skip
def test_verdict_before_anything_is_written(
    refusals: list[Refusal], plan: Planned | None, dry_run: bool, verdict: Verdict
) -> None:
    report = summary.preflight_report(SPEC, refusals, plan, COMMON, dry_run=dry_run)
    assert report.verdict is verdict
    assert report.reasons
    if verdict is Verdict.REFUSED:
        assert report.sections[0].rows == [["zero_date", "day", 3, "17", "zero or partial dates", "correct them"]]
        assert report.reasons == [
            "[zero_date] column day 3 rows: zero or partial dates (first key 17). Fix: correct them"
        ]


SUM = Checksum(2, 2, 5, 6)


@pytest.mark.parametrize(
    ("restored", "verdict", "reason"),
    [
        ([Restored(("x", "t_1"), 2, SUM, SUM, SUM, 0)], Verdict.OK, "every restored row is equal to the archive"),
        ([Restored(("x", "t_1"), 2, SUM, SUM, None, 3, ["7"])], Verdict.WARNING, "3 restored keys exist in shop.t as well"),
        ([Restored(("x", "t_1"), 2, SUM, SUM, Checksum(), 0)], Verdict.FAILED, "is not equal to the archive"),
        ([Restored(("x", "t_1"), 2, SUM, SUM, SUM, 0), Restored(("x", "t_2"), 2, SUM, Checksum(), None, 1)], Verdict.FAILED,
        "is not equal"),
    ],
)  # fmt: skip
def test_verdict_of_a_restore(restored: list[Restored], verdict: Verdict, reason: str) -> None:
    report = summary.restore_report(SPEC, [(PLAN, r) for r in restored], COMMON)
    assert report.verdict is verdict
    assert reason in report.reasons[0]
    assert "INSERT INTO `shop`.`t`" in reports.render_html(report)
