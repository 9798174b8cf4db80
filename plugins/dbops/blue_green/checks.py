"""What must be so of blue and green: the same rows, writes refused on green, writes taken on blue.

Rows are compared at one point of blue's history. Its tables are locked against writes until green has executed what blue had, and both
sides have opened a snapshot: that takes as long as green lags, not as long as reading the rows, which is done from the snapshots.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

from dbops import mysql, sql
from dbops.blue_green import load, replication
from dbops.blue_green.load import Checksum
from dbops.blue_green.probes import REFUSALS, TABLE

MARKER = "dbops_marker"
POLL_S = 0.05
LOCK_WAIT_S = 10
"""While it waits for an open transaction that wrote, new writes wait behind it."""
Proof = Literal["gtid", "position", "marker row"]


class CheckError(RuntimeError):
    """A check could not be made, so nothing is known; the text says why and what to do."""


@dataclass(frozen=True)
class Difference:
    """A table that is not the same; None: it is not on that side. `columns` has those that only one side has."""

    table: str
    blue: Checksum | None
    green: Checksum | None
    columns: str = ""

    def __str__(self) -> str:
        if self.blue is None or self.green is None:
            return f"{self.table} is only on {'green' if self.blue is None else 'blue'}"
        counts = f"{self.blue.rows} rows on blue, {self.green.rows} on green"
        return f"{self.table}: {self.columns or (counts if self.blue.rows != self.green.rows else f'{counts}, with other values')}"


@dataclass(frozen=True)
class Comparison:
    """Whether the data is the same.

    ``proof`` says how it is known that green had executed what blue had: by GTID, by position in blue's binlog, or by a row that was
    written on blue and arrived (which proves it only where green applies in blue's order: ``slave_preserve_commit_order``).
    ``locked_s`` is how long blue's tables could not be written.
    """

    tables: int
    rows: int
    differences: tuple[Difference, ...]
    proof: Proof
    locked_s: float

    @property
    def is_same(self) -> bool:
        """No difference, and there was something to compare."""
        return self.tables > 0 and not self.differences


def same_data(
    connect_blue: Callable[[], Any],
    connect_green: Callable[[], Any],
    schema: str,
    *,
    deadline_s: float = 60.0,
    exclude: Collection[str] = (TABLE,),
    wait: Callable[[float], None] = time.sleep,
) -> Comparison:
    """Compare every base table of a schema, while others write.

    Args:
        connect_blue: gives new connections, as a user with LOCK TABLES, SELECT and REPLICATION CLIENT, and who may write to the schema
        connect_green: gives new connections, as a user with SELECT and REPLICATION CLIENT
        schema: whose tables
        deadline_s: how long blue's tables may stay locked while green catches up
        exclude: tables that are neither locked nor compared; by default the one that probes write to, which has a check of its own
            (:mod:`acknowledged`), and whose lock they would take for an outage
        wait: pauses so many seconds between two looks

    Raises:
        CheckError: green did not catch up in time, or tables could not be locked
        MySQLdb.Error: a side is not there
    """
    with closing(connect_blue()) as locker, closing(connect_blue()) as blue, closing(connect_green()) as green:
        for conn in (locker, blue, green):
            conn.autocommit(True)
        exclude = {*exclude, MARKER}
        tables = [name for name in _tables(blue, schema) if name not in exclude]
        locked = _lock(locker, schema, tables)
        try:
            proof = _caught_up(blue, green, schema, deadline_s, wait)
            for conn in (blue, green):
                with conn.cursor() as cursor:
                    cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        finally:
            with locker.cursor() as cursor:
                cursor.execute("UNLOCK TABLES")
        locked_s = time.monotonic() - locked
        differences, sums = _compare(blue, green, schema, set(tables), set(exclude))
    return Comparison(len(tables), load.total(sums).rows, tuple(differences), proof, locked_s)


def _compare(
    blue: Any, green: Any, schema: str, tables: set[str], exclude: set[str]
) -> tuple[list[Difference], list[Checksum]]:
    """What differs, and blue's checksums; the sides read at the same time."""
    on_green = set(_tables(green, schema)) - exclude
    with ThreadPoolExecutor(2, "checksums") as pool:
        reading = [
            pool.submit(load.checksums, conn, schema, tables=of) for conn, of in ((blue, tables), (green, on_green))
        ]
        ours, theirs = (each.result() for each in reading)
    columns_blue, columns_green = (_columns(conn, schema) for conn in (blue, green))
    found = []
    for table in sorted(tables | on_green):
        both = table in ours and table in theirs
        other = _other_columns(columns_blue[table], columns_green[table]) if both else ""
        if ours.get(table) != theirs.get(table) or other:
            found.append(Difference(table, ours.get(table), theirs.get(table), other))
    return found, list(ours.values())


def _other_columns(blue: list[str], green: list[str]) -> str:
    only = [
        ("blue", [name for name in blue if name not in green]),
        ("green", [name for name in green if name not in blue]),
    ]
    parts = [f"only {side} has column {', '.join(names)}" for side, names in only if names]
    return "; ".join(parts) or ("the columns have another order" if blue != green else "")


def _columns(conn: Any, schema: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in mysql.rows(conn, sql.render("blue_green/checksum_columns"), {"schema": schema}):
        found.setdefault(row["table_name"], []).append(row["name"])
    return found


def _tables(conn: Any, schema: str) -> list[str]:
    return [row["name"] for row in mysql.rows(conn, sql.render("blue_green/base_tables"), {"schema": schema})]


def _lock(conn: Any, schema: str, tables: list[str]) -> float:
    """Lock the tables against writes; monotonic seconds from which they are."""
    import MySQLdb

    begun = time.monotonic()
    if tables:
        try:
            with conn.cursor() as cursor:
                cursor.execute("SET SESSION lock_wait_timeout = %s", (LOCK_WAIT_S,))
                cursor.execute("LOCK TABLES " + ", ".join(f"{sql.ident((schema, table))} READ" for table in tables))
        except MySQLdb.OperationalError as error:
            raise CheckError(
                f"tables of {schema} could not be locked within {LOCK_WAIT_S} s: {error.args[-1]}; "
                "end long transactions and DDL first, or grant LOCK TABLES"
            ) from error
    return begun


def _caught_up(blue: Any, green: Any, schema: str, deadline_s: float, wait: Callable[[float], None]) -> Proof:
    """Wait until green has executed what blue has by now; how that is known."""
    end = time.monotonic() + deadline_s
    if all(mysql.scalar(conn, "SELECT @@GLOBAL.gtid_mode") == "ON" for conn in (blue, green)):
        wanted = mysql.scalar(blue, "SELECT @@GLOBAL.gtid_executed")
        _until(
            lambda: mysql.scalar(green, "SELECT GTID_SUBSET(%s, @@GLOBAL.gtid_executed)", (wanted,)), green, end, wait
        )
        return "gtid"
    if position := _position(blue):
        _until(lambda: _applied(green) >= position, green, end, wait)
        return "position"
    token, table = uuid.uuid4().hex, sql.ident((schema, MARKER))
    with blue.cursor() as cursor:
        cursor.execute(sql.render("blue_green/marker_table", table=(schema, MARKER)))
        cursor.execute(f"INSERT INTO {table} (token) VALUES (%s)", (token,))
    _until(lambda: _has(green, f"SELECT COUNT(*) FROM {table} WHERE token = %s", token), green, end, wait)
    return "marker row"


def _position(blue: Any) -> tuple[int, int] | None:
    """(number of the binlog file, position) up to which blue has written; None when this user may not see it."""
    import MySQLdb

    try:
        found = mysql.log_status(blue)
    except MySQLdb.OperationalError:
        return None
    return (_number(found["File"]), int(found["Position"])) if found else None


def _applied(green: Any) -> tuple[int, int]:
    """The same of blue's binlog, up to which green has executed."""
    found = mysql.replica_status(green)
    return (_number(found["Relay_Source_Log_File"]), int(found["Exec_Source_Log_Pos"])) if found else (0, 0)


def _number(file: str) -> int:
    return int(file.rpartition(".")[2] or 0)


def _has(conn: Any, question: str, token: str) -> bool:
    import MySQLdb

    try:
        return bool(mysql.scalar(conn, question, (token,)))
    except MySQLdb.ProgrammingError:  # the table is not there yet
        return False


def _until(holds: Callable[[], Any], green: Any, end: float, wait: Callable[[float], None]) -> None:
    while not holds():
        state = replication.replica_state(green)
        if not state.running:
            raise CheckError(f"replication to green has stopped: {state.error or 'no reason given'}")
        if time.monotonic() >= end:
            behind = "unknown" if state.behind_s is None else f"{state.behind_s} s"
            raise CheckError(
                f"green has not caught up in time (behind by {behind}, by its own figure); wait for the lag and try again"
            )
        wait(POLL_S)


@dataclass(frozen=True)
class WriteAttempt:
    """A write that was rolled back, had it been taken. ``error``: the server's answer otherwise."""

    taken: bool
    refused_as_read_only: bool
    error: str = ""


def try_write(conn: Any, schema: str, table: str) -> WriteAttempt:
    """Try to insert a row of defaults into a table, and roll it back: what a client of this connection may do.

    An answer that is neither yes nor "read only" (no such table, no privilege) is neither taken nor refused: it shows nothing.
    """
    import MySQLdb

    try:
        with conn.cursor() as cursor:
            cursor.execute("START TRANSACTION")
            cursor.execute(f"INSERT INTO {sql.ident((schema, table))} () VALUES ()")
    except MySQLdb.Error as error:
        number = error.args[0] if error.args else 0
        return WriteAttempt(False, number in REFUSALS, f"{number}: {error.args[-1] if error.args else ''}")
    finally:
        conn.rollback()
    return WriteAttempt(True, False)


def refuses_writes(green: Any, schema: str, table: str) -> bool:
    """Whether green refuses a write because it is read-only.

    Pass a connection of a plain user who may insert: read_only does not hold the master user of a green 8.0.

    Raises:
        CheckError: the write failed for another reason, which shows nothing
    """
    return _answer(try_write(green, schema, table), schema, table).refused_as_read_only


def is_writable(blue: Any, schema: str, table: str) -> bool:
    """Whether blue takes a write; the row is rolled back.

    Raises:
        CheckError: the write failed, and not because blue is read-only
    """
    return _answer(try_write(blue, schema, table), schema, table).taken


def _answer(attempt: WriteAttempt, schema: str, table: str) -> WriteAttempt:
    if not attempt.taken and not attempt.refused_as_read_only:
        raise CheckError(f"an INSERT into {schema}.{table} shows nothing, because it failed otherwise: {attempt.error}")
    return attempt
