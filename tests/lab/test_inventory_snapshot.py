"""Snapshots of real servers around a known workload: nothing that the server still showed is lost, and the ledger is the truth."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import mysql.connector
import pytest
import sqlalchemy as sa

from dbops.inventory import catalog, snapshot, stored
from dbops.inventory.coverage import Coverage, combined
from dbops.inventory.fingerprint import fingerprint
from dbops.inventory.history import History, Observed, Recorded
from dbops.inventory.model import Program, Snapshot, TableRef
from lab import config
from tests.lab.inventory_kit import NAMES, Mysqld, now, scratch_history

pytestmark = pytest.mark.lab
SPEC = "shop"
EVER = datetime(2000, 1, 1)
SECRET = "p4ssw0rd-of-Alice"
SCHEMA = """
DROP DATABASE IF EXISTS shop;
DROP DATABASE IF EXISTS crm;
CREATE DATABASE shop;
CREATE DATABASE crm;
CREATE TABLE shop.orders (id INT PRIMARY KEY, customer INT, total INT, status VARCHAR(40));
CREATE TABLE shop.audit (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(100));
CREATE TABLE crm.people (id INT PRIMARY KEY, name VARCHAR(40));
CREATE VIEW shop.open_orders AS SELECT id, total FROM shop.orders WHERE status = 'open';
CREATE PROCEDURE shop.note(IN n INT) INSERT INTO shop.audit (what) VALUES (CONCAT('p4ssw0rd-of-Alice', n));
CREATE TRIGGER shop.orders_upd AFTER UPDATE ON shop.orders FOR EACH ROW INSERT INTO shop.audit (what) VALUES ('changed');
INSERT INTO shop.orders VALUES (1, 1, 1, 'open'), (2, 1, 2, 'open'), (3, 2, 3, 'shut');
INSERT INTO crm.people VALUES (1, 'Ann'), (2, 'Bob')
"""
VIEWS = "SELECT TABLE_SCHEMA, TABLE_NAME, VIEW_DEFINITION FROM information_schema.VIEWS WHERE TABLE_SCHEMA = 'shop'"


@pytest.fixture(scope="module", params=NAMES)
def mysqld(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mysqld]:
    server = Mysqld(request.param, tmp_path_factory.mktemp(request.param))
    yield server
    server.stop()


@pytest.fixture
def server(mysqld: Mysqld) -> Mysqld:
    """Just started with its defaults: every counter of performance_schema begins with the test."""
    mysqld.restart()
    return mysqld


@pytest.fixture
def history() -> Iterator[History]:
    with scratch_history() as made:
        yield made


def load_schema(server: Mysqld) -> None:
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        for statement in filter(None, map(str.strip, SCHEMA.split(";\n"))):
            cursor.execute(statement)


def known(taken: Snapshot) -> Snapshot:
    """As if a full snapshot: until the definitions were read once, no digest is trusted."""
    return replace(taken, definitions_read=True)


def take(server: Mysqld, name: str = "writer", programs: tuple[Program, ...] = (), **options: Any) -> Snapshot:
    with closing(server.connect(**options)) as connection:
        return known(snapshot.take(connection, name, now(), catalog_programs=programs))


def record(history: History, server: Mysqld, **options: Any) -> Recorded:
    return history.record(SPEC, take(server, **options))


def views(server: Mysqld) -> tuple[Program, ...]:
    return tuple(Program("view", *row) for row in server.sql(VIEWS))


def observed(history: History, **options: Any) -> dict[tuple[str | None, str], Observed]:
    return {(o.schema, o.fingerprint): o for o in history.window(SPEC, EVER, now(), **options)}


def executions(history: History, text: str, schema: str | None = None) -> int:
    """Over all windows; 0 when only the text is known. KeyError when the statement was lost."""
    return observed(history)[schema, fingerprint(text)].activity.executions


def gaps(ledger: Coverage) -> dict[str, int | None]:
    return {gap.what: gap.executions for gap in ledger.gaps}


def assert_balanced(ledger: Coverage) -> None:
    assert ledger.explained + sum(gap.executions or 0 for gap in ledger.gaps) == ledger.executions_total


@dataclass
class Workload:
    """Runs statements over every channel and keeps the books."""

    server: Mysqld
    top_level: int = 0
    errors: int = 0
    prepared: int = 0
    in_programs: int = 0
    text: Any = field(init=False)
    binary: Any = field(init=False)

    def __post_init__(self) -> None:
        self.text = self.server.connect()
        self.binary = mysql.connector.connect(
            host=config.HOST, port=self.server.port, user="root", use_pure=True, autocommit=True
        )

    def close(self) -> None:
        self.text.close()
        self.binary.close()

    @property
    def total(self) -> int:
        return self.top_level + self.prepared + self.in_programs

    def run(self, statement: str, times: int = 1, inside: int = 0) -> None:
        """By text protocol; `inside` statements of stored programs run within each."""
        with self.text.cursor() as cursor:
            for _ in range(times):
                cursor.execute(statement)
                cursor.fetchall()
                while cursor.nextset() is not None and cursor.nextset() != -1:
                    pass
        self.top_level += times
        self.in_programs += inside * times

    def fail(self, statement: str) -> None:
        """A statement that does not parse."""
        with self.text.cursor() as cursor, pytest.raises(Exception, match="syntax"):
            cursor.execute(statement)
        self.errors += 1

    def prepare(self, statement: str, values: list[tuple[Any, ...]]) -> Any:
        """By COM_STMT_PREPARE and COM_STMT_EXECUTE; the open cursor, whose close() closes the statement."""
        cursor = self.binary.cursor(prepared=True)
        for value in values:
            cursor.execute(statement, value)
            if cursor.description:
                cursor.fetchall()
        self.prepared += len(values)
        return cursor


@pytest.fixture
def workload(server: Mysqld) -> Iterator[Workload]:
    load_schema(server)
    made = Workload(server)
    yield made
    made.close()


def every_channel(workload: Workload) -> Any:
    """A round of statements over all channels; an open prepared statement is returned."""
    workload.run("SELECT total FROM shop.orders WHERE id = 1", times=5)
    workload.run(
        f"SELECT id FROM shop.orders WHERE status = '{SECRET}' /* controller='orders',action='find' */", times=3
    )
    workload.run(
        "SELECT o.id, p.name FROM shop.orders o JOIN crm.people p ON p.id = o.customer WHERE o.id IN (1, 2, 3)", times=2
    )
    workload.run("DELETE FROM crm.people WHERE id = 77")  # once
    workload.run("SET @id = 1")
    workload.run("CALL shop.note(1)", times=4, inside=1)
    workload.run("UPDATE shop.orders SET total = total + 1 WHERE id = 1", times=3, inside=1)  # the trigger
    workload.fail("SELEC 1")
    workload.text.select_db("crm")
    workload.run("SELECT name FROM people WHERE id = 1", times=2)
    workload.prepare("SELECT status FROM shop.orders WHERE id = %s", [(1,), (2,), (3,)]).close()
    return workload.prepare("UPDATE crm.people SET name = %s WHERE id = %s", [(SECRET, 1), (SECRET, 2)])


# -- the ledger --------------------------------------------------------------------------------------------------------------


def test_an_idle_server_balances_exactly_and_our_own_statements_are_subtracted(
    server: Mysqld, history: History
) -> None:
    load_schema(server)
    first = take(server)
    events = first.event_counts
    top_level = sum(count for name, count in events.items() if name.startswith("statement/sql/"))
    digests = sum(s.executions or 0 for s in first.sightings if s.source == "digest")
    assert top_level - events.get("statement/sql/error", 0) == digests + first.null_row
    assert history.record(SPEC, first).coverage.explained_percent > 99
    for _ in range(3):
        ledger = record(history, server).coverage
        assert (ledger.executions_total, ledger.explained, ledger.gaps, ledger.resets) == (0, 0, (), ())
        # what one snapshot sent after its counters, and the next before: 5 + 5, and SET NAMES
        assert ledger.own == 11 - 1
        assert ledger.explained_percent == 100
    assert not [o for o in history.window(SPEC, EVER, now()) if "dbops_inventory" in o.text]
    assert [o for o in history.window(SPEC, EVER, now(), with_own=True) if "dbops_inventory" in o.text]


def test_two_snapshots_over_one_connection(server: Mysqld, history: History) -> None:
    with closing(server.connect()) as connection:
        history.record(SPEC, known(snapshot.take(connection, "writer", now())))
        ledger = history.record(SPEC, known(snapshot.take(connection, "writer", now()))).coverage
    assert (ledger.executions_total, ledger.gaps) == (0, ())


def test_the_full_analysis_is_subtracted_too(workload: Workload, history: History) -> None:
    """Catalog and a snapshot that nobody records go over the connection before the snapshot that counts."""
    server = workload.server
    record(history, server)
    workload.run("SELECT total FROM shop.orders WHERE id = 1", times=3)
    with closing(server.connect()) as connection:
        found, _ = catalog.read(connection)
        snapshot.take(connection, "writer", now())
        taken = known(snapshot.take(connection, "writer", now(), catalog_programs=found.programs))
    ledger = history.record(SPEC, taken).coverage
    assert (ledger.executions_total, ledger.explained, ledger.gaps) == (3, 3, ())
    assert ledger.own > 20
    workload.run("SELECT total FROM shop.orders WHERE id = 1", times=2)
    assert record(history, server).coverage.executions_total == 2
    shown = [
        o.text for o in history.window(SPEC, EVER, now()) if "dbops" in o.text or "information_schema" in o.text.lower()
    ]
    assert shown == []


def test_the_ledger_is_the_truth(workload: Workload, history: History) -> None:
    server = workload.server
    record(history, server, programs=views(server))
    every_channel(workload)
    workload.run("SELECT id FROM shop.open_orders WHERE total > 3", times=3)
    workload.run("UPDATE shop.open_orders SET total = 8 WHERE id = 2", inside=1)
    workload.run("PREPARE s FROM 'SELECT customer FROM shop.orders WHERE id = ?'")
    workload.run("EXECUTE s USING @id", times=6)
    ledger = record(history, server).coverage
    assert (ledger.executions_total, ledger.errors, ledger.prepared, ledger.in_programs, ledger.null_row) == (
        workload.total, 1, 5, workload.in_programs, 0,
    )  # fmt: skip
    assert ledger.named_digest == workload.top_level
    hidden = {
        "server-side prepared statements": 3, "statements over views": 4, "statements in stored programs": workload.in_programs,
        **({"SQL EXECUTE": 6} if server.server.name == "mysql57" else {}),
    }  # fmt: skip
    assert gaps(ledger) == hidden
    assert_balanced(ledger)
    assert ledger.explained == workload.total - sum(hidden.values())
    # what is hidden: the text of what was closed; its executions are counted
    assert executions(history, "UPDATE crm.people SET name = ? WHERE id = ?") == 2
    if server.server.name == "mysql80":
        assert executions(history, "SELECT customer FROM shop.orders WHERE id = ?", "crm") == 6
        assert (
            executions(history, "UPDATE shop.open_orders SET total = 8 WHERE id = 2", "crm") == 0
        )  # the sample has its text


def test_bodies_explain_what_ran_inside_programs(workload: Workload, history: History) -> None:
    server = workload.server
    bodies = (
        Program("procedure", "shop", "note", "INSERT INTO shop.audit (what) VALUES (CONCAT('p4ssw0rd-of-Alice', n))"),
        Program("trigger", "shop", "orders_upd", "INSERT INTO shop.audit (what) VALUES ('changed')"),
    )
    record(history, server)
    workload.run("CALL shop.note(1)", times=4, inside=1)
    workload.run("UPDATE shop.orders SET total = total + 1", inside=3)
    ledger = record(history, server, programs=bodies[:1]).coverage
    assert gaps(ledger) == {"statements in stored programs": 3}
    assert "trigger shop.orders_upd" in ledger.gaps[0].why
    record(history, server, programs=bodies)
    workload.run("UPDATE shop.orders SET total = total + 1", inside=3)
    ledger = record(history, server).coverage  # without bodies: the history remembers
    assert (ledger.in_programs, ledger.explained, ledger.executions_total, ledger.gaps) == (3, 4, 4, ())
    known = observed(history)["shop", fingerprint("INSERT INTO shop.audit (what) VALUES ('x')")]
    assert known.activity.programs == {"trigger shop.orders_upd"}
    workload.run("DROP TRIGGER shop.orders_upd")
    workload.run(
        "CREATE TRIGGER shop.gone AFTER UPDATE ON shop.orders FOR EACH ROW INSERT INTO shop.audit (what) VALUES ('g')"
    )
    workload.run("UPDATE shop.orders SET total = total + 1", inside=3)
    workload.run("DROP TRIGGER shop.gone")
    ledger = record(history, server).coverage
    assert gaps(ledger) == {"statements in stored programs": 3}
    assert_balanced(ledger)


def test_an_event_counts_as_a_program(workload: Workload, history: History) -> None:
    server = workload.server
    record(history, server)
    workload.run("SET GLOBAL event_scheduler = ON")
    workload.run(
        "CREATE EVENT shop.tick ON SCHEDULE AT CURRENT_TIMESTAMP ON COMPLETION PRESERVE DO INSERT INTO shop.audit (what) VALUES ('t')"
    )
    deadline = time.monotonic() + 20
    while not _count(workload, "SELECT COUNT(*) FROM shop.audit WHERE what = 't'"):
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)
    workload.run("SET GLOBAL event_scheduler = OFF")
    workload.in_programs += 1
    ledger = record(history, server).coverage
    assert (ledger.executions_total, ledger.in_programs) == (workload.total, 1)
    assert gaps(ledger) == {"statements in stored programs": 1}


def _count(workload: Workload, query: str) -> int:
    workload.top_level += 1
    with workload.text.cursor() as cursor:
        cursor.execute(query)
        return int(cursor.fetchone()[0])


def test_a_busy_server_is_counted_exactly_over_several_snapshots(workload: Workload, history: History) -> None:
    """While it works the counters of one reading differ by a few; totals add up all the same, and the gap holds what no digest shows.

    A digest's count is not exact in MySQL: see `_discarded_gap`.
    """
    server, rounds, workers = workload.server, 400, 3
    record(history, server)
    statements = [
        "SELECT total FROM shop.orders WHERE id = 1",
        "UPDATE crm.people SET name = 'x' WHERE id = 2",
        "SELECT SLEEP(0.002)",
    ]

    def work() -> None:
        with closing(server.connect()) as connection, connection.cursor() as cursor:
            for _ in range(rounds):
                for statement in statements:
                    cursor.execute(statement)
                    cursor.fetchall()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    taken = 0
    while any(thread.is_alive() for thread in threads):
        record(history, server)
        taken += 1
    for thread in threads:
        thread.join()
    record(history, server)
    assert taken > 3
    ledger = combined([i.coverage for i in history.coverage(SPEC, EVER, now())[1:]])
    assert ledger.executions_total == workers * (rounds * len(statements) + 1)  # and SET NAMES
    assert ledger.resets == ()
    assert set(gaps(ledger)) <= {"statements without a digest"}
    unnamed = gaps(ledger).get("statements without a digest") or 0
    assert unnamed <= taken * workers * 5  # ran within the milliseconds of a reading
    assert_balanced(ledger)
    lost = [workers * rounds - executions(history, statement) for statement in statements]
    assert min(lost) >= 0
    assert sum(lost) <= unnamed  # nothing is lost that the ledger does not tell
    assert max(lost) <= workers * rounds // 100


# -- resets ------------------------------------------------------------------------------------------------------------------


def test_nothing_is_lost_through_truncate_restart_and_rename(workload: Workload, history: History) -> None:
    server = workload.server
    once = "DELETE FROM crm.people WHERE id = 4242"
    often = "SELECT total FROM shop.orders WHERE id = 1"
    workload.run(once)  # before anybody looked
    workload.run(often, times=3)
    before = now()
    assert record(history, server).resets == ()
    first = observed(history)[None, fingerprint(once)]
    assert first.activity.executions == 1
    assert first.activity.first_seen is not None
    assert first.activity.first_seen <= before + timedelta(seconds=1)  # 5.7 rounds to whole seconds
    assert first.activity.peak_per_second is None  # a sum is not a rate

    # TRUNCATE, then the same count again: only FIRST_SEEN tells. 5.7 keeps whole seconds.
    workload.run("DO SLEEP(1.1)")
    record(history, server)
    workload.run("TRUNCATE performance_schema.events_statements_summary_by_digest")
    workload.run(often, times=3)
    workload.run("INSERT INTO shop.orders VALUES (9, 9, 9, 'x')", times=1)
    after_truncate = record(history, server)
    (reset,) = after_truncate.resets
    assert reset.startswith("digests: the digest table was truncated")
    assert "1 FIRST_SEEN moved with counts not lower" in reset
    assert after_truncate.coverage.executions_total == 5
    assert after_truncate.coverage.explained_percent == 100
    assert executions(history, often) == 6

    # What ran between a snapshot and a TRUNCATE is gone; the ledger says how much.
    workload.run("SELECT COUNT(*) FROM shop.audit", times=8)
    workload.run("TRUNCATE performance_schema.events_statements_summary_by_digest")
    workload.run(once)
    lost = record(history, server).coverage
    assert (lost.executions_total, lost.explained, gaps(lost)) == (10, 2, {"statements before a TRUNCATE": 8})

    workload.run("RENAME TABLE shop.orders TO shop.orders_2")
    workload.run("INSERT INTO shop.orders_2 VALUES (10, 9, 9, 'x'), (11, 9, 9, 'x')")
    assert record(history, server).resets == ()
    io = {(t.table.table, t.index): t for t in history.table_io(SPEC, EVER, now()) if t.table.schema == "shop"}
    assert (io["orders", None].inserted, io["orders_2", None].inserted) == (4, 2)
    assert io["orders_2", None].moved["inserted"][0] >= before

    workload.close()
    server.restart()
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        for _ in range(5):
            cursor.execute("SELECT total FROM shop.orders_2 WHERE id = 1")
        cursor.execute(once)
    restarted = record(history, server)
    (reset,) = restarted.resets
    assert reset.startswith("server: it started at")
    assert gaps(restarted.coverage) == {"the time before a restart": None}
    assert executions(history, once) == 3
    assert executions(history, "SELECT total FROM shop.orders_2 WHERE id = 1") == 5
    assert executions(history, often) == 6
    io = {t.table.table: t for t in history.table_io(SPEC, EVER, now()) if t.table.schema == "shop" and t.index is None}
    assert io["orders_2"].inserted == 2
    workload.text, workload.binary = server.connect(), server.connect()  # for the fixture to close


def test_truncated_event_counters_are_named(workload: Workload, history: History) -> None:
    server = workload.server
    record(history, server)
    workload.run("SELECT 1 FROM shop.orders", times=30)
    workload.run("TRUNCATE performance_schema.events_statements_summary_global_by_event_name")
    workload.run("SELECT 1 FROM shop.orders", times=2)
    ledger = record(history, server).coverage
    assert ledger.resets[0].startswith("events: ")
    assert ledger.named_digest == 33
    assert ledger.executions_total == ledger.explained == 33
    assert "part of the prepared statements and of statements in programs" in gaps(ledger)
    assert record(history, server).resets == ()


def test_a_full_digest_table_is_a_gap_with_its_size(mysqld: Mysqld, history: History) -> None:
    mysqld.restart("--performance-schema-digests-size=40")
    load_schema(mysqld)
    record(history, mysqld)
    with closing(mysqld.connect()) as connection, connection.cursor() as cursor:
        for number in range(100):
            cursor.execute(f"SELECT {number} AS column_{number} FROM shop.orders")
        cursor.execute("SELECT 'once' FROM crm.people")
    ledger = record(history, mysqld).coverage
    assert ledger.executions_total == 102  # with SET NAMES
    assert ledger.null_row == gaps(ledger)["statements in the NULL row of the digest table"]
    assert 75 <= ledger.null_row <= 101
    assert_balanced(ledger)
    assert [gap.why for gap in ledger.gaps] == ["the table is full (40 rows): new digests have no row"]
    assert record(history, mysqld).coverage.executions_total == 0  # our own, although no digest row shows them


def test_another_server_under_the_same_name_keeps_the_history(
    tmp_path_factory: pytest.TempPathFactory, history: History
) -> None:
    """An upgrade from 5.7 to 8.0: digests differ, fingerprints do not."""
    text = "SELECT total FROM shop.orders WHERE id IN (1, 2, 3) AND status = 'x'"
    for number, name in enumerate(NAMES):
        server = Mysqld(name, tmp_path_factory.mktemp(f"upgrade-{name}"))
        server.start()
        try:
            load_schema(server)
            server.sql(text)
            recorded = record(history, server)
            assert len(recorded.resets) == number
            if number:
                assert "another server answers" in recorded.resets[0]
        finally:
            server.stop()
    assert executions(history, text) == 2


# -- bad input ---------------------------------------------------------------------------------------------------------------


def test_performance_schema_off(mysqld: Mysqld, history: History) -> None:
    mysqld.restart("--performance-schema=OFF")
    recorded = record(history, mysqld)
    assert recorded.is_new
    assert not recorded.coverage.measured
    assert recorded.coverage.explained_percent == 0
    (gap,) = recorded.coverage.gaps
    assert (gap.why, gap.cost) == (
        "performance_schema is OFF",
        "a restart of the server; 100 to 400 MB and up to a few percent of CPU",
    )
    mysqld.restart()
    again = record(history, mysqld)
    assert again.coverage.measured
    assert again.coverage.since is None


def test_a_user_without_grants_is_told_what_to_grant(server: Mysqld, history: History) -> None:
    server.sql("DROP USER IF EXISTS 'nobody'@'127.0.0.1'")
    server.sql("CREATE USER 'nobody'@'127.0.0.1' IDENTIFIED WITH mysql_native_password BY ''")
    recorded = record(history, server, user="nobody")
    assert recorded.is_new
    assert not recorded.coverage.measured
    assert {gap.what for gap in recorded.coverage.gaps} >= {"statements", "prepared", "programs", "table_io"}
    assert {gap.remedy for gap in recorded.coverage.gaps} == {
        "GRANT SELECT ON performance_schema.* TO the connection's user"
    }
    server.sql("GRANT SELECT ON performance_schema.* TO 'nobody'@'127.0.0.1'")
    assert record(history, server, user="nobody").coverage.measured


def test_a_snapshot_that_fails_in_between_loses_nothing(workload: Workload, history: History) -> None:
    server = workload.server
    server.sql("DROP USER IF EXISTS 'nobody'@'127.0.0.1'")
    server.sql("CREATE USER 'nobody'@'127.0.0.1' IDENTIFIED WITH mysql_native_password BY ''")
    record(history, server)
    workload.run("SELECT total FROM shop.orders WHERE id = 1", times=4)
    assert not record(history, server, user="nobody").coverage.measured
    workload.run("SELECT total FROM shop.orders WHERE id = 1", times=3)
    recorded = record(history, server)
    assert (recorded.coverage.executions_total, recorded.resets) == (7, ())
    assert executions(history, "SELECT total FROM shop.orders WHERE id = 1") == 7


@pytest.mark.parametrize(
    ("setting", "undo", "what"),
    [
        ("setup_consumers SET ENABLED = 'NO' WHERE NAME = 'statements_digest'", "setup_consumers SET ENABLED = 'YES' WHERE NAME ="
         " 'statements_digest'", "consumer statements_digest"),
        ("setup_consumers SET ENABLED = 'NO' WHERE NAME = 'events_statements_history'", "setup_consumers SET ENABLED = 'YES' WHERE"
         " NAME = 'events_statements_history'", "consumer events_statements_history"),
        ("setup_instruments SET ENABLED = 'NO' WHERE NAME = 'statement/sql/delete'", "setup_instruments SET ENABLED = 'YES' WHERE NAME"
         " = 'statement/sql/delete'", "statement instruments"),
        ("setup_actors SET ENABLED = 'NO'", "setup_actors SET ENABLED = 'YES'", "sessions of %@%"),
    ],
)  # fmt: skip
def test_what_is_switched_off_is_named(server: Mysqld, setting: str, undo: str, what: str) -> None:
    server.sql(f"UPDATE performance_schema.{setting}")
    try:
        found = {gap.what: gap for gap in take(server).gaps}
        assert what in found
        assert found[what].remedy
        assert found[what].cost
    finally:
        server.sql(f"UPDATE performance_schema.{undo}")


def test_statements_while_the_digest_consumer_is_off_are_counted_as_unnamed(
    workload: Workload, history: History
) -> None:
    record(history, workload.server)
    off, on = (
        f"UPDATE performance_schema.setup_consumers SET ENABLED = '{v}' WHERE NAME = 'statements_digest'"
        for v in ("NO", "YES")
    )
    workload.run(off)
    workload.run("SELECT 5 FROM shop.orders", times=20)
    workload.run(on)
    ledger = record(history, workload.server).coverage
    assert ledger.executions_total == 22
    assert_balanced(ledger)
    assert 20 <= (gaps(ledger)["statements without a digest"] or 0) <= 22


def test_text_that_is_not_utf8(workload: Workload, history: History) -> None:
    record(history, workload.server)
    with workload.text.cursor() as cursor:
        for statement in (b"SELECT '\xe9\xff\xfe' AS y FROM shop.orders", b"SELECT 3 /* \xff\xfe */ FROM shop.orders"):
            workload.text.query(statement)
            workload.text.store_result()
        cursor.execute("SELECT 'é' AS `café` FROM shop.orders")
    recorded = record(history, workload.server)
    assert recorded.is_new
    assert recorded.coverage.executions_total == 3
    assert executions(history, "SELECT 'x' AS y FROM shop.orders") == 1
    assert executions(history, "SELECT 'x' AS `café` FROM shop.orders") == 1
    if workload.server.server.name == "mysql80":
        (gap,) = recorded.coverage.gaps
        assert gap.what == "2 texts"
        assert "character set" in gap.why


def test_reading_the_definitions_is_our_own_and_has_a_limit(server: Mysqld, history: History) -> None:
    """Without roles; 5.7 keeps no text by which SHOW GRANTS could be known for ours."""
    load_schema(server)
    server.sql("CREATE USER IF NOT EXISTS limited@'%' IDENTIFIED BY 'x'")
    server.sql("GRANT SELECT ON *.* TO limited@'%'")
    server.sql("GRANT TRIGGER ON `sho_`.* TO limited@'%'")
    record(history, server)
    with closing(server.connect("limited", password="x")) as connection:
        _, found = catalog.read(connection)
        with connection.cursor() as cursor:
            cursor.execute("SELECT @@SESSION.max_execution_time, @@SESSION.time_zone")
            assert cursor.fetchone() == (60_000, "+00:00")
        lacking = [gap.what for gap in found if gap.what.startswith("triggers in")]
        assert lacking
        assert "crm" in lacking[0]
        assert "shop" not in lacking[0]
        history.record(SPEC, known(snapshot.take(connection, "writer", now())))
    texts = {o.text for o in observed(history).values()}
    if server.server.name == "mysql57":
        assert [
            t for t in texts if "GRANTS" in t or "aurora" in t or "server_uuid" in t or "GLOBAL VARIABLES" in t
        ] == []
    assert [t for t in texts if "information_schema" in t.lower()] == []


def test_texts_that_did_not_parse_are_left_out(workload: Workload, history: History) -> None:
    workload.fail("SELECT a FROM shop.orders WHERE b = 'it's Hunter two'")
    record(history, workload.server)
    assert [o.text for o in observed(history, with_own=True).values() if "Hunter" in o.text] == []


# -- the store ---------------------------------------------------------------------------------------------------------------


def test_no_secret_reaches_the_store(workload: Workload, history: History) -> None:
    """Planted in text, prepared statements, routine bodies, comments of samples, and a text that is cut within it."""
    server = workload.server
    bodies = (Program("procedure", "shop", "note", f"INSERT INTO shop.audit (what) VALUES (CONCAT('{SECRET}', n))"),)
    every_channel(workload)
    workload.run(
        f"SELECT \"{SECRET}\", x'{SECRET.encode().hex()}', 4111111111111111 FROM shop.orders /* card 4111111111111111 */"
    )
    workload.run(f"SELECT '{'x' * 990}{SECRET * 20}' FROM shop.orders")
    workload.run(f"INSERT INTO crm.people VALUES (50, 'a''{SECRET}\\'{SECRET}'), (51, '{SECRET}')")
    workload.fail(f"SELEC '{SECRET}'")
    record(history, server, programs=(*bodies, *views(server)))
    every_channel(workload)
    record(history, server)
    rows = 0
    with history.engine.connect() as connection:
        for table in sa.inspect(connection).get_table_names():
            for row in connection.execute(sa.text(f"SELECT * FROM {table}")):
                rows += 1
                told = repr(row)
                for secret in (SECRET, SECRET.encode().hex(), "4111111111111111", "p4ssw0rd"):
                    assert secret.lower() not in told.lower(), (table, told)
    assert rows > 100
    find = observed(history)["crm", fingerprint("SELECT id FROM shop.orders WHERE status = ''")]
    assert find.activity.executions == 3
    if server.server.name == "mysql80":  # 5.7 has texts with comments for the last ten statements of a session only
        assert find.activity.callers == {"action=find,controller=orders"}
    changed = observed(history)[None, fingerprint("UPDATE crm.people SET name = ? WHERE id = ?")]
    assert changed.activity.users == {"root@127.0.0.1"}


def test_the_same_snapshot_twice_and_an_older_one_change_nothing(workload: Workload, history: History) -> None:
    server = workload.server
    older = take(server)
    workload.run("SELECT total FROM shop.orders WHERE id = 1", times=4)
    taken = take(server)
    first = history.record(SPEC, taken)
    contents = dump(history)
    assert first.is_new
    again = history.record(SPEC, taken)
    assert (again.is_new, again.snapshot_id, again.coverage) == (False, first.snapshot_id, first.coverage)
    assert not history.record(SPEC, older).is_new
    assert dump(history) == contents
    assert executions(history, "SELECT total FROM shop.orders WHERE id = 1") == 4


def dump(history: History) -> dict[str, list[str]]:
    with history.engine.connect() as connection:
        return {
            table: sorted(map(repr, connection.execute(sa.text(f"SELECT * FROM {table}"))))
            for table in sa.inspect(connection).get_table_names()
        }


def test_only_what_changed_is_appended(workload: Workload, history: History) -> None:
    record(history, workload.server)
    record(history, workload.server)
    before = {table: len(rows) for table, rows in dump(history).items()}
    workload.run("SELECT total FROM shop.orders WHERE id = 1", times=4)
    recorded = record(history, workload.server)
    after = {table: len(rows) for table, rows in dump(history).items()}
    grown = {table: after[table] - before[table] for table in after if after[table] != before[table]}
    own = len(_own_digests(history))
    assert recorded.readings <= own + 3  # the statement, SET NAMES, and its text
    assert grown["inventory_snapshot"] == 1
    assert grown["inventory_reading"] == recorded.readings
    assert grown.get("inventory_io", 0) <= 3


def _own_digests(history: History) -> list[Observed]:
    return [
        o
        for o in history.window(SPEC, EVER, now(), with_own=True)
        if "dbops" in o.text or "max_execution_time" in o.text
    ]


def test_instances_of_a_cluster_are_recorded_at_the_same_time(workload: Workload, history: History) -> None:
    """They add the same texts; deadlocks are tried again, and each statement is there once with the executions of all."""
    workload.run("SELECT total FROM shop.orders WHERE id = 1", times=4)
    taken = [take(workload.server, name=f"reader-{n}") for n in range(6)]
    errors: list[BaseException] = []

    def work(one: Snapshot) -> None:
        try:
            history.record(SPEC, one)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(one,)) for one in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = observed(history)[None, fingerprint("SELECT total FROM shop.orders WHERE id = 1")]
    assert found.activity.executions == 24
    assert found.activity.instances == {f"reader-{n}" for n in range(6)}
    assert {i.instance for i in history.coverage(SPEC, EVER, now())} == found.activity.instances


def test_ten_thousand_digests_are_kept_by_a_few_statements(mysqld: Mysqld, history: History) -> None:
    """How long that takes is printed only: it depends on what else the machine does."""
    mysqld.restart("--performance-schema-digests-size=20000")
    load_schema(mysqld)
    sent: list[str] = []
    sa.event.listen(history.engine, "before_cursor_execute", lambda *given: sent.append(given[2]))
    took: dict[str, tuple[float, int]] = {}

    @contextmanager
    def noted(what: str) -> Iterator[None]:
        sent.clear()
        began = time.monotonic()
        yield
        took[what] = time.monotonic() - began, len(sent)

    def run_all() -> None:
        with closing(mysqld.connect(database="shop")) as connection, connection.cursor() as cursor:
            for number in range(10_000):
                cursor.execute(
                    f"SELECT o.id, o.total AS total_{number} FROM orders o JOIN audit a ON a.id = o.id WHERE o.status = 'x'"
                )

    run_all()
    with noted("read"):
        taken = take(mysqld)
    with noted("first record"):
        recorded = history.record(SPEC, taken)
    assert recorded.new_statements >= 10_000
    run_all()
    with noted("next"):
        again = record(history, mysqld)
    with noted("window"):
        listed = history.window(SPEC, EVER, now())
    told = (f"{what} {seconds:.1f} s, {count} statements" for what, (seconds, count) in took.items())
    print(f"10,000 digests of {mysqld.server.version}:", "; ".join(told))
    assert sum(o.activity.executions == 2 and "total_" in o.text for o in listed) == 10_000
    assert again.coverage.executions_total == 10_001
    assert 0 < max(count for _, count in took.values()) < 200


def test_a_window_shows_only_its_snapshots(workload: Workload, history: History) -> None:
    server = workload.server
    text = "SELECT total FROM shop.orders WHERE id = 1"
    workload.run(text, times=4)
    record(history, server)
    middle = now()
    workload.run(text, times=6)
    second = record(history, server)
    inside = {o.fingerprint: o for o in history.window(SPEC, middle, now())}[fingerprint(text)]
    assert inside.activity.executions == 6
    assert inside.activity.peak_per_second is not None
    assert second.coverage.until is not None
    assert second.coverage.since is not None
    length = (second.coverage.until - second.coverage.since) / timedelta(seconds=1)
    assert inside.activity.peak_per_second == pytest.approx(6 / length, rel=1e-6)
    assert (None, fingerprint(text)) in history.previous_statements(SPEC, middle)
    assert history.previous_statements(SPEC, EVER) == {}
    both = combined([i.coverage for i in history.coverage(SPEC, EVER, now())])
    assert (both.until, both.resets) == (second.coverage.until, ())
    moved = [
        t for t in history.table_io(SPEC, middle, now()) if (t.table, t.index) == (TableRef("shop", "orders"), None)
    ]
    assert [(t.fetched, t.inserted) for t in moved] == [(6, 0)]


def test_the_code_names_every_column_of_its_migration(history: History) -> None:
    """The tables that the code writes to are those of the migration."""
    inspector = sa.inspect(history.engine)
    for table in (
        stored.WATCH,
        stored.SNAPSHOT,
        stored.KEY,
        stored.READING,
        stored.TEXT,
        stored.ORIGIN,
        stored.IO_KEY,
        stored.IO_READING,
    ):
        assert {c["name"] for c in inspector.get_columns(table.name)} == set(table.c.keys()), table.name
