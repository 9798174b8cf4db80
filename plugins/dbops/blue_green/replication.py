"""Replication from blue to green, tried: how long each kind of change takes to arrive, and which known breakers do break it.

Changes use tables of their own. Arrival is polled on green and timed on this process's monotonic clock from the moment at which blue
acknowledged the change, so a figure is at most POLL_S (and an answer's way) too large.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dbops import mysql, sql

TABLE, KEYLESS, BREAK = "dbops_arrival", "dbops_arrival_keyless", "dbops_break"
POLL_S = 0.01
STATE_S = 0.25  # so often it is asked whether replication runs at all
DOUBLINGS = 16
"""The big transaction has 2^16 rows."""
Verdict = Literal["broke", "wrong data", "replicates", "refused", "not tried"]


@dataclass(frozen=True)
class Arrival:
    """One change. ``on_blue_s``: how long blue took for it; ``seconds``: from blue's acknowledgement until green showed it, None: never."""

    name: str
    kind: Literal["dml", "ddl"]
    statement: str
    on_blue_s: float | None
    seconds: float | None
    error: str = ""


@dataclass(frozen=True)
class Breakage:
    """What became of replication after one known breaker. ``repaired``: replication runs again, so that the next one could be tried."""

    name: str
    side: Literal["blue", "green"]
    statement: str
    verdict: Verdict
    error: str = ""
    repaired: bool = True


@dataclass(frozen=True)
class ReplicaState:
    """What green says of its replication. ``behind_s`` is MySQL's own figure: for people, not for a gate."""

    configured: bool
    running: bool
    behind_s: int | None
    error: str


@dataclass(frozen=True)
class _Change:
    """Statements on blue, in one transaction, and a question whose answer on green becomes 1; {t} and {k} are the tables."""

    name: str
    kind: Literal["dml", "ddl"]
    statements: tuple[str, ...]
    arrived: str
    shown: str = ""


_COLUMNS = "FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %(schema)s AND TABLE_NAME = %(table)s"
_INDEXES = "FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = %(schema)s AND TABLE_NAME = %(table)s"
_TABLES = "FROM information_schema.TABLES WHERE TABLE_SCHEMA = %(schema)s"
_DOUBLE = "INSERT INTO {t} (batch, a, note) SELECT batch, a + 1, note FROM {t} WHERE batch = 'big'"
CHANGES = (
    _Change(
        "create table", "ddl",
        ("CREATE TABLE {t} (id INT AUTO_INCREMENT PRIMARY KEY, batch VARCHAR(9), a INT, note VARCHAR(80), KEY (batch)) ENGINE = InnoDB",),
        f"SELECT COUNT(*) = 1 {_TABLES} AND TABLE_NAME = %(table)s",
    ),
    _Change(
        "insert", "dml", ("INSERT INTO {t} (batch, a, note) VALUES ('one', 1, 'é')",),
        "SELECT COUNT(*) = 1 FROM {t} WHERE batch = 'one'",
    ),
    _Change(
        "insert of many rows", "dml", ("INSERT INTO {t} (batch, a, note) VALUES " + ", ".join(["('many', 7, 'x')"] * 1000),),
        "SELECT COUNT(*) = 1000 FROM {t} WHERE batch = 'many'", "INSERT of 1,000 rows in one statement",
    ),
    _Change(
        "update", "dml", ("UPDATE {t} SET a = 777 WHERE batch = 'one'",),
        "SELECT COUNT(*) = 1 FROM {t} WHERE batch = 'one' AND a = 777",
    ),
    _Change(
        "update of many rows", "dml", ("UPDATE {t} SET a = a + 1 WHERE batch = 'many'",),
        "SELECT COUNT(*) = 1000 FROM {t} WHERE batch = 'many' AND a = 8",
    ),
    _Change("delete", "dml", ("DELETE FROM {t} WHERE batch = 'one'",), "SELECT COUNT(*) = 0 FROM {t} WHERE batch = 'one'"),
    _Change(
        "big transaction", "dml", ("INSERT INTO {t} (batch, a, note) VALUES ('big', 1, REPEAT('b', 60))", *[_DOUBLE] * DOUBLINGS),
        f"SELECT COUNT(*) = {2**DOUBLINGS} FROM {{t}} WHERE batch = 'big'", f"INSERT of {2**DOUBLINGS:,} rows in one transaction",
    ),
    _Change(
        "create table without a key", "ddl", ("CREATE TABLE {k} (a INT, note VARCHAR(80)) ENGINE = InnoDB",),
        f"SELECT COUNT(*) = 1 {_TABLES} AND TABLE_NAME = %(keyless)s",
    ),
    _Change(
        "insert without a key", "dml", ("INSERT INTO {k} SELECT id, note FROM {t} WHERE batch = 'big' ORDER BY id LIMIT 10000",),
        "SELECT COUNT(*) = 10000 FROM {k}",
    ),
    _Change(
        "update without a key", "dml", ("UPDATE {k} SET note = 'changed' ORDER BY a DESC LIMIT 100",),
        "SELECT COUNT(*) = 100 FROM {k} WHERE note = 'changed'",
    ),
    _Change(
        "add column at the end", "ddl", ("ALTER TABLE {t} ADD COLUMN last_one INT NOT NULL DEFAULT 5",),
        f"SELECT COUNT(*) = 1 {_COLUMNS} AND COLUMN_NAME = 'last_one'",
    ),
    _Change(
        "insert with the new column", "dml", ("INSERT INTO {t} (batch, last_one) VALUES ('new', 6)",),
        "SELECT COUNT(*) = 1 FROM {t} WHERE batch = 'new' AND last_one = 6",
    ),
    _Change(
        "add index", "ddl", ("ALTER TABLE {t} ADD INDEX by_note (note)",),
        f"SELECT COUNT(*) = 1 {_INDEXES} AND INDEX_NAME = 'by_note'",
    ),
    _Change(
        "instant DDL: new default", "ddl", ("ALTER TABLE {t} ALTER COLUMN a SET DEFAULT 41",),
        f"SELECT COUNT(*) = 1 {_COLUMNS} AND COLUMN_NAME = 'a' AND COLUMN_DEFAULT = '41'",
    ),
    _Change("drop index", "ddl", ("ALTER TABLE {t} DROP INDEX by_note",), f"SELECT COUNT(*) = 0 {_INDEXES} AND INDEX_NAME = 'by_note'"),
    _Change("truncate", "ddl", ("TRUNCATE TABLE {k}",), "SELECT COUNT(*) = 0 FROM {k}"),
    _Change(
        "drop table", "ddl", ("DROP TABLE {t}, {k}",),
        f"SELECT COUNT(*) = 0 {_TABLES} AND TABLE_NAME IN (%(table)s, %(keyless)s)", "DROP TABLE of both",
    ),
)  # fmt: skip


def run(
    blue: Any, green: Any, schema: str, deadline_s: float, *, wait: Callable[[float], None] = time.sleep
) -> list[Arrival]:
    """Make each change on blue, one after the other, and time its arrival on green.

    Args:
        blue: connection that may create and drop tables in the schema
        green: connection that may read the schema, and has REPLICATION CLIENT
        schema: where; tables of an interrupted run are dropped first
        deadline_s: for each change; one that has not arrived by then counts as lost. Once replication has stopped, nothing more is tried.
        wait: pauses so many seconds between two looks

    Raises:
        MySQLdb.Error: blue or green is not there
    """
    for conn in (blue, green):
        conn.autocommit(True)  # a transaction on green would go on showing what was there when it began
    names = {"t": sql.ident((schema, TABLE)), "k": sql.ident((schema, KEYLESS))}
    bound = {"schema": schema, "table": TABLE, "keyless": KEYLESS}
    with blue.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS {names['t']}, {names['k']}")
    look = _Look(green, deadline_s, wait)
    stopped = look.until(f"SELECT COUNT(*) = 0 {_TABLES} AND TABLE_NAME IN (%(table)s, %(keyless)s)", bound)[1]
    found: list[Arrival] = []
    for change in CHANGES:
        statements = [statement.format(**names) for statement in change.statements]
        shown = change.shown or statements[0]
        if stopped:
            found.append(Arrival(change.name, change.kind, shown, None, None, f"not tried: {stopped}"))
            continue
        took, error = _execute(blue, statements)
        if error:
            found.append(Arrival(change.name, change.kind, shown, took, None, f"blue: {error}"))
            continue
        seconds, stopped = look.until(change.arrived.format(**names), bound)
        found.append(Arrival(change.name, change.kind, shown, took, seconds, stopped))
    return found


class _Look:
    """Asks green again and again."""

    def __init__(self, green: Any, deadline_s: float, wait: Callable[[float], None]) -> None:
        self._green, self._deadline_s, self._wait = green, deadline_s, wait

    def until(self, question: str, bound: dict[str, str] | None = None) -> tuple[float | None, str]:
        """(seconds until the answer is 1, "") or (None, why it will not be)."""
        begun, error, state_at = time.monotonic(), "", 0.0
        while True:
            asked = time.monotonic()
            error = self._ask(question, bound)
            if not error:
                return time.monotonic() - begun, ""
            if asked - state_at >= STATE_S:
                state_at, state = asked, replica_state(self._green)
                if not state.running:
                    return None, f"replication has stopped: {state.error or 'not configured'}"
            if asked - begun >= self._deadline_s:
                return None, f"not on green after {self._deadline_s:g} s: {error}"
            self._wait(POLL_S)

    def _ask(self, question: str, bound: dict[str, str] | None) -> str:
        import MySQLdb

        try:
            return "" if mysql.scalar(self._green, question, bound) else "green answers without it"
        except MySQLdb.ProgrammingError as error:  # a table or column that is not there yet
            return f"{error.args[0]}: {error.args[-1]}"


def replica_state(green: Any) -> ReplicaState:
    """State of replication on green, as a user with REPLICATION CLIENT. Raises MySQLdb.Error."""
    # 8.0.22 renamed it, 8.4 forgot the old name.
    new = mysql.read_server(green).version_tuple >= (8, 0, 22)
    found = mysql.rows(green, "SHOW REPLICA STATUS" if new else "SHOW SLAVE STATUS")
    if not found:
        return ReplicaState(False, False, None, "green is not a replica")
    word, source = ("Replica", "Source") if new else ("Slave", "Master")
    row = found[0]
    running = row[f"{word}_IO_Running"] != "No" and row[f"{word}_SQL_Running"] == "Yes"
    errors = [row["Last_SQL_Error"], row["Last_IO_Error"], row["Last_Error"]]
    behind = row[f"Seconds_Behind_{source}"]
    return ReplicaState(True, running, None if behind is None else int(behind), next(filter(None, errors), ""))


def _execute(conn: Any, statements: Sequence[str]) -> tuple[float, str]:
    """Run the statements in one transaction; (seconds, error or "")."""
    import MySQLdb

    begun = time.monotonic()
    try:
        with conn.cursor() as cursor:
            if len(statements) > 1:
                cursor.execute("START TRANSACTION")
            for statement in statements:
                cursor.execute(statement)
            if len(statements) > 1:
                cursor.execute("COMMIT")
    except MySQLdb.Error as error:
        conn.rollback()
        return time.monotonic() - begun, f"{error.args[0]}: {error.args[-1]}"
    return time.monotonic() - begun, ""


@dataclass(frozen=True)
class _Breaker:
    """A statement on one side; then a row is inserted on blue that `arrived` finds on green; `undo` is for green. {t}: the table."""

    name: str
    side: Literal["blue", "green"]
    statement: str
    arrived: str = "SELECT COUNT(*) = 1 FROM {t} WHERE id = 2 AND a = 20 AND b = 200 AND word = 'two'"
    undo: str = ""


BREAKERS = (
    _Breaker("new column at the end of green", "green", "ALTER TABLE {t} ADD COLUMN extra INT", undo="ALTER TABLE {t} DROP COLUMN extra"),
    _Breaker(
        "renamed column on green", "green", "ALTER TABLE {t} CHANGE COLUMN b renamed INT",
        "SELECT COUNT(*) = 1 FROM {t} WHERE id = 2 AND a = 20 AND renamed = 200 AND word = 'two'",
        "ALTER TABLE {t} CHANGE COLUMN renamed b INT",
    ),
    _Breaker(
        "new column in the middle of green", "green", "ALTER TABLE {t} ADD COLUMN early INT AFTER word",
        undo="ALTER TABLE {t} DROP COLUMN early",
    ),
    _Breaker(
        "other type on green", "green", "ALTER TABLE {t} MODIFY COLUMN a VARCHAR(20)", undo="ALTER TABLE {t} MODIFY COLUMN a INT",
    ),
    _Breaker(
        "renamed table on green", "green", "RENAME TABLE {t} TO {r}", "SELECT COUNT(*) = 1 FROM {r} WHERE id = 2",
        "RENAME TABLE {r} TO {t}",
    ),
    _Breaker("word that 8.0 reserves, on blue", "blue", "ALTER TABLE {t} ADD COLUMN rank INT"),
    _Breaker(
        "partitions of another engine, on blue", "blue",
        "CREATE TABLE {r} (id INT) ENGINE = MyISAM PARTITION BY HASH (id) PARTITIONS 2",
    ),
)  # fmt: skip


def breaking(
    blue: Any,
    green: Any,
    schema: str,
    deadline_s: float,
    *,
    repair: Callable[[Any, Literal["blue", "green"]], None] | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> list[Breakage]:
    """Try what is known to break replication. It leaves it broken where it cannot be repaired: run it after all else.

    Args:
        blue: as for :func:`run`
        green: connection of the master user (the others may not write there)
        schema: where
        deadline_s: for each; replication that has neither stopped nor brought the row by then counts as broken
        repair: lets replication on green (given) run again after a breaker of that side; default: the procedures of RDS
        wait: pauses so many seconds between two looks

    Raises:
        MySQLdb.Error: blue or green is not there
    """
    for conn in (blue, green):
        conn.autocommit(True)
    names = {"t": sql.ident((schema, BREAK)), "r": sql.ident((schema, f"{BREAK}_renamed"))}
    look, found, stopped = _Look(green, deadline_s, wait), [], ""
    for breaker in BREAKERS:
        statement = breaker.statement.format(**names)
        if not stopped:
            made = ["DROP TABLE IF EXISTS {t}, {r}", "CREATE TABLE {t} (id INT PRIMARY KEY, word VARCHAR(9), a INT, b INT) ENGINE = InnoDB",
                    "INSERT INTO {t} VALUES (1, 'one', 10, 100)"]  # fmt: skip
            for each in made:
                stopped = stopped or _execute(blue, [each.format(**names)])[1]
            stopped = stopped or look.until("SELECT COUNT(*) = 1 FROM {t} WHERE id = 1 AND b = 100".format(**names))[1]
        if stopped:
            found.append(Breakage(breaker.name, breaker.side, statement, "not tried", stopped, repaired=False))
            continue
        breakage = _try(breaker, names, blue, green, look)
        if breakage.verdict == "broke" or breaker.side == "green":
            stopped = _repair(breaker, names, green, repair or _by_rds, breakage.verdict == "broke", look)
        found.append(Breakage(breaker.name, breaker.side, statement, breakage.verdict, breakage.error, not stopped))
    if not stopped:
        _execute(blue, ["DROP TABLE IF EXISTS {t}, {r}".format(**names)])
    return found


def _try(breaker: _Breaker, names: dict[str, str], blue: Any, green: Any, look: _Look) -> Breakage:
    statement = breaker.statement.format(**names)
    _, error = _execute(blue if breaker.side == "blue" else green, [statement])
    if error:
        return Breakage(breaker.name, breaker.side, statement, "refused", error)
    row = "(id, a, b, word) VALUES (2, 20, 200, 'two')"
    _, error = _execute(blue, [f"INSERT INTO {names['t']} {row}"])
    if error:
        return Breakage(breaker.name, breaker.side, statement, "refused", f"the next write on blue: {error}")
    seconds, error = look.until(breaker.arrived.format(**names))
    if seconds is not None:
        return Breakage(breaker.name, breaker.side, statement, "replicates")
    if replica_state(green).running and mysql.scalar(green, f"SELECT COUNT(*) FROM {names['t']} WHERE id = 2"):
        return Breakage(
            breaker.name, breaker.side, statement, "wrong data", "the row arrived with other values, without any error"
        )
    return Breakage(breaker.name, breaker.side, statement, "broke", error)


def _repair(
    breaker: _Breaker, names: dict[str, str], green: Any, repair: Callable[[Any, Literal["blue", "green"]], None],
    broke: bool, look: _Look,
) -> str:  # fmt: skip
    """Undo it on green and let replication run again; "" or why that failed."""
    import MySQLdb

    error = _execute(green, [breaker.undo.format(**names)])[1] if breaker.undo else ""
    if broke and not error:
        try:
            repair(green, breaker.side)
        except MySQLdb.Error as failed:
            error = f"{failed.args[0]}: {failed.args[-1]}"
        else:
            # The row that was in the way arrives, unless its event was what had to be skipped.
            error = look.until("SELECT COUNT(*) = 1 FROM {t} WHERE id = 2".format(**names))[1]
    return f"replication could not be repaired after {breaker.name!r}: {error}" if error else ""


def _by_rds(green: Any, side: Literal["blue", "green"]) -> None:
    """By the procedures of RDS and Aurora: the statement of blue is skipped; what was undone on green is tried again."""
    with green.cursor() as cursor:
        cursor.execute("CALL mysql.rds_skip_repl_error" if side == "blue" else "CALL mysql.rds_start_replication")
        cursor.fetchall()
        while cursor.nextset():
            cursor.fetchall()
