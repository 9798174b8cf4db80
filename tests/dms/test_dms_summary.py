"""Reports and alerts of DMS tasks: verdicts are fail-closed, nothing is left out silently, no secret comes through."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dbops import reports
from dbops.dms import charts, failures, lint, states, summary
from dbops.dms.decision import Decision
from dbops.dms.ledger import Event, TableFailure
from dbops.dms.mappings import Table
from dbops.dms.plan import Plan, Step
from dbops.dms.summary import Standing
from dbops.reports import Verdict
from tests.dms import dms_kit

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
COMMON: dict[str, Any] = {"dag_id": "dms_task_watch", "run_id": "r1", "provenance": "simulated AWS, real MySQL"}
ORDERS, RIDES = Table("shop", "orders"), Table("shop", "rides")
FINE = Decision("none", "the task is running, and every table is complete")
REFUSED = Decision("refuse", "the log is purged", "Look at the plan, then approve reload_target", "reload_target", True)
RELOAD = Step(
    "reload_tables", "shop-orders", "shop.orders: the task is running without tables that failed", "reload_tables",
    {"ReplicationTaskArn": "@task"}, True,
)  # fmt: skip
SECRET = "Access denied for user 'dms': password=hunter2 <script>alert(1)</script>"


@dataclass(frozen=True)
class Point:
    at: datetime
    value: float


@dataclass(frozen=True)
class Measured:
    latency_source: tuple[Point, ...] = ()
    latency_target: tuple[Point, ...] = ()
    throughput_source: tuple[Point, ...] = ()
    throughput_target: tuple[Point, ...] = ()
    load_rows: tuple[Point, ...] = ()


@dataclass(frozen=True)
class Health:
    verdict: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    table: Table
    status: str
    source_rows: int | None = 10
    target_rows: int | None = 10
    missing: int | None = 0
    extra: int | None = 0
    differing: int | None = 0
    sample: tuple[str, ...] = ()
    reason: str = ""
    not_compared: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    id: str
    status: str
    where: str
    found: str
    fix: str = ""
    overridden: str = ""


HEALTHY = Health("healthy", ("latencies below 60 s",))
UNHEALTHY = Health("unhealthy", ("CDCLatencyTarget has no point",))


def series(*values: float, since: datetime = NOW, step_s: int = 60) -> tuple[Point, ...]:
    return tuple(Point(since + timedelta(seconds=n * step_s), value) for n, value in enumerate(values))


MEASURED = Measured(series(1, 2, 0), series(0, 5, 70), series(10, 10, 10), series(9, 9, 9), ())


def task(**more: Any) -> states.Task:
    return states.task(dms_kit.task_row(**more))


def tables(*given: dict[str, Any]) -> tuple[states.TableStatistics, ...]:
    return tuple(map(states.table_statistics, given or (dms_kit.table_row(),)))


def failing(after: int = 3, table: Table = ORDERS) -> TableFailure:
    return TableFailure(table, after, NOW, "Table error")


FAILED_TABLE = failures.recognise(failures.Evidence(task(), tables(dms_kit.table_row(state="Table error"))))
CONNECTION = failures.recognise(failures.Evidence(task(Status="failed", LastFailureMessage=SECRET)))


def standing(**more: Any) -> Standing:
    """A task that runs, is healthy, and has nothing to be done."""
    given: dict[str, Any] = {
        "spec": dms_kit.spec(), "task": task(), "plan": Plan(FINE), "health": HEALTHY, "tables": tables(), **more,
    }  # fmt: skip
    return Standing(**given)


def named(name: str, **more: Any) -> Standing:
    return standing(spec=dms_kit.spec(name=name), **more)


def section(report: reports.Report, title: str) -> Any:
    return next(part for part in report.sections if part.title.startswith(title))


def titles(report: reports.Report) -> list[str]:
    return [part.title for part in report.sections]


# Verdicts ------------------------------------------------------------------------------------------------------------

WITH_STEP = Plan(Decision("reload_tables", "a table failed"), (RELOAD,))
VERDICTS = {
    "healthy": ({}, Verdict.OK, "healthy: latencies below 60 s"),
    "loading": ({"health": Health("loading", ("2 tables load",))}, Verdict.OK, "loading: 2 tables load"),
    "standing as declared": ({"health": Health("standing", ("declared",))}, Verdict.OK, "standing: declared"),
    "unhealthy": ({"health": UNHEALTHY}, Verdict.FAILED, "unhealthy: CDCLatencyTarget has no point"),
    "a word that is not known": ({"health": Health("splendid", ("x",))}, Verdict.FAILED, "splendid: x"),
    "nobody measured": ({"health": None}, Verdict.WARNING, "its health was not measured"),
    "stopped by hand": ({"health": None, "task": task(Status="stopped")}, Verdict.OK, "every table is complete"),
    "error": ({"error": f"AWS: {SECRET}"}, Verdict.FAILED, "AWS: Access denied"),
    "refused": ({"plan": Plan(FINE, (), ("no instance",))}, Verdict.REFUSED, "refused: no instance"),
    "approval": ({"plan": Plan(REFUSED, (), (), ("approve it",))}, Verdict.REFUSED, "approval: approve it"),
    "refused and unhealthy": ({"plan": Plan(FINE, (), ("no",)), "health": UNHEALTHY}, Verdict.FAILED, "refused: no"),
    "a failure": ({"failures": FAILED_TABLE}, Verdict.FAILED, "table_error: table shop.orders is in state Table error"),
    "a failure that is worked on": (
        {"failures": FAILED_TABLE, "plan": WITH_STEP, "steps": {0: "done"}, "health": Health("loading", ("1 table loads",))},
        Verdict.WARNING, "the steps of this run work on it",
    ),
    "worked on and unhealthy": (
        {"failures": FAILED_TABLE, "plan": WITH_STEP, "steps": {0: "done"}, "health": UNHEALTHY}, Verdict.FAILED, "unhealthy",
    ),
    "unfinished": ({"plan": WITH_STEP, "steps": {0: "noted"}}, Verdict.FAILED, "0 of 1 steps are done, the next is reload_tables"),
    "never begun": ({"plan": WITH_STEP}, Verdict.FAILED, "0 of 1 steps are done"),
    "rows differ": (
        {"comparisons": (Comparison(ORDERS, "differ", missing=2),)}, Verdict.FAILED, "table shop.orders differs: 2 missing",
    ),
    "rows still change": ({"comparisons": (Comparison(ORDERS, "unsettled"),)}, Verdict.WARNING, "1 table could not be compared yet"),
    "not comparable": ({"comparisons": (Comparison(ORDERS, "not comparable"),)}, Verdict.OK, "healthy: latencies below 60 s"),
    "quarantine": ({"failing": (failing(),)}, Verdict.WARNING, "1 table in quarantine, left to a person: shop.orders"),
    "failed twice": ({"failing": (failing(2),)}, Verdict.OK, "healthy: latencies below 60 s"),
}  # fmt: skip


@pytest.mark.parametrize("case", VERDICTS)
def test_verdict(case: str) -> None:
    given, verdict, reason = VERDICTS[case]
    found, reasons = summary.judge(standing(**given))
    assert found is verdict
    assert any(reason in told for told in reasons), reasons
    assert summary.report(standing(**given), COMMON).verdict is verdict


@pytest.mark.parametrize("case", VERDICTS)
def test_a_dry_run_is_one_unless_something_stands_against_it(case: str) -> None:
    given, verdict, _ = VERDICTS[case]
    found, reasons = summary.judge(standing(**given), dry_run=True)
    refused = "error" in given or (given.get("plan") or Plan(FINE)).is_blocked
    assert found is ((Verdict.FAILED if "error" in given else Verdict.REFUSED) if refused else Verdict.DRY_RUN)
    if verdict in (Verdict.FAILED, Verdict.WARNING) and not refused and case not in ("unfinished", "never begun"):
        assert len(reasons) > 1, "a dry run still says what it saw"


# One spec ------------------------------------------------------------------------------------------------------------


def everything() -> Standing:
    return standing(
        task=task(Status="failed", LastFailureMessage=SECRET, RecoveryCheckpoint="checkpoint:1"),
        plan=Plan(REFUSED, (RELOAD,), (), ("approve it",), ("a note",)), steps={0: "noted"},
        failures=(*FAILED_TABLE, *CONNECTION), health=UNHEALTHY, measured=MEASURED,
        tables=tables(dms_kit.table_row("rides"), dms_kit.table_row("orders", "Table error", FullLoadStartTime=NOW)),
        comparisons=(Comparison(RIDES, "equal"), Comparison(ORDERS, "differ", sample=("id=1", "id=2"))),
        checks=(Check("ok", "ok", "source", "fine"), Check("binlogFormat", "stop", "source", "is MIXED", "set ROW")),
        findings=lint.lint(dms_kit.spec(settings={})), failing=(failing(),),
        events=(Event(7, NOW, "dms_task_watch/r1", "decision", "", SECRET, {}),), events_count=431,
    )  # fmt: skip


def test_a_report_has_everything_that_the_run_knows() -> None:
    report = summary.report(everything(), COMMON, action="ensure")
    assert titles(report) == [
        "Decision", "What stands against the plan, and notes", "Plan",
        "Arguments of the calls (@source, @target, @instance, @task: their ARNs)", "Failures that were recognised",
        "Latency and throughput of shop-orders", "Tables, failed ones first", "Rows of source and target, compared",
        "Tables that fail", "Preflight", "Settings and mappings", "Event log, newest first", "The spec as it ran",
    ]  # fmt: skip
    assert (report.spec, report.verdict, report.provenance) == (
        "shop_orders",
        Verdict.FAILED,
        "simulated AWS, real MySQL",
    )
    (step,) = section(report, "Plan").rows
    assert step == [1, "reload_tables", "shop-orders", RELOAD.why, "reload_tables", True, "begun"]
    assert everything().plan.digest in section(report, "Plan").note
    assert [row[0] for row in section(report, "Tables, failed").rows] == ["shop.orders", "shop.rides"]
    assert section(report, "Tables, failed").rows[0][1:3] == ["in quarantine", "Table error"]
    assert [row[1] for row in section(report, "Rows of source").rows] == ["differ", "equal"]
    assert section(report, "Preflight").rows[0][0] == "binlogFormat"
    assert section(report, "Tables that fail").rows == [["shop.orders", 3, 3, True, NOW, "Table error"]]
    assert section(report, "Event log").note.startswith("1 of 431 events shown")
    decided = {row[0]: row[1] for row in section(report, "Decision").rows}
    assert decided["with an approval"] == "reload_target"
    assert decided["safe next step"] == REFUSED.next_step
    symptom, cause, action, names, *_ = next(row for row in section(report, "Failures").rows if row[4] == "table_error")
    assert "Table error" in symptom
    assert (cause, action, names) == (FAILED_TABLE[0].cause, FAILED_TABLE[0].action, "shop.orders")


def test_neither_secrets_nor_scripts_come_through_and_arns_do() -> None:
    plan = Plan(
        FINE, (Step("create_endpoint", "e", "new", "create_endpoint", {"SecretsManagerSecretId": dms_kit.SECRET}),)
    )
    for of in (everything(), standing(plan=plan, error=SECRET)):
        report = summary.report(of, COMMON)
        page, document = reports.render_html(report), json.dumps(report.document())
        for text in (page, document, summary.alert(of.failures, of.decision, of.health), summary.alert_many([of])):
            assert "hunter2" not in text
        assert "<script>alert" not in page
        assert "could not be drawn" not in page
    assert dms_kit.SECRET in section(summary.report(standing(plan=plan), COMMON), "Arguments").body


def test_a_plan_without_steps_says_so_and_an_empty_run_has_a_report() -> None:
    assert section(summary.report(standing(), COMMON), "Plan").body.startswith("There is nothing to do")
    bare = summary.report(Standing(dms_kit.spec()), COMMON)
    assert bare.reasons == ["nothing was asked, and nothing was done"]
    assert titles(bare) == ["The spec as it ran"]


def test_equal_without_a_column_says_which() -> None:
    blind = Comparison(RIDES, "equal", not_compared=("raw: JSON has no order of keys",))
    for report in (
        summary.report(standing(comparisons=(blind,)), COMMON),
        summary.report_many([named("a", comparisons=(blind, Comparison(ORDERS, "equal"))), named("b")], COMMON),
    ):
        (row,) = section(report, "Rows of source").rows
        assert row[-1] == "not compared: raw: JSON has no order of keys"


# Charts --------------------------------------------------------------------------------------------------------------


def drawn(measured: Measured) -> Any:
    return charts.of_task("shop-orders", measured, 60)


def values(chart: Any) -> list[dict[str, Any]]:
    found = json.dumps(chart.vega)
    return [json.loads(one) for one in re.findall(r'\{"at": [^}]*\}', found)]


def test_a_chart_has_both_latencies_their_limit_and_the_throughput() -> None:
    chart = drawn(MEASURED)
    rows = values(chart)
    assert {row["line"] for row in rows} == {
        "source: waiting to be read", "target: waiting to be applied", "read", "applied",
    }  # fmt: skip
    assert max(row["value"] for row in rows if row["line"].startswith("target")) == 70
    assert '"limit": 60' in json.dumps(chart.vega)
    assert "Not measured: loaded." in chart.note
    assert {row["stretch"] for row in rows} == {0}
    page = reports.render_html(summary.report(standing(measured=MEASURED), COMMON))
    assert "<svg" in page
    assert "could not be drawn" not in page


def test_no_line_leads_over_a_gap_and_no_peak_is_lost() -> None:
    later = series(3, 3, since=NOW + timedelta(minutes=30))
    rows = values(drawn(Measured(latency_source=series(1, 1) + later)))
    assert [row["stretch"] for row in rows] == [0, 0, 1, 1]
    many = [0.0] * 3000
    many[1501] = 99.0
    chart = drawn(Measured(latency_source=series(*many)))
    rows = values(chart)
    assert len(rows) <= charts.MAX_POINTS
    assert {row["stretch"] for row in rows} == {0}
    assert max(row["value"] for row in rows) == 99
    assert "largest of each stretch" in chart.note


def test_a_task_without_any_point_says_so() -> None:
    assert drawn(Measured()).kind == "text"


# Many specs ----------------------------------------------------------------------------------------------------------


def fleet(count: int = 200, wrong: int = 20) -> list[Standing]:
    found = [named(f"s{n:03d}", measured=MEASURED) for n in range(count)]
    for n in range(wrong):
        found[count - 1 - n] = replace(
            found[count - 1 - n], health=UNHEALTHY, failures=FAILED_TABLE, failing=(failing(),),
            events=(Event(n, NOW + timedelta(seconds=n), "r", "decision", "", f"why {n}", {}),) * 8, events_count=50,
            comparisons=(Comparison(ORDERS, "differ"),),
        )  # fmt: skip
    found[0] = replace(found[0], plan=Plan(REFUSED, (), (), ("approve it",)), comparisons=(Comparison(RIDES, "equal"),))
    found[1] = replace(found[1], plan=WITH_STEP, steps={0: "done"})
    return found


def test_two_hundred_specs_are_one_report_with_the_worst_first_and_nothing_left_out_silently() -> None:
    report = summary.report_many(fleet(), COMMON)
    assert (report.verdict, report.spec) == (Verdict.FAILED, "")
    overview = report.sections[0]
    assert overview.title == "Every spec, the worst first"
    assert len(overview.rows) == 200 <= overview.shown
    assert [row[1] for row in overview.rows] == ["FAILED"] * 20 + ["REFUSED"] + ["OK"] * 179
    assert overview.rows[0][0] == "s180"
    drawn_charts = [part for part in report.sections if part.kind == "chart"]
    left_out = section(report, "Charts that are not shown").body
    assert len(drawn_charts) == summary.MAX_CHARTS
    assert "9 more specs" in left_out
    assert "s199" in left_out
    assert len(report.reasons) == summary.MAX_REASONS + 1
    assert report.reasons[-1].startswith("and ")
    log = section(report, "Event log")
    assert len(log.rows) == summary.MAX_EVENTS
    assert log.rows[0][0] == max(row[0] for row in log.rows)
    assert log.note.startswith("100 of 1,000 events shown")
    assert len(section(report, "Failures").rows) == 20
    assert len(section(report, "Tables that fail").rows) == 20
    assert [row[0] for row in section(report, "Steps").rows] == ["s001"]
    compared = section(report, "Rows of source")
    assert {row[2] for row in compared.rows} == {"differ"}
    assert compared.note == "1 table found equal."
    assert {figure.label: figure.value for figure in report.figures} == {
        "Specs": "200", "Healthy": "180", "Steps": "1", "Tables in quarantine": "20",
    }  # fmt: skip


def test_the_page_of_two_hundred_specs_is_whole_and_not_huge() -> None:
    page = reports.render_html(summary.report_many(fleet(), COMMON))
    assert len(page) < 3_000_000
    assert "could not be drawn" not in page
    assert all(f"s{n:03d}" in page for n in range(200))


def test_a_run_without_a_spec_is_no_success() -> None:
    report = summary.report_many([], COMMON)
    assert (report.verdict, report.reasons) == (Verdict.WARNING, ["no spec is enabled, so nothing is looked after"])


def test_a_fleet_that_is_fine() -> None:
    report = summary.report_many([named(f"s{n}") for n in range(3)], COMMON)
    assert (report.verdict, report.reasons) == (Verdict.OK, ["3 specs, none needs a look"])
    assert not [part for part in report.sections if part.kind == "chart"]


# Alerts --------------------------------------------------------------------------------------------------------------


def test_an_alert_names_table_reason_and_the_safe_next_step() -> None:
    text = summary.alert(FAILED_TABLE, REFUSED, UNHEALTHY, spec="shop_orders")
    assert re.search(r"^Spec: +shop_orders$", text, re.MULTILINE)
    assert "table shop.orders: table shop.orders is in state Table error" in text
    assert FAILED_TABLE[0].cause in text
    assert "unhealthy: CDCLatencyTarget has no point" in text
    assert "refuse: the log is purged" in text
    assert text.splitlines()[-1].endswith("Look at the plan, then approve reload_target.")


@pytest.mark.parametrize(
    ("found", "decided", "step"),
    [
        (FAILED_TABLE, FINE, "Read the table's error in the task log"),
        ((*FAILED_TABLE, *CONNECTION), FINE, "Test both connections"),
        (FAILED_TABLE, Decision("wait", "it is starting"), "Wait: the next run looks again."),
        ((), FINE, "Read the report."),
        ((), None, "Read the report."),
    ],
)
def test_the_safe_next_step(found: tuple[failures.Failure, ...], decided: Decision | None, step: str) -> None:
    assert step in summary.alert(found, decided, None).splitlines()[-1]


def test_an_alert_of_many_is_short_enough_and_says_whom_it_leaves_out() -> None:
    assert summary.alert_many([standing()]) == ""
    text = summary.alert_many(fleet(200, 150))
    assert len(text) <= summary.ALERT_CHARS
    assert text.startswith("151 of 200 specs need a look.")
    told = re.findall(r"^Spec: +(s\d+)$", text, re.MULTILINE)
    rest = re.search(r"Not told here, see the report: (.*)$", text)
    assert rest is not None
    listed = re.findall(r"s\d{3}", rest[1])
    more = int(re.search(r"and (\d+) more", rest[1])[1])
    assert len(told) + len(listed) + more == 151
    assert not set(told) & set(listed)


def test_an_alert_of_a_spec_that_could_not_be_looked_at() -> None:
    text = summary.alert_many([named("a", error="spec a is being worked on by watch/1")])
    assert re.search(r"^FAILED: +spec a is being worked on by watch/1$", text, re.MULTILINE)
