"""The history on SQLite: what is stored, what a window shows, and what it never stores. tests/lab has the same on MySQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dbops.inventory.fingerprint import fingerprint
from dbops.inventory.history import History, LogPositionsMovedError, Observed, SecondNameError
from dbops.inventory.model import NO_SHOW_VIEW, Gap, Instance, Sighting, Snapshot, TableIo, TableRef

T0 = datetime(2026, 5, 4, 3, 0)
EVER, LATER = datetime(2000, 1, 1), datetime(2030, 1, 1)
STARTED = T0 - timedelta(days=9)
ALL = frozenset(("statements", "prepared", "programs", "table_io", "history"))
SELECT = "SELECT `total` FROM `orders` WHERE `id` = ?"
PRINT = fingerprint(SELECT, is_digest=True)


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    made = History(sa.create_engine(f"sqlite:///{tmp_path}/history.db"))
    made.migrate()
    yield made
    made.engine.dispose()


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def digest(
    executions: int, text: str = SELECT, schema: str | None = "shop", first: datetime = STARTED, **over: Any
) -> Sighting:
    key = over.pop("digest", fingerprint(text)[:32])
    values: dict[str, Any] = {
        "is_digest": True, "digest": key, "executions": executions, "first_seen": first, "last_seen": first + timedelta(seconds=2),
        "counters": {"total_ms": executions * 1.5, "rows_sent": float(executions)}, "gauges": {"p95_ms": 7.0}, **over,
    }  # fmt: skip
    return Sighting("digest", f"{key}:{schema}" if schema else key, text, schema, **values)


def shot(minutes: float, *sightings: Sighting, name: str = "writer", **over: Any) -> Snapshot:
    total = sum(s.executions or 0 for s in sightings if s.source == "digest")
    values: dict[str, Any] = {
        "event_counts": {"statement/sql/select": total}, "event_errors": 0, "digest_lost": 0, "null_row": 0, "table_io": (), "read": ALL,
        "definitions_read": True, **over,
    }  # fmt: skip
    instance = Instance(
        name,
        values.pop("version", "8.0.15"),
        values.pop("uuid", "u"),
        values.pop("started", STARTED),
        False,
        {"x": "1"},
    )
    return Snapshot(instance, at(minutes), sightings, **values)


def window(history: History, since: datetime = EVER, until: datetime = LATER, **options: Any) -> dict[str, Observed]:
    return {o.fingerprint: o for o in history.window("shop", since, until, **options)}


def test_migrate_twice(history: History) -> None:
    history.migrate()
    assert "inventory_reading" in sa.inspect(history.engine).get_table_names()


def test_first_sight_and_difference(history: History) -> None:
    assert history.record("shop", shot(0, digest(3))).new_statements == 1
    recorded = history.record("shop", shot(15, digest(10, last_seen=at(14))))
    assert (recorded.new_statements, recorded.readings, recorded.coverage.executions_total) == (0, 1, 7)
    whole = window(history)[PRINT]
    assert (whole.schema, whole.text, whole.is_digest, whole.truncated) == ("shop", SELECT, True, False)
    activity = whole.activity
    assert (activity.executions, activity.first_seen, activity.last_seen) == (10, STARTED, at(14))
    assert activity.counters["total_ms"] == 15.0
    assert activity.gauges == {"p95_ms": 7.0}
    assert (activity.instances, activity.sources) == ({"writer"}, {"digest"})
    assert activity.peak_per_second == 7 / 900
    last = window(history, at(0))[PRINT].activity
    assert (last.executions, last.first_seen) == (7, at(0))
    assert window(history, until=at(-1)) == {}


def test_unchanged_statements_add_no_row(history: History) -> None:
    history.record("shop", shot(0, digest(3), table_io=(TableIo(TableRef("shop", "orders"), None, 1, 1, 1, 1),)))
    recorded = history.record(
        "shop", shot(15, digest(3), table_io=(TableIo(TableRef("shop", "orders"), None, 1, 1, 1, 1),))
    )
    assert recorded.readings == 0
    with history.engine.connect() as connection:
        counts = [
            connection.execute(sa.text(f"SELECT COUNT(*) FROM inventory_{t}")).scalar()
            for t in ("reading", "io", "snapshot")
        ]
    assert counts == [1, 1, 2]
    assert history.record("shop", shot(30, digest(5))).coverage.executions_total == 2


def test_same_and_older_snapshots_change_nothing(history: History) -> None:
    first = history.record("shop", shot(15, digest(3)))
    again = history.record("shop", shot(15, digest(999)))
    assert (again.is_new, again.snapshot_id, again.coverage) == (False, first.snapshot_id, first.coverage)
    assert not history.record("shop", shot(0, digest(1))).is_new
    assert history.record("other", shot(15, digest(4))).is_new
    assert window(history)[PRINT].activity.executions == 3


def test_a_row_that_comes_back_after_a_truncate_is_not_a_second_reset(history: History) -> None:
    other = "SELECT ? FROM `audit`"
    history.record("shop", shot(0, digest(5), digest(50, other)))
    assert (
        len(history.record("shop", shot(15, digest(1, first=at(1)), event_counts={"statement/sql/select": 56})).resets)
        == 1
    )
    assert (
        history.record("shop", shot(30, digest(2, first=at(1)), event_counts={"statement/sql/select": 57})).resets == ()
    )
    back = shot(45, digest(2, first=at(1)), digest(60, other, first=at(40)), event_counts={"statement/sql/select": 117})
    assert history.record("shop", back).resets == ()
    found = window(history)
    assert found[PRINT].activity.executions == 7
    assert found[fingerprint(other, is_digest=True)].activity.executions == 110


def test_version_change_keeps_the_statement(history: History) -> None:
    history.record(
        "shop", shot(0, digest(5, "SELECT `a` FROM `t` WHERE `b` IN (...) ", digest="5" * 32), version="5.7.22")
    )
    new = shot(
        15, digest(2, "SELECT `a` FROM `t` WHERE `b` IN (?)", digest="8" * 64, first=at(1)), uuid="v", started=at(1)
    )
    assert "another server answers" in history.record("shop", new).resets[0]
    (found,) = history.window("shop", EVER, LATER)
    assert found.activity.executions == 7


def test_several_instances(history: History) -> None:
    history.record("shop", shot(0, digest(5)))
    history.record("shop", shot(0, digest(6), name="reader"))
    activity = window(history)[PRINT].activity
    assert (activity.executions, activity.instances) == (11, {"writer", "reader"})
    assert [i.instance for i in history.coverage("shop", EVER, LATER)] == ["reader", "writer"]


def test_no_schema_and_several_schemas_are_different_statements(history: History) -> None:
    history.record("shop", shot(0, digest(5), digest(6, schema=None), digest(7, schema="crm")))
    assert {(o.schema, o.activity.executions) for o in history.window("shop", EVER, LATER)} == {
        ("shop", 5),
        (None, 6),
        ("crm", 7),
    }


def test_whole_text_from_the_best_source_without_values(history: History) -> None:
    query = "/* controller='orders',action='show%20one',traceparent='00-aa' */ SELECT total FROM orders WHERE id = 4711 -- job 77 nightly"
    assert fingerprint(query) == PRINT
    sample = Sighting(
        "sample", "s", query, "shop", digest=digest(1).digest, last_seen=at(1), user="app", host="10.0.0.7"
    )
    recorded = history.record("shop", shot(0, digest(5), sample))
    assert recorded.readings == 1  # the digest's: its sample adds text, not activity
    found = window(history)[PRINT]
    assert (found.text, found.is_digest) == ("SELECT total FROM orders WHERE id = ?", False)
    assert found.activity.callers == {"action=show one,controller=orders", "job ? nightly"}
    assert found.activity.users == {"app@10.0.0.7"}
    log = Sighting(
        "slow_log",
        "f",
        "SELECT  total  FROM orders WHERE id = 1",
        "shop",
        executions=2,
        first_seen=at(3),
        last_seen=at(4),
    )
    history.record("shop", shot(15, digest(6), log))
    found = window(history)[PRINT]
    assert (found.text, found.activity.sources) == ("SELECT total FROM orders WHERE id = ?", {"digest", "slow_log"})
    assert found.activity.executions == 6  # one witness is believed, they are not added up
    with history.engine.connect() as connection:
        assert "4711" not in repr(connection.execute(sa.text("SELECT * FROM inventory_text")).all())


def test_a_log_counts_what_no_digest_shows(history: History) -> None:
    log = Sighting(
        "slow_log", "f", "DELETE FROM t WHERE id = 9", "shop", executions=4, first_seen=at(3), last_seen=at(4)
    )
    history.record("shop", shot(0, log))
    history.record("shop", shot(15, replace(log, executions=3, first_seen=at(13), last_seen=at(14))))
    activity = window(history)[fingerprint("DELETE FROM t WHERE id = 1")].activity
    assert (activity.executions, activity.first_seen, activity.last_seen) == (7, at(3), at(14))


def test_callers_from_logs_and_positions(history: History) -> None:
    log = Sighting("slow_log", "f", "DELETE FROM t WHERE id = 9", "shop", executions=4, first_seen=at(3), last_seen=at(4), user="app",
                   host="h", callers=frozenset(("action=buy,job=?", "nightly ? of ?")))  # fmt: skip
    assert history.log_positions("shop", "writer") == {}
    history.record("shop", shot(0, log, replace(log, user="root"), log_positions={"a": "10", "b": "1"}))
    history.record("shop", shot(15, log_positions={"a": "20"}, read=frozenset(), event_counts={}))
    activity = next(iter(window(history).values())).activity
    assert activity.callers == {"action=buy,job=?", "nightly ? of ?"}
    assert activity.users == {"app@h", "root@h"}
    assert activity.executions == 8  # two users, one statement
    assert history.log_positions("shop", "writer") == {"a": "20", "b": "1"}


def test_every_user_of_a_log_s_statement_is_kept(history: History) -> None:
    users = frozenset(("app@10.0.0.1", "batch@10.0.0.2", "root@"))
    history.record("shop", shot(0, replace(logged("DELETE FROM t WHERE id = 9", 4, -2, -1), users=users)))
    activity = next(iter(window(history).values())).activity
    assert activity.users == {"app@10.0.0.1", "batch@10.0.0.2", "root"}


def test_logs_are_kept_when_the_counters_are_not_readable(history: History) -> None:
    log = Sighting(
        "slow_log", "f", "DELETE FROM t WHERE id = 9", "shop", executions=4, first_seen=at(3), last_seen=at(4)
    )
    gap = Gap("statements", "not readable", "GRANT", "none")
    recorded = history.record("shop", shot(0, log, read=frozenset(), event_counts={}, gaps=(gap,)))
    assert (recorded.coverage.measured, recorded.coverage.gaps) == (False, (gap,))
    assert next(iter(window(history).values())).activity.executions == 4


def test_an_unreadable_snapshot_in_between_loses_nothing(history: History) -> None:
    table = TableRef("shop", "orders")
    history.record("shop", shot(0, digest(3), table_io=(TableIo(table, None, 10, 0, 0, 0),)))
    history.record("shop", shot(15, read=frozenset(), event_counts={}))
    history.record("shop", shot(30, digest(8), read=ALL - {"table_io"}))
    recorded = history.record("shop", shot(45, digest(9), table_io=(TableIo(table, None, 17, 0, 0, 0),)))
    assert recorded.resets == ()
    assert window(history)[PRINT].activity.executions == 9
    assert [i.coverage.executions_total for i in history.coverage("shop", EVER, LATER)] == [3, 0, 5, 1]
    (io,) = history.table_io("shop", at(20), LATER)
    assert (io.fetched, io.moved) == (7, {"fetched": (at(0), at(45))})


def test_prepared_statements_of_many_sessions(history: History) -> None:
    def prepared(session: int, executions: int, schema: str = "shop") -> Sighting:
        return Sighting(
            "prepared",
            f"hash:{session}:1",
            "SELECT a FROM t WHERE b = ?",
            schema,
            executions=executions,
            user="app",
            host="h",
        )

    history.record("shop", shot(0, prepared(1, 5), prepared(2, 1), event_counts={"statement/com/Execute": 6}))
    # session 1 has closed, 2 goes on, 3 is new
    recorded = history.record(
        "shop", shot(15, prepared(2, 4), prepared(3, 2), event_counts={"statement/com/Execute": 13})
    )
    assert (recorded.readings, recorded.coverage.prepared) == (1, 7)
    assert [(g.what, g.executions) for g in recorded.coverage.gaps] == [("server-side prepared statements", 2)]
    (found,) = history.window("shop", EVER, LATER)
    assert (found.activity.executions, found.activity.users, found.activity.sources) == (11, {"app@h"}, {"prepared"})
    # the source fails once: its state is kept
    history.record("shop", shot(30, read=ALL - {"prepared"}, event_counts={"statement/com/Execute": 13}))
    history.record("shop", shot(45, prepared(2, 5), event_counts={"statement/com/Execute": 14}))
    assert window(history)[found.fingerprint].activity.executions == 12


def test_own_statements_are_remembered_and_left_out(history: History) -> None:
    show = digest(2, "SHOW GLOBAL STATUS WHERE `Variable_name` IN (...) OR `Variable_name` = ?", None)
    history.record("shop", shot(0, digest(1), replace(show, own=True)))
    later = history.record("shop", shot(15, digest(2), replace(show, executions=5)))  # its text is not seen any more
    assert later.coverage.own == 3
    assert set(window(history)) == {PRINT}
    assert len(window(history, with_own=True)) == 2
    assert set(history.previous_statements("shop", LATER)) == {("shop", PRINT)}


def test_digests_of_a_view_are_recognised_by_its_body(history: History) -> None:
    body = "select `shop`.`orders`.`id` AS `id` from `shop`.`orders` where (`shop`.`orders`.`status` = 'open')"
    view = Sighting("routine", "view shop.v:x", body, "shop", program="view shop.v")
    merged = digest(
        4, "SELECT `shop` . `orders` . `id` AS `id` FROM `shop` . `orders` WHERE ( `shop` . `orders` . `status` = ? )"
    )
    history.record("shop", shot(0, view))
    ledger = history.record("shop", shot(15, merged)).coverage
    assert [(g.what, g.executions) for g in ledger.gaps] == [("statements over views", 4)]
    (found,) = history.window("shop", EVER, LATER)
    assert (found.activity.programs, found.activity.executions) == ({"view shop.v"}, 4)


def test_a_digest_that_was_cut_takes_the_identity_of_its_whole_sample(history: History) -> None:
    cut = digest(4, "SELECT `a` , `b` ,", truncated=True)
    sample = Sighting("sample", "s", "SELECT a, b, c FROM t", "shop", digest=cut.digest, last_seen=at(1))
    history.record("shop", shot(0, cut, sample))
    (found,) = history.window("shop", EVER, LATER)
    assert (found.text, found.truncated, found.activity.executions) == ("SELECT a, b, c FROM t", False, 4)
    assert found.fingerprint == fingerprint("SELECT a, b, c FROM t")


def test_a_cut_digest_of_several_statements_is_none_of_them(history: History) -> None:
    """What the first sample was is not what all executions were: the tables behind the cut are not known."""
    cut = digest(1, "SELECT `a` , `b` ,", truncated=True)
    texts = ["SELECT a, b, c FROM t", "SELECT a, b, d FROM u"]
    samples = [Sighting("sample", t, t, "shop", digest=cut.digest, last_seen=at(1)) for t in texts]
    history.record("shop", shot(0, cut, samples[0]))
    history.record(
        "shop", shot(15, replace(cut, executions=9, last_seen=at(10)), replace(samples[1], last_seen=at(12)))
    )
    found = {o.text: o for o in history.window("shop", EVER, LATER)}
    assert {text: (o.truncated, o.activity.executions) for text, o in found.items()} == {
        "SELECT `a` , `b` ,": (True, 9), texts[0]: (False, 0), texts[1]: (False, 0),
    }  # fmt: skip
    assert found["SELECT `a` , `b` ,"].fingerprint == fingerprint(cut.text, is_digest=True, truncated=True)


def test_routine_bodies_are_in_every_window_in_which_they_were_read(history: History) -> None:
    body = Sighting("routine", "procedure shop.p:x", "DELETE FROM t WHERE id = n", "shop", program="procedure shop.p")
    history.record("shop", shot(0, body))
    history.record("shop", shot(15, body))
    history.record("shop", shot(30))
    (found,) = history.window("shop", at(0), at(20))
    assert (found.activity.executions, found.activity.programs, found.activity.last_seen) == (
        0,
        {"procedure shop.p"},
        None,
    )
    assert history.window("shop", at(20), at(40)) == []


def test_table_io(history: History) -> None:
    orders, audit = TableRef("shop", "orders"), TableRef("shop", "audit")
    history.record(
        "shop",
        shot(
            0,
            table_io=(
                TableIo(orders, None, 100, 3, 0, 0),
                TableIo(orders, "", 90, 3, 0, 0),
                TableIo(audit, None, 0, 0, 0, 0),
            ),
        ),
    )
    history.record(
        "shop",
        shot(
            15,
            table_io=(
                TableIo(orders, None, 100, 5, 0, 0),
                TableIo(orders, "", 90, 5, 0, 0),
                TableIo(audit, None, 0, 0, 0, 0),
            ),
        ),
    )
    history.record(
        "shop",
        shot(
            30,
            table_io=(
                TableIo(orders, None, 100, 5, 0, 0),
                TableIo(orders, "", 90, 5, 0, 0),
                TableIo(audit, None, 0, 0, 0, 0),
            ),
        ),
    )
    found = {(t.table, t.index): t for t in history.table_io("shop", at(0), LATER)}
    assert (found[orders, None].fetched, found[orders, None].inserted) == (0, 2)
    assert found[orders, None].moved == {"fetched": (STARTED, at(0)), "inserted": (at(0), at(15))}
    assert found[orders, ""].inserted == 2
    assert (found[audit, None].fetched, found[audit, None].moved) == (0, {})  # there, and never moved
    # restart: audit is not opened again until later, with more rows than the former server had counted for orders
    restarted = {"started": at(31), "event_counts": {}}
    history.record("shop", shot(45, table_io=(TableIo(orders, None, 7, 0, 0, 0),), **restarted))
    history.record(
        "shop", shot(60, table_io=(TableIo(orders, None, 7, 0, 0, 0), TableIo(orders, "", 200, 9, 0, 0)), **restarted)
    )
    found = {(t.table, t.index): t for t in history.table_io("shop", at(40), LATER)}
    assert (found[orders, None].fetched, found[orders, ""].fetched) == (7, 200)


def test_coverage_comes_back_as_it_was(history: History) -> None:
    gap = Gap("x", "y", "z", "c", 5)
    first = history.record("shop", shot(0, digest(3), gaps=(gap,)))
    second = history.record("shop", shot(15, digest(1, first=at(1)), null_row=4))
    stored = history.coverage("shop", EVER, LATER)
    assert [i.coverage for i in stored] == [first.coverage, second.coverage]
    assert [(i.since, i.until, i.version) for i in stored] == [(None, at(0), "8.0.15"), (at(0), at(15), "8.0.15")]
    assert history.coverage("shop", at(0), LATER) == stored[1:]


def test_only_real_conflicts_are_tried_again(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def deadlock(spec: str, snapshot: Snapshot, others: Any) -> Any:
        tries.append(spec)
        if len(tries) < 3:
            raise sa.exc.OperationalError("INSERT", {}, Exception(1213, "Deadlock found"))
        return "done"

    monkeypatch.setattr(history, "_record", deadlock)
    assert history.record("shop", shot(0)) == "done"
    assert len(tries) == 3
    monkeypatch.setattr(
        history,
        "_record",
        lambda *_: (_ for _ in ()).throw(sa.exc.OperationalError("X", {}, Exception(1045, "denied"))),
    )
    with pytest.raises(sa.exc.OperationalError, match="denied"):
        history.record("shop", shot(0))


GAP_PREPARED = "server-side prepared statements"


def logged(text: str, executions: int, first: float, last: float) -> Sighting:
    return Sighting("slow_log", text, text, "shop", executions=executions, first_seen=at(first), last_seen=at(last))


def gaps_with(history: History, *sightings: Sighting) -> dict[str, int | None]:
    """Of an interval with 10 executions of prepared statements that nobody saw, and 3 of a digest."""
    history.record("shop", shot(0, event_counts={}))
    events = {"statement/com/Execute": 10, "statement/sql/select": 3}
    ledger = history.record("shop", shot(15, digest(3), *sightings, event_counts=events)).coverage
    assert ledger.explained + sum(gap.executions or 0 for gap in ledger.gaps) == ledger.executions_total
    return {gap.what: gap.executions for gap in ledger.gaps}


@pytest.mark.parametrize(
    ("text", "first", "last", "left"),
    [
        ("DELETE FROM t WHERE id = 9", 1, 14, 6),
        ("DELETE FROM t WHERE id = 9", -60, -50, 10),  # before the interval
        ("DELETE FROM t WHERE id = 9", -1, 14, 10),  # part of it before the interval
        ("DELETE FROM t WHERE id = 9", 1, 16, 10),
        ("SELECT total FROM orders WHERE id = 9", 1, 14, 10),  # a digest names it
    ],
)
def test_a_log_closes_gaps_of_its_own_interval_only(
    history: History, text: str, first: float, last: float, left: int
) -> None:
    assert gaps_with(history, logged(text, 4, first, last)) == {GAP_PREPARED: left}


def test_a_log_from_before_a_restart_closes_nothing_after_it(history: History) -> None:
    history.record("shop", shot(0, event_counts={}))
    restarted = shot(15, logged("DELETE FROM t", 4, 1, 2), event_counts={"statement/com/Execute": 4}, started=at(10))
    assert (GAP_PREPARED, 4) in [(g.what, g.executions) for g in history.record("shop", restarted).coverage.gaps]


def test_instances_with_different_witnesses_are_added_up(history: History) -> None:
    history.record("shop", shot(0, digest(100, counters={"rows_sent": 100.0})))
    log = replace(logged(SELECT, 70, -10, -1), counters={"rows_sent": 70.0})
    history.record("shop", shot(0, log, digest(3, counters={"rows_sent": 3.0}), name="reader"))
    activity = window(history)[PRINT].activity
    assert (activity.executions, activity.counters["rows_sent"]) == (170, 170.0)


def test_a_log_that_was_read_twice_is_refused(history: History) -> None:
    log = logged("DELETE FROM t WHERE id = 9", 4, 1, 2)
    history.record("shop", shot(0, log_positions={"a": "10"}, log_positions_before={}))
    with pytest.raises(LogPositionsMovedError, match="another snapshot has read a meanwhile"):
        history.record("shop", shot(15, log, log_positions={"a": "20"}, log_positions_before={}))
    assert window(history) == {}
    assert len(history.coverage("shop", EVER, LATER)) == 1
    assert history.record("shop", shot(30, log, log_positions={"a": "20"}, log_positions_before={"a": "10"})).is_new


def test_views_must_be_known_before_anything_is_explained(history: History) -> None:
    body = Sighting("routine", "view shop.v:x", "select 1 from t", "shop", program="view shop.v")
    hidden = Gap("definition of 1 views: shop.w", NO_SHOW_VIEW, "GRANT")

    def explained(shot_: Snapshot) -> tuple[int, int]:
        ledger = history.record("shop", replace(shot_, definitions_read=False)).coverage
        return ledger.explained, ledger.executions_total

    assert explained(shot(0, digest(3))) == (0, 3)
    assert explained(shot(15, digest(5), body)) == (2, 2)
    assert explained(shot(30, digest(6), body, gaps=(hidden,))) == (0, 1)
    assert explained(shot(45, digest(8))) == (0, 2)
    assert history.record("shop", shot(60, digest(9))).coverage.explained == 1
    assert explained(shot(75, digest(12))) == (3, 3)


def test_programs_that_build_sql_are_remembered(history: History) -> None:
    body = [
        Sighting("routine", f"procedure shop.p:{text}", text, "shop", program="procedure shop.p")
        for text in ("SET @s = 'DELETE'", "prepare x from @s", "EXECUTE x")
    ]
    history.record("shop", shot(0, *body))
    inside = {"event_counts": {"statement/sp/stmt": 4}, "program_statements": {"procedure shop.p": 4}}
    ledger = history.record("shop", shot(15, **inside)).coverage
    assert [(g.what, g.executions) for g in ledger.gaps] == [("SQL that programs build", 4)]


def test_a_server_that_comes_back_has_counted_on(history: History) -> None:
    """A failover and back, and forth and back again: each execution of each server counts once."""
    other, table = "SELECT ? FROM `audit`", TableRef("shop", "orders")

    def a(minutes: float, n: int, *more: Sighting, **over: Any) -> Any:
        return history.record(
            "shop", shot(minutes, digest(n), *more, table_io=(TableIo(table, None, n, 0, 0, 0),), **over)
        )

    a(0, 5, digest(100, other))
    assert a(15, 1, uuid="v").coverage.gaps[0].what == "the time before a restart"
    back = a(30, 9, digest(100, other))
    assert "server: server_uuid is u again: another one had taken over" in back.resets
    assert (back.coverage.executions_total, back.coverage.since, back.coverage.until) == (4, at(0), at(30))
    assert "the time before a failover" in {gap.what for gap in back.coverage.gaps}
    assert back.coverage.unmeasured_s == 15 * 60  # of the other one
    assert a(45, 10, digest(100, other)).coverage.executions_total == 1  # not compared with what v had shown
    forth = a(60, 4, uuid="v")
    assert (forth.coverage.executions_total, forth.coverage.since) == (3, at(15))
    assert a(75, 12, digest(102, other)).coverage.executions_total == 4
    found = window(history)
    assert found[PRINT].activity.executions == 12 + 4
    assert found[fingerprint(other, is_digest=True)].activity.executions == 102
    (io,) = history.table_io("shop", EVER, LATER)
    assert io.fetched == 12 + 4
    again = a(90, 9, uuid="v", started=at(80))  # restarted meanwhile
    assert again.coverage.executions_total == 9
    assert "counted twice" not in repr(again.coverage.gaps)


def test_an_unreadable_snapshot_while_another_server_answers(history: History) -> None:
    history.record("shop", shot(0, digest(5)))
    history.record("shop", shot(15, uuid="v", read=frozenset(), event_counts={}))
    assert history.record("shop", shot(30, digest(7))).coverage.executions_total == 2
    history.record("shop", shot(45, digest(1), uuid="v"))
    history.record("shop", shot(60, read=frozenset(), event_counts={}))
    assert history.record("shop", shot(75, digest(2), uuid="v")).coverage.executions_total == 1
    assert history.record("shop", shot(90, digest(9))).coverage.executions_total == 2
    assert window(history)[PRINT].activity.executions == 9 + 2


def test_what_another_server_had_counted_before_it_took_over_is_no_interval(history: History) -> None:
    """Its counters are those of months: neither a rate of these 15 minutes nor a share of them."""
    history.record("shop", shot(0, digest(5)))
    taken_over = history.record("shop", shot(15, digest(9_000_000), uuid="v"))
    assert taken_over.coverage.since is None
    assert [i.since for i in history.coverage("shop", EVER, LATER)] == [None, None]
    assert window(history)[PRINT].activity.peak_per_second is None
    fresh = history.record("shop", shot(30, digest(9, first=at(20)), uuid="w", started=at(20)))
    assert fresh.coverage.since == at(15)
    assert window(history)[PRINT].activity.peak_per_second == 9 / 900


def test_one_server_under_two_names_is_refused(history: History) -> None:
    names = ["writer", "reader"]
    history.record("shop", shot(0, digest(5)), names)
    with pytest.raises(SecondNameError, match="instance reader is the server of instance writer"):
        history.record("shop", shot(1, digest(5), name="reader"), names)
    assert window(history)[PRINT].activity.executions == 5
    history.record("shop", shot(2, digest(3), name="reader", uuid="v"), names)
    with pytest.raises(SecondNameError, match="instance writer is the server of instance reader"):
        history.record("shop", shot(15, digest(3), uuid="v"), names)  # a failover under a name that is the cluster's
    assert history.record("shop", shot(30, digest(6)), names).coverage.executions_total == 1
    history.record("other", shot(30, digest(6)), names)


def test_two_instances_that_change_places_are_named_and_go_on(history: History) -> None:
    """As the endpoints of a cluster do at a failover."""
    names = ["writer", "reader"]
    history.record("shop", shot(0, digest(5)), names)
    history.record("shop", shot(0, digest(3), name="reader", uuid="v"), names)
    for minutes in (15, 60):
        with pytest.raises(SecondNameError, match="instance writer is the server of instance reader"):
            history.record("shop", shot(minutes, digest(4), uuid="v"), names)
    swapped = history.record("shop", shot(61, digest(4), uuid="v"), names)
    assert "executions that are counted twice" in {g.what for g in swapped.coverage.gaps}
    other = history.record("shop", shot(61, digest(6), name="reader"), names)
    assert "executions that are counted twice" in {g.what for g in other.coverage.gaps}
    assert history.record("shop", shot(76, digest(9), uuid="v"), names).coverage.executions_total == 5


def test_an_instance_that_got_another_name_is_named(history: History) -> None:
    history.record("shop", shot(0, digest(5)), ["reader"])
    renamed = history.record("shop", shot(15, digest(6), name="shop-1"), ["reader"])
    assert [g.what for g in renamed.coverage.gaps] == ["executions that are counted twice"]
    assert not history.record("shop", shot(30, digest(6), name="shop-1"), ["reader"]).coverage.gaps


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("SELECT a FROM t WHERE b = 'it's Secret now'", "SELECT a FROM t WHERE b = ?"),
        ("SELECT a FROM t WHERE b = 'C:\\' AND c <> 'Secret Word'", "SELECT a FROM t WHERE b = ?"),
        ("INSERT INTO t VALUES ('it\\'s Secret', 'don\\'t')", "INSERT INTO t VALUES ( ?"),
        ("SELECT a FROM t WHERE b = 'it\\'s' AND c = 1", "SELECT a FROM t WHERE b = ? AND c = ?"),
        ("SELECT a FROM `t WHERE b = Secret", "SELECT a FROM ?"),
        ("`Secret", "?"),
    ],
)
def test_what_may_be_a_value_is_not_stored(history: History, text: str, stored: str) -> None:
    history.record("shop", shot(0, logged(text, 1, -2, -1)))
    (found,) = history.window("shop", EVER, LATER)
    assert (found.text, found.truncated, found.fingerprint) == (stored, stored.count("?") == 1, fingerprint(text))
    with history.engine.connect() as connection:
        assert "Secret" not in repr(connection.execute(sa.text("SELECT * FROM inventory_text")).all())


def test_generated_columns_are_no_part_of_a_digest(history: History) -> None:
    history.record("shop", shot(0, digest(1, f"{SELECT} PARSE_GCOL_EXPR ( ( `a` * ? ) ) ", digest="d1")))
    (found,) = history.window("shop", EVER, LATER)
    assert (found.text, found.fingerprint) == (SELECT, PRINT)
