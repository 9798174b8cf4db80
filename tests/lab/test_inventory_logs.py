"""The real slow and general log of MySQL 5.7.22 and 8.0.15: every statement that was sent is read back, as it was sent."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mysql.connector
import MySQLdb
import pytest

from dbops.inventory import logs
from dbops.inventory.fingerprint import fingerprint
from dbops.inventory.log_sources import Files, Reading
from dbops.inventory.logs import Entry, LogKind
from dbops.inventory.model import Sighting
from lab import config
from tests.lab.inventory_kit import NAMES, Mysqld

pytestmark = pytest.mark.lab

# What a client sends by itself is no statement of ours.
CHATTER = ("SET NAMES", "SET autocommit", "SET @@session.autocommit")
QUOTED_LOG = (
    "INSERT INTO notes VALUES (';\n# Time: 2020-01-01T00:00:00.000000Z\n# User@Host: a[a] @  [b]  Id:     1\n"
    "# Query_time: 0.1  Lock_time: 0.0 Rows_sent: 1  Rows_examined: 1\nSET timestamp=1;\nSELECT \\'quoted\\';\n"
    "2020-01-01T00:00:00.000000Z\t    1 Query\tSELECT \\'quoted\\'\n')"
)
TEXTS = [
    "SELECT 1",
    "SELECT * FROM t WHERE id = 5",
    "SELECT *\n  FROM t\n WHERE a IN (1,\n\t2)\n",
    "SELECT /* a comment */ id -- and another\nFROM t # and a third",
    "SELECT id FROM t /*action='show',controller='orders',traceparent='00-1-2-01'*/",
    "  SELECT  'blanks'  ;  ",
    "SELECT 'semicolon;\n# Time: 2020-01-01T00:00:00.000000Z\nand a line that looks like a header'",
    QUOTED_LOG,
    "SELECT 'it''s', \"say \\\"x\\\"\", `id`, 'é ü 漢' FROM t",
    "SELECT\tid\r\nFROM\tt",
    "INSERT INTO t VALUES (10, 1, 'x'),\n(11, 2, NULL)",
    "REPLACE INTO t VALUES (11, 3, 'y')",
    "INSERT INTO t VALUES (11, 3, 'y') ON DUPLICATE KEY UPDATE a = VALUES(a)",
    "UPDATE t SET a = a + 1 WHERE id = 10",
    "DELETE t FROM t JOIN t2 USING (id) WHERE t.a = 99",
    "CALL work(3)",
    "SELECT other.t.id FROM other.t",
    "SELECT * FROM missing",
    "SET @x = 1",
    "PREPARE p FROM 'SELECT * FROM t WHERE id = ?'",
    "EXECUTE p USING @x",
    "DEALLOCATE PREPARE p",
    "CREATE TEMPORARY TABLE tmp AS SELECT 1 AS n",
    "TRUNCATE TABLE t2",
    "SHOW TABLES",
    "INSERT INTO notes VALUES ('" + "x" * (1 << 20) + "')",
    "SELECT " + "(" * 400 + "1" + ")" * 400,
    "BEGIN",
    "COMMIT",
]
"""Sent in this order with the default schema `shop`. The server cuts blanks and `;` at the ends before it logs."""
EXECUTED = "SELECT * FROM t WHERE id = 1"
"""What the logs make of `EXECUTE p USING @x`."""


@dataclass
class Sent:
    """What was sent: (user, default schema, text) in the order of each connection's number."""

    by_connection: dict[int, list[tuple[str, str | None, str]]] = field(default_factory=dict)
    prepared: Counter[tuple[str, str | None, str]] = field(default_factory=Counter)
    """Executions of server-side prepared statements, by their text with values."""
    started: list[tuple[str, str | None, str]] = field(default_factory=list)
    """The prepared texts."""


@dataclass
class Logs:
    server: Mysqld
    sent: Sent

    def path(self, kind: LogKind) -> Path:
        return self.server.folder / f"{kind}.txt"

    def read(self, kind: LogKind) -> list[Entry]:
        reading = Reading(Files(self.path(kind)), kind)
        entries = [*reading.entries(final=True)]
        assert reading.gaps == ()
        return entries


@pytest.fixture(scope="module", params=NAMES)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logs]:
    """A server that logged the workload, and what the workload was; the logs are rotated in the middle."""
    server = Mysqld(request.param, tmp_path_factory.mktemp(request.param))
    server.start(
        "--log-output=FILE", "--slow-query-log=1", "--long-query-time=0", "--general-log=1", "--max-allowed-packet=64M",
        f"--slow-query-log-file={server.folder / 'slow_log.txt'}", f"--general-log-file={server.folder / 'general_log.txt'}",
    )  # fmt: skip
    try:
        logged = Logs(server, Sent())
        set_up(server)
        for kind in ("slow_log", "general_log"):
            logged.path(kind).rename(logged.path(kind).with_name(f"{kind}.txt.0"))
        server.sql("FLUSH LOGS")
        for kind in ("slow_log", "general_log"):
            logged.path(kind).with_name(f"{kind}.txt.0").unlink()
        send(server, logged.sent, lambda: rotate(logged))
        server.stop()
        yield logged
    finally:
        server.stop()


def set_up(server: Mysqld) -> None:
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        for statement in (
            "CREATE DATABASE shop", "CREATE DATABASE other", "CREATE TABLE shop.t (id INT PRIMARY KEY, a INT, b TEXT)",
            "CREATE TABLE shop.t2 (id INT PRIMARY KEY)", "CREATE TABLE other.t (id INT PRIMARY KEY)",
            "CREATE TABLE shop.notes (x LONGTEXT)",
            "CREATE PROCEDURE shop.work(n INT) BEGIN SELECT n; UPDATE t SET a = a + n; END",
            f"CREATE USER 'app'@'{config.HOST}' IDENTIFIED WITH mysql_native_password BY 'x'", f"GRANT ALL ON *.* TO 'app'@'{config.HOST}'",
        ):  # fmt: skip
            cursor.execute(statement)


def rotate(logged: Logs) -> None:
    for kind in ("slow_log", "general_log"):
        logged.path(kind).rename(logged.path(kind).with_name(f"{kind}.txt.1"))
    logged.server.sql("FLUSH LOGS")


def send(server: Mysqld, sent: Sent, rotate: Any) -> None:
    one_by_one(server, sent, "root", "shop", TEXTS)
    changing_schema(server, sent)
    rotate()
    interleaved(server, sent)
    prepared(server, sent)


def run(connection: MySQLdb.Connection, statement: str) -> None:
    # `missing` is there to fail: what fails is logged too.
    with connection.cursor() as cursor, suppress(MySQLdb.ProgrammingError):
        cursor.execute(statement)
        while cursor.nextset() is not None:
            pass


def one_by_one(server: Mysqld, sent: Sent, user: str, schema: str | None, statements: list[str]) -> None:
    password = {"passwd": "x"} if user == "app" else {}
    with closing(server.connect(user, **password, **({"database": schema} if schema else {}))) as connection:
        mine = sent.by_connection.setdefault(connection.thread_id(), [])
        for statement in statements:
            run(connection, statement)
            mine.append((user, schema, statement.strip().rstrip("; ")))


def changing_schema(server: Mysqld, sent: Sent) -> None:
    """No schema, `use x`, Init DB, and a command between."""
    with closing(server.connect()) as connection:
        mine = sent.by_connection.setdefault(connection.thread_id(), [])
        for schema, statement in (
            (None, "SELECT 'no schema'"),
            ("shop", "use shop"),
            ("shop", "SELECT 'in shop' FROM t"),
        ):
            run(connection, statement)
            mine.append(("root", schema, statement))
        connection.select_db("other")
        connection.ping()
        run(connection, "SELECT 'in other' FROM t")
        mine.append(("root", "other", "SELECT 'in other' FROM t"))
        connection.change_user("app", "x", "shop")
        run(connection, "SELECT 'as app' FROM t")
        mine.append(("app", "shop", "SELECT 'as app' FROM t"))


def interleaved(server: Mysqld, sent: Sent) -> None:
    """Eight connections at once, with two schemas and two users."""
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            user, schema = ("root", "app")[number % 2], ("shop", "other")[number // 2 % 2]
            one_by_one(
                server,
                sent,
                user,
                schema,
                [f"SELECT 'connection {number}',\n{n} FROM t WHERE id = {n}" for n in range(100)],
            )
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def prepared(server: Mysqld, sent: Sent) -> None:
    """Server-side prepared statements: COM_STMT_PREPARE, COM_STMT_EXECUTE."""
    with closing(
        mysql.connector.connect(
            host=config.HOST, port=server.port, user="root", database="shop", use_pure=True, autocommit=True
        )
    ) as connection:
        with closing(connection.cursor(prepared=True)) as cursor:
            for number in range(3):
                cursor.execute("SELECT * FROM t WHERE id = ? AND b = ?", (number, "it's"))
                cursor.fetchall()
                sent.prepared["root", "shop", f"SELECT * FROM t WHERE id = {number} AND b = 'it\\'s'"] += 1
        with closing(connection.cursor(prepared=True)) as cursor:
            cursor.execute("DELETE FROM t WHERE id = ?", (4711,))
            sent.prepared["root", "shop", "DELETE FROM t WHERE id = 4711"] += 1
        sent.started += [
            ("root", "shop", text) for text in ("SELECT * FROM t WHERE id = ? AND b = ?", "DELETE FROM t WHERE id = ?")
        ]


def ours(entries: list[Entry]) -> list[Entry]:
    return [e for e in entries if e.kind != "admin" and not e.text.startswith(CHATTER) and e.text != "FLUSH LOGS"]


def of_connections(entries: list[Entry], sent: Sent) -> dict[int, list[tuple[str | None, str | None, str]]]:
    found: dict[int, list[tuple[str | None, str | None, str]]] = {number: [] for number in sent.by_connection}
    for entry in entries:
        if entry.connection in found:
            found[entry.connection].append((entry.user, entry.schema, entry.text))
    return found


def test_every_statement_is_in_the_slow_log_as_it_was_sent(written: Logs) -> None:
    entries = ours(written.read("slow_log"))
    assert {e.kind for e in entries} == {"query"}
    assert {e.host for e in entries} == {config.HOST}
    found = of_connections(entries, written.sent)
    for number, statements in written.sent.by_connection.items():
        expected = [(u, s, in_slow_log(written, text)) for u, s, text in statements]
        # Of a session without a schema the log shows the one that was named last; such a session is marked by what it says.
        got = [(u, None if text == "SELECT 'no schema'" else s, text) for u, s, text in found[number]]
        assert got == expected
    others = Counter((e.user, e.schema, e.text) for e in entries if e.connection not in written.sent.by_connection)
    assert others == written.sent.prepared
    assert all(e.query_ms is not None and e.at is not None for e in entries)
    assert sum(e.rows_examined or 0 for e in entries) > 0


def in_slow_log(written: Logs, text: str) -> str:
    """The slow log shows what EXECUTE ran, and 8.0 hides what PREPARE prepares."""
    if text.startswith("EXECUTE"):
        return EXECUTED
    return (
        "PREPARE p FROM ..." if text.startswith("PREPARE") and written.server.server.version.startswith("8.") else text
    )


def test_every_statement_is_in_the_general_log_as_it_was_sent(written: Logs) -> None:
    entries = ours(written.read("general_log"))
    found = of_connections([e for e in entries if e.kind == "query"], written.sent)
    for number, statements in written.sent.by_connection.items():
        assert found[number] == [
            (u, s, "PREPARE p FROM ..." if text.startswith("PREPARE") else text) for u, s, text in statements
        ]
    executed = Counter((e.user, e.schema, e.text) for e in entries if e.kind == "execute")
    assert executed == written.sent.prepared + Counter([("root", "shop", EXECUTED)])
    started = [(e.user, e.schema, e.text) for e in entries if e.kind == "prepare"]
    assert started == [("root", "shop", "SELECT * FROM t WHERE id = ?"), *written.sent.started]
    assert {e.host for e in entries} == {config.HOST}


@pytest.mark.parametrize("kind", ["slow_log", "general_log"])
def test_commands_are_counted(written: Logs, kind: LogKind) -> None:
    reading = Reading(Files(written.path(kind)), kind)
    for _ in reading.entries(final=True):
        pass
    admin = reading.totals.admin
    # The connections of the workload, the one that FLUSH LOGS came through, and the one that was flushed away before the log began.
    assert admin["Quit"] >= len(written.sent.by_connection) + 2
    assert admin["Init DB"] == admin["Change user"] == 1
    assert admin["Close stmt"] == 2
    assert reading.totals.undecodable == reading.totals.skipped_bytes == reading.totals.truncated == 0


@pytest.mark.parametrize("kind", ["slow_log", "general_log"])
def test_read_in_many_goes_while_it_grows_and_is_rotated(written: Logs, kind: LogKind, tmp_path: Path) -> None:
    """The first part under its first name, then both files as the rotation left them: nothing twice, nothing lost."""
    whole = written.read(kind)
    old, new = (written.path(kind).with_name(name).read_bytes() for name in (f"{kind}.txt.1", f"{kind}.txt"))
    live, checkpoint, found = tmp_path / "log", None, list[Entry]()

    def go(*, final: bool = False) -> None:
        nonlocal checkpoint
        reading = Reading(Files(live), kind, checkpoint)
        found.extend(reading.entries(final=final))
        checkpoint = reading.checkpoint
        assert reading.gaps == ()

    for end in range(10_000, len(old), 400_000):
        live.write_bytes(old[:end])
        go()
    live.write_bytes(old)
    live.rename(tmp_path / "log.1")
    live.write_bytes(new[: len(new) // 2])
    go()
    live.write_bytes(new)
    go(final=True)
    assert found == whole


@pytest.mark.parametrize("kind", ["slow_log", "general_log"])
def test_the_sightings_add_up_to_what_was_sent(written: Logs, kind: LogKind) -> None:
    found = [*Reading(Files(written.path(kind)), kind).sightings(final=True)]
    executions = Counter[str]()
    for sighting in found:
        executions[fingerprint(sighting.text)] += sighting.executions or 0
    expected = Counter[str]()
    for statements in written.sent.by_connection.values():
        for _, _, text in statements:
            logged = in_slow_log(written, text) if kind == "slow_log" else text
            expected[
                fingerprint("PREPARE p FROM ..." if kind == "general_log" and text.startswith("PREPARE") else logged)
            ] += 1
    for (_, _, text), count in written.sent.prepared.items():
        expected[fingerprint(text)] += count
    if kind == "general_log":
        expected[fingerprint(EXECUTED)] += 1
    assert {digest: executions[digest] for digest in expected} == expected
    assert one(found, "SELECT id FROM t").callers == {
        "action=show,controller=orders",
        "a comment",
        "and another",
        "and a third",
    }
    assert one(found, "SELECT 'connection', 1 FROM t WHERE id = 1").users == {
        f"root@{config.HOST}",
        f"app@{config.HOST}",
    }


def one(found: list[Sighting], statement: str) -> Sighting:
    (sighting,) = (s for s in found if fingerprint(s.text) == fingerprint(statement) and s.schema == "shop")
    return sighting


def test_a_statement_that_is_no_sql_is_seen_in_the_slow_log_only(written: Logs, tmp_path: Path) -> None:
    """What the server could not parse ran nothing; only the slow log shows it."""
    server = written.server
    server.start(
        "--log-output=FILE", "--slow-query-log=1", "--long-query-time=0", "--general-log=1",
        f"--slow-query-log-file={tmp_path / 'slow'}", f"--general-log-file={tmp_path / 'general'}",
    )  # fmt: skip
    try:
        with closing(server.connect()) as connection:
            run(connection, "SELEC 1 FROM 'open")
            run(connection, "SELECT 2")
    finally:
        server.stop()
    slow, general = ([e.text for e in ours([*read((tmp_path / name).open("rb"))])] for name, read in
                     (("slow", logs.read_slow), ("general", logs.read_general)))  # fmt: skip
    assert slow == ["SELEC 1 FROM 'open", "SELECT 2"]
    assert general == ["SELECT 2"]
