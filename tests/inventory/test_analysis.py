"""The analysis and its report: what is compared with what, when nothing may be advised, and what an alarm is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from dbops.inventory import analysis, summary
from dbops.inventory.access import Plan, PlanTable
from dbops.inventory.analysis import Evidence, Inventory
from dbops.inventory.coverage import Coverage
from dbops.inventory.fingerprint import fingerprint
from dbops.inventory.history import History, Interval, Observed
from dbops.inventory.model import Activity, Gap, Sighting, Snapshot, TableRef
from dbops.inventory.results import Results
from dbops.inventory.spec import InventorySpec
from dbops.inventory.text import mask_literals
from dbops.inventory.trials import Trial, run
from dbops.inventory.upgrade import Finding
from dbops.reports import Table, Verdict, render_html
from tests.inventory import shop

DAY = timedelta(days=1)


def spec(**over: Any) -> InventorySpec:
    return InventorySpec.model_validate({
        "name": "shop", "description": "d", "owner": "o", "instances": [{"name": "writer", "connection": "mysql_default"}],
        "under_migration": ["shop.carts"], **over,
    })  # fmt: skip


def observed(text: str, executions: int = 10, **over: Any) -> Observed:
    activity = Activity(
        executions=executions,
        first_seen=shop.NOW - 40 * DAY,
        last_seen=shop.NOW,
        instances=frozenset({"writer"}),
        **over,
    )
    return Observed("shop", fingerprint(text), mask_literals(text), False, False, activity)


def interval(
    explained: int = 1000, total: int = 1000, instance: str = "writer", gaps: tuple[Gap, ...] = ()
) -> Interval:
    since, until = shop.NOW - 36 * DAY, shop.NOW - timedelta(minutes=1)
    ledger = Coverage(total, total, 0, 0, 0, 0, 0, explained, gaps, since=since, until=until)
    return Interval(instance, since, until, ledger, "5.7.22")


def analysed(
    *texts: str, before: Inventory | None = None, given: InventorySpec | None = None, **over: Any
) -> Inventory:
    values = {
        "since": shop.NOW - 35 * DAY, "until": shop.NOW, "observed": [observed(t) for t in texts], "intervals": [interval()],
        "table_io": [], "trials": {}, "catalog": shop.CATALOG, "gaps": (),
        "before": (shop.NOW - DAY, before.document()) if before else None, **over,
    }  # fmt: skip
    return analysis.analyse(given or spec(), Evidence(**values))


READ = "SELECT body FROM carts WHERE token = 'x'"


def test_the_first_analysis_has_nothing_to_compare_with() -> None:
    found = analysed(READ)
    assert (found.compared_with, found.changes, found.alarms) == (None, [], [])


def test_new_gone_and_changed_statements_are_told_apart() -> None:
    before = analysed(READ, "SELECT name FROM products WHERE sku = 'a'")
    without_index = replace(shop.CATALOG, tables={
        t: replace(d, indexes=()) if t == TableRef("shop", "carts") else d for t, d in shop.CATALOG.tables.items()
    })  # fmt: skip
    found = analysed(READ, "DELETE FROM orders WHERE id = 3", before=before, catalog=without_index)
    changes = {(c.kind, c.text.split()[0], c.was, c.now) for c in found.changes if c.text}
    assert changes == {
        ("new", "DELETE", "", "shop.order_items: indirect, shop.orders: point"),
        ("gone", "SELECT", "shop.products: point", ""),
        ("class", "SELECT", "shop.carts: point", "shop.carts: scan"),
    }  # fmt: skip
    assert found.alarms == []


@pytest.mark.parametrize(
    ("text", "alarms"),
    [
        ("DELETE FROM carts WHERE token = 'x'", 1), ("REPLACE INTO carts (token, hits) VALUES ('x', 1)", 1),
        ("TRUNCATE TABLE carts", 1), ("SELECT hits FROM carts WHERE token = 'x'", 0),
        ("UPDATE products SET price = 1 WHERE sku = 'a'", 0),
    ],
)  # fmt: skip
def test_a_new_write_on_a_table_under_migration_is_an_alarm(text: str, alarms: int) -> None:
    found = analysed(READ, text, before=analysed(READ))
    assert len(found.alarms) == alarms
    assert summary.judge(found)[1][0].startswith("new write on a table under migration: shop.carts") is bool(alarms)
    assert analysed(READ, text, before=analysed(READ, text)).alarms == []


def test_an_instance_without_a_snapshot_makes_everything_undecidable() -> None:
    two = spec(instances=[{"name": "writer", "connection": "a"}, {"name": "reader", "connection": "b"}])
    found = analysed(READ, given=two)
    assert found.unseen == ("reader",)
    assert {a.store for a in found.advice} == {"not decidable"}
    verdict, reasons = summary.judge(found)
    assert verdict is Verdict.WARNING
    assert "instance reader has no snapshot near the end of the window" in reasons
    assert {a.store for a in analysed(READ).advice} != {"not decidable"}


def test_an_instance_that_nobody_watched_to_the_end_is_not_watched() -> None:
    old = replace(interval(), until=shop.NOW - 20 * DAY)
    found = analysed(READ, intervals=[old])
    assert found.unseen == ("writer",)
    assert {a.store for a in found.advice} == {"not decidable"}
    (gap,) = [g for g in found.gaps if g.what == "instance writer"]
    assert "2026-06-11" in gap.why


OFF = Gap("every execution", "performance_schema is OFF", "set it ON", "a restart", blind=True)
TWO = [{"name": "writer", "connection": "a"}, {"name": "reader", "connection": "b"}]


@pytest.mark.parametrize("executions", [0, 500])
def test_an_instance_that_cannot_count_what_it_runs_makes_everything_undecidable(executions: int) -> None:
    """Neither a server that shows nothing nor one that counts a part only may hide behind the figures of another instance."""
    blind = interval(executions, executions, "reader")
    blind = replace(blind, coverage=replace(blind.coverage, measured=False, gaps=(OFF,)))
    found = analysed(READ, given=spec(instances=TWO), intervals=[interval(), blind])
    assert (found.window.coverage_percent, found.coverage.executions_total, found.unseen) == (0.0, 1000, ("reader",))
    assert OFF in found.gaps
    assert {a.store for a in found.advice} == {"not decidable"}
    assert (
        "instance reader does not count all that it runs: every execution: performance_schema is OFF"
        in summary.judge(found)[1]
    )


def test_an_instance_that_stopped_counting_is_not_watched_to_the_end() -> None:
    until = shop.NOW - 10 * DAY
    good = replace(interval(), until=until, coverage=replace(interval().coverage, until=until))
    denied = replace(interval(0, 0), since=until)
    gap = Gap("statements", "not readable: denied", "GRANT", "none", blind=True)
    denied = replace(denied, coverage=replace(denied.coverage, measured=False, gaps=(gap,)))
    found = analysed(READ, intervals=[good, denied])
    assert (found.unseen, found.window.coverage_percent) == (("writer",), 0.0)
    (named,) = [g for g in found.gaps if g.what == "instance writer"]
    assert "its last snapshot that could count its statements is of 2026-06-21" in named.why
    # it counts again, and nothing was lost: the next snapshot spans the time
    again = replace(interval(), since=until, until=shop.NOW)
    found = analysed(READ, intervals=[good, replace(denied, until=shop.NOW - DAY), again])
    assert (found.unseen, found.window.coverage_percent, found.window.watched >= 34 * DAY) == ((), 100.0, True)


def test_time_in_which_the_server_did_not_count_all_is_not_silence() -> None:
    blind = replace(interval(5, 5), until=shop.NOW - 2 * DAY)
    blind = replace(blind, coverage=replace(blind.coverage, measured=False, gaps=(OFF,)))
    found = analysed(intervals=[blind, replace(interval(), since=blind.until)])
    assert found.window.watched == 2 * DAY
    assert "cold" not in {h.verdict for h in found.heats}
    removed = replace(blind, instance="reader")  # from the spec, as the gap's remedy says
    assert analysed(intervals=[removed, interval()]).window.watched >= 34 * DAY


def test_what_an_idle_instance_cannot_show_is_in_the_report() -> None:
    gap = Gap("consumer events_statements_history", "it is off", "UPDATE", "none")
    found = analysed(READ, given=spec(instances=TWO), intervals=[interval(), interval(0, 0, "reader", gaps=(gap,))])
    assert gap in found.gaps
    assert found.window.coverage_percent == 100.0


def test_unwatched_time_before_a_restart_is_not_silence() -> None:
    assert analysed().window.watched >= 34 * DAY
    restarted = replace(interval(), coverage=replace(interval().coverage, resets=("server: it started at x",)))
    found = analysed(intervals=[restarted])
    assert found.window.watched < DAY
    assert "cold" not in {h.verdict for h in found.heats}


def test_unwatched_time_before_the_event_counters_were_truncated_is_not_silence() -> None:
    for reset, watched in (
        ("events: 3 event counters went down", False),
        ("digests: the digest table was truncated", True),
    ):
        found = analysed(intervals=[replace(interval(), coverage=replace(interval().coverage, resets=(reset,)))])
        assert (found.window.watched >= 34 * DAY) is watched


def test_time_before_a_restart_is_taken_off_the_figure() -> None:
    """A restart each night, up to a quarter of an hour after the last snapshot: nobody knows what ran then."""
    hours = [shop.NOW - timedelta(hours=n) for n in range(48, -1, -1)]
    ledger = replace(interval().coverage, resets=("server: it started at x",), unmeasured_s=1440)
    nightly = [
        replace(interval(), since=s, until=u, coverage=ledger if u.hour == shop.NOW.hour else interval().coverage)
        for s, u in pairwise(hours)
    ]
    found = analysed(READ, intervals=nightly)
    assert found.window.coverage_percent == pytest.approx(100 * (1 - 2 * 1440 / (48 * 3600)))
    assert {a.store for a in found.advice} == {"not decidable"}
    assert "48 minutes before restarts were not counted" in summary._figures(found)[0].note


def test_a_failover_and_back_loses_no_more_than_the_last_interval() -> None:
    hours = [shop.NOW - timedelta(hours=n) for n in (900, 2, 1, 0)]
    ledgers = [interval().coverage] * 3
    intervals = [replace(interval(), since=s, until=u) for s, u in pairwise(hours)]
    server = "server: server_uuid is u again: another one had taken over"
    back = replace(intervals[2], since=hours[0], coverage=replace(ledgers[2], resets=(server,)))
    assert analysed(intervals=[intervals[0], intervals[1], back]).window.watched == 35 * DAY
    long = replace(back, until=shop.NOW)
    assert analysed(intervals=[intervals[0], long]).window.watched == timedelta(0)


UNREAD = Coverage(
    0, 0, 0, 0, 0, 0, 0, 0, (Gap("statements", "not readable: denied", "GRANT", "none"),), measured=False
)  # fmt: skip


def test_time_in_which_the_counters_could_not_be_read_is_not_watched() -> None:
    def part(begin: int, end: int, ledger: Coverage) -> Interval:
        return Interval("writer", shop.NOW - begin * DAY, shop.NOW - end * DAY, ledger, "5.7.22")

    counted = interval().coverage
    since_then = analysed(READ, intervals=[part(36, 20, counted), part(20, 0, UNREAD)])
    assert (since_then.window.coverage_percent, since_then.unseen) == (0.0, ("writer",))
    assert {a.store for a in since_then.advice} == {"not decidable"}
    until_then = analysed(READ, intervals=[part(36, 20, UNREAD), part(20, 0, counted)])
    assert until_then.window.watched == 20 * DAY
    # Counters go on while nobody can read them, but not over a restart.
    between = [part(36, 20, counted), part(20, 10, UNREAD), part(10, 0, counted)]
    assert analysed(READ, intervals=between).window.watched >= 34 * DAY
    restarted = replace(counted, resets=("server: it started at x",))
    between = [part(36, 20, counted), part(20, 0.01, UNREAD), part(0.01, 0, restarted)]  # type: ignore[arg-type]
    assert analysed(READ, intervals=between).window.watched < DAY


def test_without_row_counters_silence_is_no_evidence() -> None:
    gap = Gap("table_io", "not readable: denied", "GRANT", "none")
    found = analysed(READ, intervals=[interval(gaps=(gap,))], table_io=[shop.io("products", fetched=1)])
    assert {h.verdict for h in found.heats} == {"hot", "no evidence"}
    assert any("row counters of writer" in h.reason for h in found.heats)
    assert found.unused.items == ()


def test_what_ran_before_the_first_snapshot_does_not_outweigh_what_was_watched() -> None:
    first = replace(interval(4000, 4000), since=None, until=shop.NOW - 36 * DAY)
    found = analysed(READ, intervals=[first, interval(2, 32)])
    assert found.window.coverage_percent == pytest.approx(6.25)
    # The picture shows what the figure says.
    shown = summary._coverage_chart(found).vega["data"]["values"]
    assert {row["what"]: row["executions"] for row in shown} == {"named statements": 2, "other gaps": 30}


def test_a_known_statement_that_becomes_a_writer_is_an_alarm_and_one_that_comes_back_is_not() -> None:
    write = "DELETE FROM carts WHERE token = 'x'"
    back = analysed(READ, write, before=analysed(READ), known=frozenset({("shop", fingerprint(write))}))
    assert (back.alarms, [c.kind for c in back.changes if c.text]) == ([], ["back"])
    unreadable = replace(shop.CATALOG, tables={})
    blind = analysed(READ, write, before=analysed(READ), catalog=unreadable)
    assert blind.alarms == []
    seen = analysed(READ, write, before=blind)
    assert [str(t) for alarm in seen.alarms for t in alarm.writes] == ["shop.carts"]


def test_a_pattern_that_names_no_table_is_said() -> None:
    found = analysed(READ, given=spec(under_migration=["shop.Carts", "shop.nothing"]))
    assert {g.what for g in found.gaps} == {"under_migration shop.Carts", "under_migration shop.nothing"}
    assert any("shop.nothing: no table" in reason for reason in summary.judge(found)[1])
    folding = analysed(READ, "TRUNCATE carts", given=spec(under_migration=["shop.Carts"]), before=analysed(READ),
                       catalog=replace(shop.CATALOG, folds_case=True))  # fmt: skip
    assert len(folding.alarms) == 1


def test_a_schema_that_is_not_there_is_said() -> None:
    found = analysed(READ, given=spec(schemas=["shop", "shpo"]))
    assert [g.what for g in found.gaps] == ["schemas shpo"]
    verdict, reasons = summary.judge(found)
    assert verdict is Verdict.WARNING
    assert any("schemas shpo: no table" in reason for reason in reasons)
    folding = analysed(READ, given=spec(schemas=["Shop"]), catalog=replace(shop.CATALOG, folds_case=True))
    assert (folding.gaps, len(folding.heats)) == ((), len(shop.CATALOG.tables))
    assert [g.what for g in analysed(READ, given=spec(schemas=["Shop"])).gaps] == ["schemas Shop"]


def test_low_coverage_is_a_warning_and_no_snapshot_a_failure() -> None:
    gap = Gap("server-side prepared statements", "closed", "slow log", "I/O", 20)
    found = analysed(READ, intervals=[interval(980, 1000, gaps=(gap,))])
    verdict, reasons = summary.judge(found)
    assert verdict is Verdict.WARNING
    assert "98.00 % of executions are explained" in reasons[0]
    assert summary.judge(analysed(intervals=[]))[0] is Verdict.FAILED


def test_a_user_who_sees_no_table_is_said() -> None:
    found = analysed(READ, catalog=replace(shop.CATALOG, tables={}, views={}), given=spec(under_migration=[]))
    assert any("this user sees no table" in reason for reason in summary.judge(found)[1])
    gap = Gap("definitions (indexes)", "timeout", "grant")
    assert "definitions (indexes): timeout" in summary.judge(analysed(READ, gaps=(gap,)))[1]


def test_only_the_spec_s_schemas_are_judged_but_every_schema_is_resolved() -> None:
    found = analysed(READ, given=spec(schemas=["elsewhere"]))
    assert found.heats == []
    assert {str(u.table) for s in found.statements for u in s.uses} == {"shop.carts"}


def test_the_report_draws_and_writes_every_statement() -> None:
    texts = [
        READ,
        "SELECT o.id FROM orders o JOIN customers c ON c.id = o.customer_id",
        "DELETE FROM carts WHERE token = 'x'",
    ]
    found = analysed(*texts, before=analysed(READ))
    made = summary.report(found, {"dag_id": "query_inventory", "run_id": "r", "provenance": "real AWS"})
    html = render_html(made)
    assert "could not be drawn" not in html
    tables = {part.file: part for part in made.sections if isinstance(part, Table)}
    assert len(tables["statements"].rows) == 3
    assert {row[2] for row in tables["triples"].rows} >= {"shop.carts", "shop.orders", "shop.customers"}
    assert tables["changes"].rows


def sighting(source: Any, text: str, **over: Any) -> Sighting:
    return Sighting(source, text, text, schema="shop", **over)


def test_trials_take_the_best_raw_text_once_and_never_ours() -> None:
    told: list[str] = []

    def check(text: str, schema: str | None) -> list[Finding]:
        told.append(text)
        return [Finding("r", "breaks", "SELECT PASSWORD('secret')", "fix")]

    plan = Plan((PlanTable("carts", "const", "PRIMARY", ("token",), ("PRIMARY",), 1, False, False),), "secret message")
    shot = Snapshot.__new__(Snapshot)
    object.__setattr__(shot, "sightings", (
        sighting("digest", "SELECT `a`", is_digest=True), sighting("history", "SELECT 1 + 1"), sighting("sample", "SELECT 2 + 2"),
        sighting("sample", "SELECT 3 FROM cut", truncated=True), sighting("history", "SELECT 9", own=True),
        sighting("history", "SELECT 4 FROM body", program="procedure shop.p"), sighting("history", "SELECT b FROM t"),
    ))  # fmt: skip
    known = {(fingerprint("SELECT b FROM t"), "shop")}
    tried = run(shot, known, lambda text, schema: plan, check)
    assert told == ["SELECT 2 + 2"]
    ((key, trial),) = tried.items()
    assert key == (fingerprint("SELECT 1 + 1"), "shop")
    assert "secret" not in repr(trial)
    assert Trial.of(**trial.document()) == trial


def test_results_keep_the_newest_trial_and_replace_a_run_s_analysis(tmp_path: Any) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/r.db")
    History(engine).migrate()
    results = Results(engine)
    old, new = Trial(None, (Finding("a", "breaks", "e", "f"),)), Trial(None, ())
    results.add_trials("s", shop.NOW - DAY, "", {("f" * 64, "shop"): old})
    results.add_trials("s", shop.NOW, "8.0.15", {("f" * 64, "shop"): new})
    results.add_trials("s", shop.NOW, "8.0.15", {})
    assert results.trials("s") == {("f" * 64, "shop"): new}
    assert results.trials("other") == {}
    assert results.tried("s", shop.NOW - timedelta(hours=1), "8.0.15") == {("f" * 64, "shop")}
    assert results.tried("s", shop.NOW, "8.0.15") == set()
    assert results.tried("s", shop.NOW - 9 * DAY, "8.0.16") == set()
    results.save_analysis("s", "dag/1", shop.NOW - DAY, {"n": 1})
    results.save_analysis("s", "dag/2", shop.NOW, {"n": 2})
    results.save_analysis("s", "dag/2", shop.NOW + DAY, {"n": 3})
    assert results.analysis_before("s", "dag/2", shop.NOW + 2 * DAY) == (shop.NOW - DAY, {"n": 1})
    assert results.analysis_before("s", "dag/3", shop.NOW + 2 * DAY) == (shop.NOW + DAY, {"n": 3})
    assert results.analysis_before("s", "dag/1", shop.NOW - DAY) is None


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"instances": []}, "at least 1 item"),
        ({"instances": [{"name": "a", "connection": "x"}, {"name": "a", "connection": "y"}]}, "'a' is used twice"),
        (
            {"instances": [{"name": "a", "connection": "x_db"}, {"name": "b", "connection": "X_DB"}]},
            "'x_db' is used twice; one server would count as two",
        ),
        (
            {"logs": [{"source": "file", "instance": "writer", "kind": "slow", "path": "/x"}] * 2},
            "the same slow log is named twice",
        ),
        (
            {"logs": [{"source": "file", "instance": "b", "kind": "slow", "path": "/x"}]},
            "instance 'b' is not one of writer",
        ),
        ({"logs": [{"source": "ftp", "instance": "writer", "kind": "slow"}]}, "'ftp'.*'file', 'rds', 'cloudwatch'"),
        ({"cold_after_days": 40}, "40 is longer than window_days"),
        ({"under_migration": ["carts"]}, "should match pattern"),
        ({"coverage_limit": 101}, "less than or equal to 100"),
    ],
)
def test_a_wrong_spec_says_which_field_and_why(over: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec(**over)
