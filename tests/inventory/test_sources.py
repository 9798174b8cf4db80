"""What the sources make of single rows that no server of the lab shows on demand; tests/lab reads real ones."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from dbops.inventory import sources
from dbops.inventory.model import COUNTERS, Program
from dbops.inventory.snapshot import ClockError, _unwatched, take
from dbops.inventory.sources import Reader

SETTINGS = {"max_digest_length": "1024", "max_sql_text_length": "1024"}
AT = datetime(2026, 5, 4, 3, 2, 1)


class Answers:
    """A connection that answers every statement with the same rows."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.found = rows
        self.description = [(name,) for name in rows[0]]
        self.sent: list[str] = []

    def cursor(self) -> Answers:
        return self

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def execute(self, statement: str, args: object = None) -> None:
        self.sent.append(statement)

    def fetchall(self) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in self.found]


def digest(**over: Any) -> dict[str, Any]:
    counters = {name: 1 for name in COUNTERS if not name.endswith("_ms")}
    return {
        "dbops_inventory": "digest", "schema_name": "shop", "digest": "d1", "digest_text": b"SELECT ? ", "executions": 3,
        "total_ps": 5_000_000_000, "lock_ps": 0, **counters, "first_seen": AT, "last_seen": AT, "p95_ps": 2_000_000_000, "p99_ps": None,
        "sample_text": None, "sample_seen": None, **over,
    }  # fmt: skip


def read(*rows: dict[str, Any]) -> sources.Statements:
    return sources.statements(Reader(Answers(*rows)), SETTINGS, samples=True)


def test_every_statement_is_marked() -> None:
    conn = Answers(digest())
    reader = Reader(conn)
    sources.statements(reader, SETTINGS, samples=False)
    reader.pin_session()
    assert reader.sent == len(conn.sent) == 2
    assert all(sent.startswith("/* dbops='inventory' */") for sent in conn.sent)
    assert "`dbops_inventory`" not in conn.sent[0]
    assert "AS dbops_inventory" in conn.sent[0]


def test_a_digest() -> None:
    (found,) = read(digest()).digests
    assert (found.key, found.text, found.executions, found.first_seen) == ("d1:shop", "SELECT ?", 3, AT)
    assert (found.counters["total_ms"], found.counters["rows_sent"], dict(found.gauges)) == (5.0, 1.0, {"p95_ms": 2.0})


def test_a_digest_that_the_server_holds_twice() -> None:
    (found,) = read(digest(), digest(executions=4, first_seen=AT.replace(year=2025))).digests
    assert (found.executions, found.counters["total_ms"], found.first_seen) == (7, 10.0, AT.replace(year=2025))


def test_rows_that_are_no_digest() -> None:
    event = digest(dbops_inventory="event", digest_text=b"statement/sql/select", executions=9)
    null_row = digest(schema_name=None, digest=None, digest_text=None, executions=70)
    found = read(event, null_row, digest(dbops_inventory="own", executions=5), digest(digest_text=None, executions=2))
    assert (found.event_counts, found.null_row, found.own, found.without_text) == (
        {"statement/sql/select": 9},
        70,
        5,
        2,
    )


def test_bytes_that_are_not_utf8_are_counted_and_readable() -> None:
    found = read(digest(digest_text=b"SELECT `caf\xe9` ", sample_text=b"SELECT caf\xe9 FROM t", sample_seen=AT))
    assert [s.text for s in (*found.digests, *found.samples)] == ["SELECT `caf\ufffd`", "SELECT caf\ufffd FROM t"]
    assert found.not_utf8 == 2


@pytest.mark.parametrize(
    ("text", "truncated", "bad"),
    [
        (b"SELECT 'it''s', \"a\\\"b\", `c` /* d */ -- it's", False, 0),
        (b"SELECT '", True, 1),
        (b"SELECT 1 /* ", True, 1),
        (b"SELECT 'a" + b"b" * 1012 + b"...", True, 0),
        (b"SELECT " + b"1+" * 507 + b"...", True, 0),
        (b"SELECT '...' AS dots...", False, 0),
    ],
)
def test_samples_that_were_cut(text: bytes, truncated: bool, bad: int) -> None:
    found = read(digest(sample_text=text, sample_seen=AT))
    assert ([s.truncated for s in found.samples], found.not_utf8) == ([truncated], bad)


def test_the_first_statement_of_a_packet_with_several() -> None:
    texts = [b"SELECT 'a;b' ; DELETE FROM t", b"CREATE PROCEDURE p() BEGIN DELETE FROM t; END"]
    found = read(*(digest(digest=f"d{n}", sample_text=text, sample_seen=AT) for n, text in enumerate(texts)))
    assert [s.text for s in found.samples] == ["SELECT 'a;b' ", "CREATE PROCEDURE p() BEGIN DELETE FROM t; END"]


def test_text_that_5_7_hides_is_no_text() -> None:
    counters = {name: 0 for name in COUNTERS if not name.endswith("_ms")}
    row = {
        "sql_text": b"PREPARE s1 FROM ...", "statement_name": "s1", "thread_id": 7, "statement_id": 1, "schema_name": None,
        "object_schema": None, "object_type": None, "object_name": None, "user": "u", "host": "h", "executions": 3, "total_ps": 0,
        "lock_ps": 0, **counters,
    }  # fmt: skip
    found = sources.prepared(
        Reader(Answers(row, {**row, "sql_text": b"SELECT 1"}, {**row, "sql_text": b"SELECT 1", "statement_name": None}))
    )
    name = sources.text_hash("SELECT 1")
    assert [s.key for s in found] == [f"{name}:7:1:sql", f"{name}:7:1"]


def test_everybody_who_sent_a_text_of_the_history_is_kept() -> None:
    def row(user: str, age_s: int) -> dict[str, Any]:
        return {
            "event_name": "statement/sql/delete", "schema_name": "shop", "digest": "d", "sql_text": b"DELETE FROM t WHERE id = 1",
            "object_type": None, "object_schema": None, "object_name": None, "user": user, "host": "h", "age_ps": age_s * 10**12,
        }  # fmt: skip

    conn = Answers(row("app", 9), row("batch", 5), row("app", 7))
    (found,) = sources.recent(Reader(conn), "events_statements_history", SETTINGS, AT)
    assert (found.user, found.users, found.last_seen) == ("batch", {"app@h", "batch@h"}, AT - timedelta(seconds=5))


def test_text_hash_folds_values_and_lists() -> None:
    same = ["SELECT a FROM t WHERE b IN (1)", "SELECT a FROM t WHERE b IN (1, 2, 'x')"]
    assert len({sources.text_hash(text) for text in same}) == 1
    assert sources.text_hash("INSERT INTO t VALUES (1)") == sources.text_hash("INSERT INTO t VALUES (1), (2, 3)")
    assert sources.text_hash("SELECT a FROM t") != sources.text_hash("SELECT b FROM t")


def test_bodies() -> None:
    programs = (
        Program("procedure", "s", "p", "A; B; A"),
        Program("view", "s", "v", "select 1; x"),
        Program("event", "s", "e", ""),
    )
    found = sources.bodies(programs, lambda body: [part.strip() for part in body.split(";")])
    assert [(s.program, s.text) for s in found] == [
        ("procedure s.p", "A"),
        ("procedure s.p", "B"),
        ("view s.v", "select 1; x"),
    ]


def test_only_what_begins_with_our_mark_is_ours() -> None:
    texts = [
        b"SELECT ? AS `dbops_inventory` , `e` . `a` ", b"SELECT ? AS `dbops_inventory_x` ",
        b"INSERT INTO `a` ( `dbops_inventory` ) VALUES (?) ",
        b"SELECT `a` , ? AS `dbops_inventory` ",
    ]  # fmt: skip
    found = read(*(digest(digest=f"d{n}", digest_text=text) for n, text in enumerate(texts)))
    assert [d.own for d in found.digests] == [True, False, False, False]
    assert sources.is_own(" /* dbops='inventory' */ SELECT 1")
    assert not sources.is_own("INSERT INTO a VALUES (\"/* dbops='inventory' */ SELECT 1\")")


@pytest.mark.parametrize(("size", "truncated"), [(1023, False), (1024, True)])
def test_prepared_texts_end_at_1024_bytes(size: int, truncated: bool) -> None:
    counters = {name: 0 for name in COUNTERS if not name.endswith("_ms")}
    row = {
        "sql_text": b"SELECT " + b"a" * (size - 7), "statement_name": None, "thread_id": 7, "statement_id": 1, "schema_name": None,
        "object_schema": None, "object_type": None, "object_name": None, "user": "u", "host": "h", "executions": 3, "total_ps": 0,
        "lock_ps": 0, **counters,
    }  # fmt: skip
    assert [s.truncated for s in sources.prepared(Reader(Answers(row)))] == [truncated]


@pytest.mark.parametrize(
    ("row", "blind"),
    [
        (("consumer", "global_instrumentation", "NO"), True),
        (("consumer", "events_statements_history", "NO"), False),
        (("instruments_off", "statement", "3"), True),
        (("instruments_off", "minor statement", "1"), False),
        (("instruments_off", "table_io", "1"), False),
        (("actor", "app@%", "NO"), True),
        (("threads_off", "foreground", "2"), True),
    ],
)
def test_what_makes_the_figure_worthless_and_what_only_costs_detail(row: tuple[str, str, str], blind: bool) -> None:
    (gap,) = _unwatched([("actor", "%@%", "YES"), row])
    assert gap.blind is blind
    assert _unwatched([("actor", "app@%", "YES")])[0].blind
    assert _unwatched([("actor", "%@%", "YES"), ("instruments_off", "statement", "0")]) == []


@pytest.mark.parametrize("seconds", [-61, 61, 3600])
def test_a_snapshot_of_another_time_than_the_servers_is_refused(seconds: int) -> None:
    conn = Answers({"dbops_inventory": "instance", "now": AT, "version": "8.0.15"})
    with pytest.raises(ClockError, match=r"its clock says 2026-05-04 03:02:01 UTC, this snapshot's is 2026-05-04 0"):
        take(conn, "writer", AT + timedelta(seconds=seconds))
