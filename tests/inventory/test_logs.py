from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dbops import include_dir
from dbops.inventory import fingerprint, logs, text
from dbops.inventory.logs import Entry, LogFormatError, Tally

OPENED = (
    "/usr/sbin/mysqld, Version: 5.7.22-log (MySQL Community Server (GPL)). started with:\n"
    "Tcp port: 3306  Unix socket: /tmp/mysql.sock\nTime                 Id Command    Argument\n"
)


def slow(
    statement: str,
    at: str = "2026-07-01T10:00:00.000001Z",
    *,
    who: str = "app[app] @  [10.0.0.1]  Id:     7",
    use: str = "",
) -> str:
    return (
        f"# Time: {at}\n# User@Host: {who}\n# Query_time: 0.001500  Lock_time: 0.000250 Rows_sent: 3  Rows_examined: 40\n"
        + (f"use {use};\n" if use else "")
        + f"SET timestamp=1782900000;\n{statement};\n"
    )


def general(command: str, argument: str = "", connection: int = 7, at: str = "2026-07-01T10:00:00.000001Z") -> str:
    return f"{at}\t{connection:5} {command}\t{argument}\n"


def lines(*parts: str) -> list[bytes]:
    return "".join(parts).encode().splitlines(keepends=True)


def texts(entries: Iterable[Entry]) -> list[str]:
    return [entry.text for entry in entries]


def test_one_entry_of_a_slow_log() -> None:
    assert [*logs.read_slow(lines(OPENED, slow("SELECT 1", use="shop")))] == [
        Entry(
            datetime(2026, 7, 1, 10, 0, 0, 1),
            7,
            "app",
            "10.0.0.1",
            "shop",
            "SELECT 1",
            "query",
            1.5,
            0.25,
            3,
            40,
            False,
        )
    ]


def test_the_schema_lasts_until_the_log_says_another_or_is_opened_anew() -> None:
    log = lines(
        OPENED,
        slow("a"),
        slow("b", use="shop"),
        slow("c"),
        slow("use fleet", use="fleet"),
        slow("d"),
        OPENED,
        slow("e"),
    )
    assert [(e.text, e.schema) for e in logs.read_slow(log)] == [
        ("a", None), ("b", "shop"), ("c", "shop"), ("use fleet", "fleet"), ("d", "fleet"), ("e", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 'a\n# Time: 2026-07-01T10:00:00.000000Z\n# User@Host: x'",
        "SELECT ';\n# Time: 2026-07-01T10:00:00.000000Z\nb'",
        "SELECT 1 -- a\n# b\nFROM t /* ; */",
        "INSERT INTO notes VALUES ('" + OPENED + "')",
        "\tSELECT\r\n2",
        "use",
        "SELECT '" + slow("SELECT 'quoted'", "2026-06-30T10:00:00.000000Z").replace("'", "''") + "'",
        "INSERT INTO notes VALUES (';\n" + general("Query", "SELECT 2") + "\n# Time: x\n# User@Host: ')",
        "INSERT INTO notes VALUES ('\n;\n" + general("Query", "2") + slow("3", "2026-06-30T10:00:00.000000Z") + "')",
        "(" * 400 + "1" + ")" * 400,
        "INSERT INTO t VALUES ('" + "x" * (1 << 20) + "')",
        "",
    ],
)
def test_a_statement_is_read_as_it_was_sent(statement: str) -> None:
    entries = [*logs.read_slow(lines(OPENED, slow("SELECT 0"), slow(statement), slow("SELECT 3")))]
    assert texts(entries) == ["SELECT 0", statement, "SELECT 3"]
    assert not any(entry.truncated for entry in entries)


def test_a_string_left_open_does_not_swallow_the_entries_after_it() -> None:
    log = lines(
        slow("SELECT 'open"),
        slow("SELECT 2", "2026-07-01T10:00:00.000002Z"),
        slow("SELECT 3", "2026-07-01T10:00:00.000003Z"),
    )
    assert texts(logs.read_slow(log)) == ["SELECT 'open", "SELECT 2", "SELECT 3"]


def test_a_clock_that_was_set_back_does_not_merge_entries() -> None:
    assert texts(logs.read_slow(lines(slow("SELECT 1"), slow("SELECT 2", "2026-07-01T09:00:00.000000Z")))) == [
        "SELECT 1",
        "SELECT 2",
    ]


def test_headers_of_other_versions() -> None:
    entries = [*logs.read_slow(lines(
        # the local time of log_timestamps=SYSTEM
        slow("a", "2026-07-01T12:00:00.000001+02:00"),
        # no Time line within the same second; LAST_INSERT_ID replayed
        "# User@Host: root[] @ localhost []  Id:     9\n# Query_time: 1.0  Lock_time: 0.0 Rows_sent: 0  Rows_examined: 0\n"
        "SET last_insert_id=5,insert_id=6,timestamp=1782900000;\nb;\n",
        # log_slow_extra
        "# Time: 2026-07-01T10:00:00.000001Z\n# User@Host: app[app] @ db.example.com [10.0.0.1]  Id:     7\n"
        "# Query_time: 0.1  Lock_time: 0.0 Rows_sent: 1  Rows_examined: 2 Thread_id: 33 Errno: 0\nSET timestamp=1782900000;\nc;\n",
        # the thread and schema that forks write, before and after
        "# Time: 2026-07-01T10:00:00.000001Z\n# User@Host: app[app] @  [10.0.0.1]\n# Thread_id: 44  Schema: fleet  QC_hit: No\n"
        "# Query_time: 0.1  Lock_time: 0.0  Rows_sent: 1  Rows_examined: 2\n# Rows_affected: 3\nSET timestamp=1782900000;\nd;\n",
        "# Time: 2026-07-01T10:00:00.000001Z\n# User@Host: app[app] @  [10.0.0.1]\n# Thread_id: 44  Schema:   QC_hit: No\n"
        "# Query_time: 0.1  Lock_time: 0.0  Rows_sent: 1  Rows_examined: 2\nSET timestamp=1782900000;\ne;\n",
    ))]  # fmt: skip
    assert [(e.at, e.connection, e.user, e.host, e.schema, e.text) for e in entries] == [
        (datetime(2026, 7, 1, 10, 0, 0, 1), 7, "app", "10.0.0.1", None, "a"),
        (datetime(2026, 7, 1, 10, 0), 9, "root", "localhost", None, "b"),
        (datetime(2026, 7, 1, 10, 0, 0, 1), 33, "app", "db.example.com", None, "c"),
        (datetime(2026, 7, 1, 10, 0, 0, 1), 44, "app", "10.0.0.1", "fleet", "d"),
        (datetime(2026, 7, 1, 10, 0, 0, 1), 44, "app", "10.0.0.1", None, "e"),
    ]


def test_commands_and_what_the_server_left_out_are_counted_apart() -> None:
    log = logs.SlowLog("x")
    entries = [*log.read(lines(
        slow("# administrator command: Ping"), slow("# administrator command: Ping"), slow("# administrator command: Close stmt"),
        slow("throttle:         12 'index not used' warning(s) suppressed."), slow("truncate t"),
    ))]  # fmt: skip
    assert [(e.text, e.kind) for e in entries] == [
        ("Ping", "admin"), ("Ping", "admin"), ("Close stmt", "admin"),
        ("throttle:         12 'index not used' warning(s) suppressed.", "admin"), ("truncate t", "query"),
    ]  # fmt: skip
    assert log.totals.admin == Counter({"Ping": 2, "Close stmt": 1})
    assert log.totals.suppressed == 12
    (gap,) = log.totals.gaps("slow_log")
    assert gap.executions == 12
    assert "log_throttle_queries_not_using_indexes" in gap.remedy


def test_bytes_that_are_not_utf8_are_replaced_and_counted() -> None:
    log = logs.SlowLog("x")
    head, _, tail = slow("SELECT '@@'").encode().partition(b"@@'")
    assert texts(log.read([head + b"\xff\xe9" + b"'" + tail, slow("SELECT '\ufffd é'").encode()])) == [
        "SELECT '\ufffd\ufffd'", "SELECT '\ufffd é'",
    ]  # fmt: skip
    assert log.totals.undecodable == 1
    assert [gap.what for gap in log.totals.gaps(log.kind)] == [
        f"{log.kind}: 1 statements hold bytes that are not UTF-8"
    ]


def test_a_message_that_rds_cut_is_marked_and_the_next_one_is_whole() -> None:
    log = logs.SlowLog("x")
    cut = slow("SELECT 'xxx")[: -len(";\n")] + "\n [Your log message was truncated]\n"
    entries = [*log.read(lines(slow("SELECT 1"), cut, slow("SELECT 2"), cut, "the rest of it';\n", slow("SELECT 3")))]
    assert [(e.text, e.truncated) for e in entries] == [
        ("SELECT 1", False), ("SELECT 'xxx", True), ("SELECT 2", False), ("SELECT 'xxx", True), ("SELECT 3", False),
    ]  # fmt: skip
    assert log.totals.truncated == 2
    assert "cut" in log.totals.gaps("slow_log")[0].what
    (whole,) = logs.read_slow(lines(slow("SELECT '[Your log message was truncated]'")))
    assert (whole.text, whole.truncated) == ("SELECT '[Your log message was truncated]'", False)


@pytest.mark.parametrize("broken", ["y" * 100 + "\n", "y"])
def test_no_statement_fills_the_memory(broken: str) -> None:
    log, body = logs.SlowLog("x"), broken * (2 * logs.MAX_TEXT_BYTES // len(broken))
    statement = f"INSERT INTO t VALUES ('{body}')"
    written = [slow("SELECT 1").encode(), slow(statement).encode(), slow("SELECT 2").encode()]
    first, long, last = log.read(written)
    assert (first.text, last.text) == ("SELECT 1", "SELECT 2")
    assert long.truncated
    assert long.text == statement[: logs.MAX_TEXT_BYTES]
    assert log.consumed == sum(map(len, written))


SLOW_LOG = "".join((
    OPENED, slow("SELECT 1", use="shop"), slow("SELECT 'a;\n# Time: x\nb'"), slow("# administrator command: Quit"), OPENED,
    slow("INSERT INTO t VALUES (1),\n(2)"), slow("SELECT 'é'", use="fleet"), slow("use fleet"), slow("SELECT 4"),
)).encode()  # fmt: skip
GENERAL_LOG = "".join((
    OPENED, general("Connect", "app@10.0.0.1 on shop using TCP/IP"), general("Query", "SELECT 1"), general("Query", "SELECT 'a\nb'"),
    general("Connect", "web@10.0.0.2 on  using SSL/TLS", 8), general("Query", "use fleet", 8), OPENED, general("Query", "SELECT 'é'", 8),
    general("Prepare", "SELECT ?"), general("Execute", "SELECT 1"), general("Init DB", "other"), general("Query", "SELECT 5"),
    general("Quit"), general("Query", "SELECT 6", 8),
)).encode()  # fmt: skip
READERS = ((logs.SlowLog, SLOW_LOG), (logs.GeneralLog, GENERAL_LOG))


@pytest.mark.parametrize(("reader", "log"), READERS)
def test_the_size_of_the_pieces_does_not_matter(
    reader: type[logs.SlowLog | logs.GeneralLog], log: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [*reader("x").read([log])]
    assert len(whole) in (7, 12)
    for batch in (1, 7, 100, 1000):
        monkeypatch.setattr(logs, "_BATCH_BYTES", batch)
        for size in (1, 3, 50, 333):
            assert [*reader("x").read(log[at : at + size] for at in range(0, len(log), size))] == whole


@pytest.mark.parametrize(("reader", "log"), READERS)
def test_a_log_read_in_two_goes_gives_every_entry_once(
    reader: type[logs.SlowLog | logs.GeneralLog], log: bytes
) -> None:
    whole = [*reader("x").read([log])]
    for cut in range(len(log) + 1):
        first = reader("x")
        entries = [*first.read([log[:cut]], final=False)]
        second = reader("x", first.state())
        assert [*entries, *second.read([log[first.consumed :]])] == whole, cut
        assert first.consumed + second.consumed == len(log)
        assert first.totals.skipped_bytes == second.totals.skipped_bytes == 0


def test_who_and_where_a_connection_is_in_a_general_log() -> None:
    log = logs.GeneralLog("x")
    entries = [*log.read(lines(
        OPENED,
        general("Query", "SELECT 'before we looked'", 3),
        general("Connect", "app@10.0.0.1 on shop using TCP/IP"),
        general("Query", "SELECT 1"),
        general("Connect", "we@b@10.0.0.2 on  using SSL/TLS", 8),
        general("Query", "SELECT 2", 8),
        general("Query", "/* x */ USE `my``db`;", 8),
        general("Prepare", "SELECT ?", 8),
        general("Execute", "SELECT 3", 8),
        general("Init DB", "fleet"),
        general("Query", "SELECT 4\nFROM t"),
        general("Change user", "root@10.0.0.1 on other using TCP/IP"),
        general("Query", "SELECT 5"),
        general("Connect", "Access denied for user 'nobody'@'10.0.0.9' (using password: YES)", 9),
        general("Quit"),
        general("Query", "SELECT 'a new connection with an old number'"),
    ))]  # fmt: skip
    assert [(e.connection, e.user, e.host, e.schema, e.text, e.kind) for e in entries if e.kind != "admin"] == [
        (3, None, None, None, "SELECT 'before we looked'", "query"),
        (7, "app", "10.0.0.1", "shop", "SELECT 1", "query"),
        (8, "we@b", "10.0.0.2", None, "SELECT 2", "query"),
        (8, "we@b", "10.0.0.2", "my`db", "/* x */ USE `my``db`;", "query"),
        (8, "we@b", "10.0.0.2", "my`db", "SELECT ?", "prepare"),
        (8, "we@b", "10.0.0.2", "my`db", "SELECT 3", "execute"),
        (7, "app", "10.0.0.1", "fleet", "SELECT 4\nFROM t", "query"),
        (7, "root", "10.0.0.1", "other", "SELECT 5", "query"),
        (7, None, None, None, "SELECT 'a new connection with an old number'", "query"),
    ]
    assert log.totals.admin == Counter({"Connect": 3, "Init DB": 1, "Change user": 1, "Quit": 1})


def test_the_general_log_within_a_string_of_the_general_log() -> None:
    inside = general("Query", "SELECT ''quoted''", at="2026-06-30T10:00:00.000000Z")
    log = lines(general("Query", f"INSERT INTO notes VALUES ('\n{inside}')"), general("Query", "SELECT 2"))
    assert texts(logs.read_general(log)) == [f"INSERT INTO notes VALUES ('\n{inside}')", "SELECT 2"]


def test_connections_that_were_forgotten_do_not_grow_without_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_CONNECTIONS", 10)
    log = logs.GeneralLog("x")
    [*log.read(lines(*(general("Connect", f"u{n}@h on s using TCP/IP", n) for n in range(100))))]
    assert [*log.state()["connections"]] == [str(n) for n in range(90, 100)]


@pytest.mark.parametrize(
    ("read", "log", "line", "named"),
    [
        (logs.read_slow, lines(OPENED, general("Query", "SELECT 1")), 4, "slow log"),
        (logs.read_general, lines(OPENED, slow("SELECT 1")), 4, "general log"),
        (logs.read_slow, lines("2026-07-01 10:00:00 0 [Note] mysqld: ready for connections.\n"), 1, "slow log"),
        (logs.read_general, lines("id,time\n1,2\n"), 1, "general log"),
        (logs.read_slow, lines("x\n" * (1 << 20)), 1, "slow log"),
    ],
)
def test_a_file_that_is_no_such_log_is_named(read: Any, log: list[bytes], line: int, named: str) -> None:
    with pytest.raises(
        LogFormatError, match=rf"^/var/log/x, line {line}: expected an entry of MySQL's {named}"
    ) as error:
        [*read(log, name="/var/log/x")]
    assert log[line - 1].decode().strip()[:10].ljust(3) not in str(error.value)  # it may be a value


def test_an_empty_log_and_one_that_was_only_opened_have_no_entries() -> None:
    for log in ([], lines(OPENED), lines("\0" * 100)):
        assert [*logs.read_slow(log)] == [*logs.read_general(log)] == []


def test_what_was_read_before_the_format_broke_is_not_lost() -> None:
    log = lines(OPENED, slow("SELECT 1"), slow("SELECT 2"), general("Query", "SELECT 3"), slow("SELECT 4"))
    entries: list[str] = []
    with pytest.raises(LogFormatError, match=r"^x, line 14: expected an entry of MySQL's slow log"):
        entries.extend(entry.text for entry in logs.read_slow(log, name="x"))
    assert entries == ["SELECT 1", "SELECT 2"]
    found = []
    with pytest.raises(LogFormatError):
        found.extend(logs.aggregate(logs.read_slow(log), source="slow_log"))
    assert sum(sighting.executions or 0 for sighting in found) == 2
    both = lines(general("Query", "SELECT 1"), slow("SELECT 2"), general("Query", "SELECT 3"))
    entries.clear()
    with pytest.raises(LogFormatError, match=r"^x, line 2: "):
        entries.extend(entry.text for entry in logs.read_general(both, name="x"))
    assert entries == ["SELECT 1"]


def test_a_log_that_begins_in_the_middle_says_how_much_it_skipped() -> None:
    log = logs.SlowLog("x")
    assert texts(log.read([b"the rest of a statement';\n", slow("SELECT 1").encode()])) == ["SELECT 1"]
    assert log.totals.skipped_bytes == len("the rest of a statement';\n")
    assert "26 bytes" in log.totals.gaps("slow_log")[0].what


# -- adding up ----------------------------------------------------------------------------------------------------------------

AT = datetime(2026, 7, 1, 10)


def entry(statement: str, second: int = 0, **over: Any) -> Entry:
    values = {
        "at": AT + timedelta(seconds=second), "connection": 1, "user": "app", "host": "10.0.0.1", "schema": "shop", "kind": "query",
        "query_ms": 2.0, "lock_ms": 0.5, "rows_sent": 1, "rows_examined": 10,
    }  # fmt: skip
    return Entry(text=statement, **{**values, **over})


def test_executions_are_added_up_by_statement_and_schema() -> None:
    found = [*logs.aggregate(
        [
            entry("SELECT * FROM t WHERE a = 1", 5), entry("select * from `t` where a = 'x' -- y", 1, user="web", host="10.0.0.2"),
            entry("SELECT * FROM t WHERE a = 1", 3, schema=None), entry("SELECT * FROM t WHERE a IN (1, 2)", 4),
            entry("SELECT * FROM t WHERE a IN (1)", 9), entry("Ping", kind="admin"),
        ],
        source="slow_log",
    )]  # fmt: skip
    assert [(s.text, s.schema, s.executions) for s in found] == [
        ("SELECT * FROM t WHERE a = 1", "shop", 2), ("SELECT * FROM t WHERE a IN (1, 2)", "shop", 2),
        ("SELECT * FROM t WHERE a = 1", None, 1),
    ]  # fmt: skip
    first = found[0]
    assert first.counters == {"total_ms": 4.0, "lock_ms": 1.0, "rows_examined": 20, "rows_sent": 2}
    assert (first.first_seen, first.last_seen) == (AT + timedelta(seconds=1), AT + timedelta(seconds=5))
    assert (first.user, first.host) == (None, None)
    assert first.users == {"app@10.0.0.1", "web@10.0.0.2"}
    assert (found[1].user, found[1].host) == ("app", "10.0.0.1")
    assert len({s.key for s in found}) == 3
    assert {s.source for s in found} == {"slow_log"}


def test_a_key_is_the_same_in_the_next_read() -> None:
    keys = [next(logs.aggregate([entry(f"SELECT {n}")], source="slow_log")).key for n in (1, 2)]
    assert keys[0] == keys[1]


def test_a_statement_that_was_only_prepared_has_no_executions() -> None:
    entries = [
        entry("SELECT ?", kind="prepare"),
        entry("SELECT 1", kind="execute"),
        entry("DELETE FROM t WHERE a = ?", kind="prepare"),
    ]
    found = [*logs.aggregate([e._replace(query_ms=None) for e in entries], source="general_log")]
    assert [(s.text, s.executions, s.counters) for s in found] == [
        ("SELECT ?", 1, {}),
        ("DELETE FROM t WHERE a = ?", 0, {}),
    ]


def test_callers_are_read_from_every_execution_without_what_differs_by_request() -> None:
    sent = [
        "SELECT 1 /*action='show',controller='orders',traceparent='00-1-2-01'*/",
        "SELECT 2 /*action='show',controller='orders',traceparent='00-3-4-01'*/",
        "/* nightly job */ SELECT 3",
        "SELECT 4 -- by hand",
        "SELECT 5",
    ]
    (found,) = logs.aggregate(map(entry, sent), source="slow_log")
    assert found.callers == {"action=show,controller=orders", "nightly job", "by hand"}
    (many,) = logs.aggregate(
        (entry(f"SELECT 1 /* request {'x' * n} */", user=f"u{n}") for n in range(1, 150)), source="slow_log"
    )
    assert len(many.callers) == len(many.users) == logs.MAX_WHO + 1
    assert logs.MORE in many.callers & many.users


def test_our_own_statements_are_marked() -> None:
    found = {s.own: s.executions for s in logs.aggregate(
        [entry(f"SELECT 1 {text.own_comment()}"), entry(f"{text.own_comment()} SELECT 1"), entry("SELECT 1 /* dbops */")],
        source="slow_log",
    )}  # fmt: skip
    assert found == {True: 1, False: 2}  # behind the statement it may be a value, or copied


def test_callers_are_no_values() -> None:
    sent = [
        "SELECT 1 /* user=bob, tenant 42, bob@example.com (x) */",
        "SELECT 1 /*application='shop',customer='Bob, Smith',job='nightly'*/",
        "SELECT 1 /* name = 'Bob Smith */",
    ]
    (found,) = logs.aggregate(map(entry, sent), source="slow_log")
    assert found.callers == {"? tenant ? ? (x)", "application=shop,job=nightly", "name ? ?"}


def test_an_entry_without_a_time_within_a_string_is_text() -> None:
    pasted = slow("SELECT 'x'").split("\n", 1)[1]
    assert pasted.startswith("# User@Host")
    log = lines(slow(f"INSERT INTO notes VALUES ('see:\n;\n{pasted}')"), slow("SELECT 2"))
    assert [e.text[:18] for e in logs.read_slow(log)] == ["INSERT INTO notes ", "SELECT 2"]
    behind = lines(slow("SELECT 1"), pasted)
    assert [e.text for e in logs.read_slow(behind)] == ["SELECT 1", "SELECT 'x'"]


@pytest.mark.parametrize("comment", ["-- it's\n", "# it's /* not\n", "--\n"])
def test_quotes_in_comments_open_no_string(comment: str) -> None:
    own = text.own_comment()
    forms = {
        logs.normal_form(f"{own} {comment}SELECT a FROM t WHERE b = {value} {comment}")[0]
        for value in ("5", "'x'", "'y'")
    }
    assert forms == {"SELECT a FROM t WHERE b = ?"}


def test_our_own_sql_has_no_quotes_in_its_comments() -> None:
    for path in (include_dir() / "sql" / "inventory").glob("*.sql"):
        header = [line for line in path.read_text().splitlines() if line.startswith("--")]
        assert not set("'\"`") & set("".join(header)), path


def test_what_was_cut_is_not_taken_for_the_whole() -> None:
    found = [*logs.aggregate([entry("SELECT a FROM t"), entry("SELECT a FROM t", truncated=True)], source="slow_log")]
    assert [s.truncated for s in found] == [False, True]


def test_memory_is_bounded_and_nothing_is_lost_by_it() -> None:
    tally = Tally("slow_log", max_groups=10, max_forms=5)
    largest = 0

    def watched() -> Iterator[Entry]:
        nonlocal largest
        for n in range(1000):
            yield entry(f"SELECT c{n % 100} FROM t WHERE a = {n}", n)
            largest = max(largest, len(tally))
            assert len(tally._forms) <= 5

    executions: Counter[str] = Counter()
    keys = defaultdict(set)
    for sighting in logs.aggregate(watched(), source="slow_log", tally=tally):
        executions[sighting.key] += sighting.executions or 0
        keys[sighting.key].add(fingerprint.fingerprint(sighting.text))
    assert largest <= 10
    assert [*executions.values()] == [10] * 100
    assert all(len(prints) == 1 for prints in keys.values())
    long = Tally("slow_log", max_text_bytes=1000)
    assert (
        len([*logs.aggregate((entry(f"SELECT {'x' * 600}{n}") for n in range(4)), source="slow_log", tally=long)]) == 4
    )
    assert not long.full


@pytest.mark.parametrize(
    "same",
    [
        [
            "SELECT 1",
            "SELECT 22",
            "SELECT 0x1F",
            "SELECT 1.5e-3",
            "SELECT 'a'",
            "SELECT 'it''s \\'; /* x */ -- y'",
            'SELECT "#"',
            "SELECT '\\\\'",
        ],
        ["a IN (1, 2)", "a IN (1, -2, 3)", f"a IN ({', '.join('9' * 1000)})"],
        [
            "INSERT INTO t VALUES (1, NULL), (2, 'b'), (3, 'c')",
            "INSERT INTO t VALUES (NULL, 'a'), (2, NULL)",
            "INSERT INTO t VALUES (1, 2), (3, 4), (5, 6), (7, 8)",
        ],
        ["SELECT 1 /*a='b',c='/d'*/", "SELECT 2 /*a='x'*/", "/* don't */SELECT 3", "SELECT 4 -- it's", "SELECT 5;"],
        ["SELECT `a`, `b 1`, `it's` FROM `t` WHERE `x` = 1", "SELECT `a`, `b 1`, `it's` FROM `t` WHERE `x` = 'y'"],
    ],
)
def test_one_normal_form_for_different_values(same: list[str]) -> None:
    assert len({logs.normal_form(statement)[0] for statement in same}) <= (2 if "VALUES" in same[0] else 1)
    assert len({fingerprint.fingerprint(statement) for statement in same}) == 1


@pytest.mark.parametrize(
    "different",
    [
        ["SELECT a", "SELECT b"],
        ["SELECT t1.a FROM t1", "SELECT t2.a FROM t2"],
        ["SELECT `a 1`", "SELECT `a 2`"],
        ["SELECT `it's 'x'`", "SELECT `it's 'y'`"],
        ["SELECT /* it's */ a, 'x' /* */", "SELECT /* it's */ b, 'x' /* */"],
        ["SELECT '/*' , a , '*/'", "SELECT '/*' , b , '*/'"],
        ["SELECT -- '\na, 'x'", "SELECT -- '\nb, 'x'"],
        ["SELECT `a/*b`, c, `d*/e`", "SELECT `a/*b`, x, `d*/e`"],
        ["SELECT 1 IN (1)", "SELECT 1 NOT IN (1)"],
        ["SELECT a IS NULL", "SELECT a IS NOT NULL"],
        ["SELECT /*!50000 a */", "SELECT /*!50000 b */"],
        ["/* a */ b */", "/* a */ c */"],
    ],
)
def test_what_is_not_the_same_keeps_apart(different: list[str]) -> None:
    assert len({logs.normal_form(statement)[0] for statement in different}) == len(different)


FRAGMENTS = [
    "'", '"', "`", "/*", "*/", "--", " ", "\n", "#", "a", "1", "x1", "1x", "0x1f", ".", "(", ")", ",", "?", "-", "+",
    "in", "values", "null", "NULL",
    "'a'", '"b"', "`c`", "/* k */", "\\", "''", "12", "1.5", "1e3", "@1", "/*!", "is ", "not ", "limit ", "select ", "_utf8", "f(",
    "), (", "(?, ?)",
    "$", "t1", "é", ";", "*", "=", ":", "!", "/*+", "'x''y'", "'\\''", ".5", "`a``1`",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(FRAGMENTS), st.sampled_from(["", " "])), max_size=6),
        min_size=2,
        max_size=40,
    )
)
@example([[(";", ""), ("1", "")], [("12", " ")]])
@example([[("-- ", ""), ("/*+", "")], [("--", ""), ("/*+", "")]])
@example([[(".", ""), ("1", "")], [(".", ""), ("0x1f1", "")]])
@example([[("`", ""), ("(", ""), (" ` ", "")], [("`", ""), ("(", ""), ("/* k */`", "")]])
def test_equal_normal_forms_have_equal_fingerprints(written: list[list[tuple[str, str]]]) -> None:
    of_form: dict[str, tuple[str, str]] = {}
    for parts in written:
        for statement in (
            "".join(map("".join, parts)),
            "".join(map("".join, parts)).replace("1", "'z'").replace("12", "7"),
        ):
            form, _ = logs.normal_form(statement)
            normal = fingerprint.normalise(statement)
            assert of_form.setdefault(form, (normal, statement))[0] == normal, (of_form[form][1], statement)


def blob(size: int) -> str:
    """Random bytes as a client escapes them."""
    seen = "".join(map(chr, random.Random(1).randbytes(size)))
    return "".join(f"\\{c}" if c in "'\"\\" else c for c in seen)


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_cut_blob_costs_no_more_than_a_whole_one(quote: str) -> None:
    cut = f"INSERT INTO t VALUES (1, {quote}{blob(2_000_000)}"
    start = time.monotonic()
    assert logs.normal_form(cut) == (f"\0{cut}", ())
    (found,) = logs.aggregate([entry(cut, truncated=True)], source="slow_log")
    assert found.truncated
    before, later = b"2026-11-29T10:00:01.000000Z", b"2026-11-29T10:00:00.000000Z"
    assert logs._quoted(before, later, cut.encode())
    assert time.monotonic() - start < 10  # hours, when the end of the string is looked for at every quote in it


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT /*!50000 HIGH_PRIORITY */ INTO t VALUES ('/* Ada Lovelace */')",
        "INSERT INTO t VALUES ('/* Ada Lovelace */ O'Brien')",
        "INSERT INTO t VALUES ('x /* Ada Lovelace */",
        "INSERT INTO t VALUES ('\\', '/* Ada Lovelace */ -- ')",
    ],
)
def test_a_value_is_no_comment(statement: str) -> None:
    """Comments are kept as callers: what stands in a string must not be taken for one."""
    (found,) = logs.aggregate([entry(statement)], source="slow_log")
    assert found.callers == frozenset()
    assert text.callers(statement) == ()


def test_a_clock_that_was_set_back_costs_no_entry() -> None:
    """The server writes the difference of its clocks without a sign (measured by many; the second spelling is that of old builds)."""
    texts = [
        slow("SELECT 1").replace("0.001500", "18446744073709.550781"),
        slow("SELECT 2").replace("0.001500", "18446744073708.796870.000036"),
    ]
    found = [*logs.read_slow(lines(*texts, slow("SELECT 3")))]
    assert [(e.text, e.query_ms) for e in found] == [("SELECT 1", None), ("SELECT 2", None), ("SELECT 3", 1.5)]
    assert sum(s.counters["total_ms"] for s in logs.aggregate(found, source="slow_log")) == 1.5


def test_a_comment_of_an_application_is_no_command() -> None:
    written = "# administrator command: Quit\nDELETE FROM t"
    reader = logs.SlowLog("l")
    (found,) = reader.read(lines(slow(written)))
    assert (found.kind, found.text, reader.totals.admin) == ("query", written, Counter())


@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize(
    ("reader", "text"),
    [
        (logs.SlowLog, "# User: app[app] @ [10.0.0.1]\n# Query_time: 0.1 Lock_time: 0.0 Rows_sent: 0 Rows_examined: 0\nSELECT 1;\n"),
        (logs.SlowLog, "# Time: 071218 11:48:27 # User@Host: app[app] @  []\n# Query_time: 0.1\nSELECT 1;\n"),
        (logs.GeneralLog, "2020-01-01T00:00:00.000000Z 0 [Note] mysqld: ready for connections.\n"),
        (logs.GeneralLog, "2020-01-01 00:00:00 app@10.0.0.1 SELECT 1\n"),
    ],
)  # fmt: skip
def test_a_short_log_of_another_format_is_named(reader: Any, text: str, final: bool) -> None:
    with pytest.raises(LogFormatError):
        [*reader("log").read([text.encode() * 2], final=final)]


@pytest.mark.parametrize(
    ("reader", "whole"), [(logs.SlowLog, slow("SELECT 1")), (logs.GeneralLog, general("Query", "SELECT 1"))]
)
def test_an_entry_that_is_being_written_is_no_other_format(reader: Any, whole: str) -> None:
    for size in range(len(whole)):
        assert [*reader("log").read([whole[:size].encode()], final=False)] == []
