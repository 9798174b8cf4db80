"""Copy a running MySQL server into an empty one of the same or the next version, at a known GTID position.

The copy is logical: rows leave through ``SELECT ... INTO OUTFILE`` in consistent snapshots and enter through
``LOAD DATA``, several tables and ranges at a time, both through files of the servers. The source serves on: it holds
a global read lock only while the snapshots open. A dump in a folder is also what a snapshot of RDS is made of.
"""

from __future__ import annotations

import itertools
import json
import queue
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import MySQLdb
from MySQLdb.constants import ER
from MySQLdb.cursors import Cursor

from lab.rds.server import ADMIN, Server

WORKERS = 4
CHUNK_BYTES = 32 * 2**20
LOCK_S, LOCK_ATTEMPTS = 1, 300
SYSTEM_SCHEMAS = "('mysql', 'sys', 'performance_schema', 'information_schema')"
SYSTEM_USERS = f"('{ADMIN}', 'root', 'mysql.sys', 'mysql.session', 'mysql.infoschema')"
# 8.0 knows these modes no more; a routine that was made under one of them could not be made anew.
LOST_MODES = frozenset({
    "NO_AUTO_CREATE_USER", "DB2", "MAXDB", "MSSQL", "MYSQL323", "MYSQL40", "ORACLE", "POSTGRESQL",
    "NO_FIELD_OPTIONS", "NO_KEY_OPTIONS", "NO_TABLE_OPTIONS",
})  # fmt: skip
INTEGERS = ("tinyint", "smallint", "mediumint", "int", "bigint")

Statement = tuple[str, str, str]  # schema or "", sql_mode, SQL


@dataclass(frozen=True)
class Chunk:
    """A range of a table: the statement that writes it to ``{file}``, and the one that loads that file."""

    name: str
    select: str
    load: str


@dataclass(frozen=True)
class Dump:
    """A dump without its rows: the position, what to run before and after they are loaded, and where they are."""

    gtid: str
    before: list[Statement]
    after: list[Statement]
    chunks: list[Chunk]


def clone(source: Server, target: Server, folder: Path) -> str:
    """Copy everything from a source to a fresh, started target; rows are loaded while others are still read.

    Args:
        source: serves on
        target: has no schema and no user but its own
        folder: scratch space; holds some chunks at a time and is removed at the end

    Returns:
        the GTID set that the target now holds, which is also its gtid_executed

    Raises:
        MySQLdb.Error: a statement failed on either side, such as DDL that the new version does not accept
    """
    folder.mkdir(parents=True)
    try:
        with ExitStack() as stack:
            reader = _Reader(source, stack)
            _run(target, reader.content.before)

            def move(chunk: Chunk) -> None:
                reader.write(chunk, folder)
                _load_chunk(target, chunk, folder)
                (folder / chunk.name).unlink()

            _in_parallel(move, reader.content.chunks)
        _finish(target, reader.content)
        return reader.content.gtid
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def dump(source: Server, folder: Path) -> None:
    """Write what `load` reads; the folder appears with this call."""
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        reader = _Reader(source, stack)
        _in_parallel(lambda chunk: reader.write(chunk, folder), reader.content.chunks)
    (folder / "dump.json").write_text(json.dumps(asdict(reader.content)))


def load(folder: Path, target: Server) -> str:
    """Load a dump into a fresh, started target, and return its GTID set. The dump stays."""
    fields = json.loads((folder / "dump.json").read_text())
    content = Dump(**{**fields, "chunks": [Chunk(**chunk) for chunk in fields["chunks"]]})
    _run(target, content.before)
    _in_parallel(lambda chunk: _load_chunk(target, chunk, folder), content.chunks)
    _finish(target, content)
    return content.gtid


class _Reader:
    """Connections that all see the source at one GTID position, and what is there to be copied."""

    def __init__(self, source: Server, stack: ExitStack) -> None:
        self.idle: queue.SimpleQueue[MySQLdb.Connection] = queue.SimpleQueue()
        readers = [stack.enter_context(closing(source.connect())) for _ in range(WORKERS)]
        with source.cursor() as lock:
            _lock(lock)
            for reader in readers:
                reader.query("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                reader.query("START TRANSACTION WITH CONSISTENT SNAPSHOT")
            gtid = _rows(lock, "SELECT @@GLOBAL.gtid_executed")[0][0].replace("\n", "")
            lock.execute("UNLOCK TABLES")
        with readers[0].cursor() as cursor:
            before, after, tables = _definitions(cursor)
            chunks = [chunk for number, table in enumerate(tables) for chunk in _chunks(cursor, number, *table)]
        self.content = Dump(gtid, before, after, chunks)
        for reader in readers:
            self.idle.put(reader)

    def write(self, chunk: Chunk, folder: Path) -> None:
        connection = self.idle.get()
        try:
            connection.query(chunk.select.replace("{file}", str(folder / chunk.name)))
        finally:
            self.idle.put(connection)


def _lock(cursor: Cursor) -> None:
    """Take the global read lock between the statements of others: while it waits for one, every new write waits as well."""
    cursor.execute("SET lock_wait_timeout = %s", (LOCK_S,))
    for attempt in range(LOCK_ATTEMPTS):
        try:
            cursor.execute("FLUSH TABLES WITH READ LOCK")
            return
        except MySQLdb.OperationalError as error:
            cursor.execute("UNLOCK TABLES")  # the half of the lock that it has got
            if error.args[0] != ER.LOCK_WAIT_TIMEOUT or attempt == LOCK_ATTEMPTS - 1:
                raise
            time.sleep(LOCK_S)


def _in_parallel(work: Callable[[Chunk], None], chunks: Sequence[Chunk]) -> None:
    with ThreadPoolExecutor(WORKERS) as pool:
        finished, _ = wait([pool.submit(work, chunk) for chunk in chunks], return_when=FIRST_EXCEPTION)
        pool.shutdown(cancel_futures=True)
        for job in finished:
            job.result()


def _definitions(cursor: Cursor) -> tuple[list[Statement], list[Statement], list[tuple[str, str]]]:
    """Statements before and after the rows, and the base tables, the biggest first."""
    schemata = _rows(
        cursor,
        "SELECT schema_name, default_character_set_name, default_collation_name FROM information_schema.schemata "
        f"WHERE schema_name NOT IN {SYSTEM_SCHEMAS}",
    )
    found = _rows(
        cursor,
        "SELECT table_schema, table_name, table_type FROM information_schema.tables "
        f"WHERE table_schema NOT IN {SYSTEM_SCHEMAS} ORDER BY data_length DESC",
    )
    accounts = _rows(
        cursor, f"SELECT CONCAT(QUOTE(user), '@', QUOTE(host)) FROM mysql.user WHERE user NOT IN {SYSTEM_USERS}"
    )
    tables = [(schema, name) for schema, name, kind in found if kind == "BASE TABLE"]
    before = [("", "", f"CREATE DATABASE {_name(name)} CHARACTER SET {charset} COLLATE {collation}")
              for name, charset, collation in schemata]  # fmt: skip
    before += [(schema, "", _create(cursor, "TABLE", 1, schema, name)) for schema, name in tables]
    after = [("", "", _rows(cursor, f"SHOW CREATE USER {account}")[0][0]) for (account,) in accounts]
    after += [("", "", grant) for (account,) in accounts for (grant,) in _rows(cursor, f"SHOW GRANTS FOR {account}")]
    after += _configuration(cursor)
    after += [(schema, "", _create(cursor, "VIEW", 1, schema, name)) for schema, name, kind in found if kind == "VIEW"]
    return before, [*after, *_programs(cursor)], tables


def _configuration(cursor: Cursor) -> list[Statement]:
    """What `mysql.rds_set_configuration` has set: it is part of the data that a copy has."""
    found = _rows(cursor, "SELECT QUOTE(name), QUOTE(value) FROM mysql.rds_configuration WHERE value IS NOT NULL")
    return [
        ("", "", f"UPDATE mysql.rds_configuration SET value = {value} WHERE name = {name}") for name, value in found
    ]


def _programs(cursor: Cursor) -> list[Statement]:
    """Routines, triggers and events, each under the sql_mode of its making."""
    queries = (
        "SELECT routine_schema, routine_name, routine_type, sql_mode FROM information_schema.routines WHERE routine_schema",
        "SELECT trigger_schema, trigger_name, 'TRIGGER', sql_mode FROM information_schema.triggers WHERE trigger_schema",
        "SELECT event_schema, event_name, 'EVENT', sql_mode FROM information_schema.events WHERE event_schema",
    )
    return [
        (
            schema,
            ",".join(mode for mode in str(modes).split(",") if mode not in LOST_MODES),
            _create(cursor, kind, 3 if kind == "EVENT" else 2, schema, name),
        )
        for query in queries
        for schema, name, kind, modes in _rows(cursor, f"{query} NOT IN {SYSTEM_SCHEMAS}")
    ]


def _chunks(cursor: Cursor, number: int, schema: str, table: str) -> Iterator[Chunk]:
    columns = _rows(
        cursor,
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = %s AND table_name = %s "
        "AND extra NOT LIKE '%%GENERATED' ORDER BY ordinal_position",
        (schema, table),
    )
    items, names, sets = zip(*(_column(index, *column) for index, column in enumerate(columns)), strict=True)
    assignments = ", ".join(part for part in sets if part)
    whole = f"{_name(schema)}.{_name(table)}"
    for part, condition in enumerate(_ranges(cursor, schema, table)):
        yield Chunk(
            f"{number}-{part}.tsv",
            f"SELECT {', '.join(items)} INTO OUTFILE '{{file}}' CHARACTER SET binary FROM {whole} WHERE {condition}",
            f"LOAD DATA INFILE '{{file}}' INTO TABLE {whole} CHARACTER SET binary ({', '.join(names)})"
            + (f" SET {assignments}" if assignments else ""),
        )


def _column(index: int, name: str, kind: str) -> tuple[str, str, str]:
    """How a column leaves, how it enters, and its assignment: bytes as they are, where bytes say everything."""
    quoted, variable = _name(name), f"@c{index}"
    if kind == "json":  # refuses strings of the character set binary
        return quoted, variable, f"{quoted} = CONVERT({variable} USING utf8mb4)"
    if kind in ("enum", "set"):  # by number: labels are compared in the character set of the column
        return f"{quoted} + 0", variable, f"{quoted} = {variable} + 0"
    if kind == "bit":  # its bytes leave without the escapes that a tab or a line feed among them needs
        return f"{quoted} + 0", variable, f"{quoted} = CAST({variable} AS UNSIGNED)"
    return (f"{quoted} + 0e0" if kind == "float" else quoted), quoted, ""  # a FLOAT as text has six digits


def _ranges(cursor: Cursor, schema: str, table: str) -> Iterator[str]:
    """Conditions that cut a table into chunks by the first column of its primary key, where that is an integer."""
    key = _rows(
        cursor,
        "SELECT c.column_name, c.data_type, t.data_length FROM information_schema.statistics s "
        "JOIN information_schema.columns c USING (table_schema, table_name, column_name) "
        "JOIN information_schema.tables t USING (table_schema, table_name) "
        "WHERE s.table_schema = %s AND s.table_name = %s AND s.index_name = 'PRIMARY' AND s.seq_in_index = 1",
        (schema, table),
    )
    if not key or key[0][1] not in INTEGERS or (key[0][2] or 0) < 2 * CHUNK_BYTES:
        yield "TRUE"
        return
    column = _name(key[0][0])
    ((low, high),) = _rows(cursor, f"SELECT MIN({column}), MAX({column}) FROM {_name(schema)}.{_name(table)}")
    parts = key[0][2] // CHUNK_BYTES
    if low is None:
        yield "TRUE"
        return
    bounds = sorted({low + (high - low) * part // parts for part in range(1, parts)})
    yield f"{column} < {bounds[0]}"
    for lower, upper in itertools.pairwise(bounds):
        yield f"{column} >= {lower} AND {column} < {upper}"
    yield f"{column} >= {bounds[-1]}"


def _load_chunk(target: Server, chunk: Chunk, folder: Path) -> None:
    with target.cursor() as cursor:
        _relax(cursor)
        cursor.execute(chunk.load.replace("{file}", str(folder / chunk.name)))


def _run(target: Server, statements: Sequence[Statement]) -> None:
    """Run statements; a view may need another view, so those that miss a table are tried again after the others."""
    waiting = list(statements)
    with target.cursor() as cursor:
        while waiting:
            again = [statement for statement in waiting if not _runs(cursor, *statement)]
            if len(again) == len(waiting):
                cursor.execute(again[0][2])  # raises what it raised before
            waiting = again


def _runs(cursor: Cursor, schema: str, mode: str, statement: str) -> bool:
    _relax(cursor, mode)
    if schema:
        cursor.execute(f"USE {_name(schema)}")
    try:
        cursor.execute(statement)
    except MySQLdb.Error as error:
        if error.args[0] in (ER.NO_SUCH_TABLE, ER.VIEW_INVALID):
            return False
        raise
    return True


def _relax(cursor: Cursor, mode: str = "NO_AUTO_VALUE_ON_ZERO") -> None:
    """Take every row and every definition of the source as it is."""
    cursor.execute("SET sql_mode = %s, foreign_key_checks = 0, unique_checks = 0", (mode or "NO_AUTO_VALUE_ON_ZERO",))
    if _rows(cursor, "SELECT @@version")[0][0].startswith("8."):
        # SHOW CREATE TABLE of 5.7 leaves out its own default collation, and 8.0 has another one.
        cursor.execute("SET default_collation_for_utf8mb4 = utf8mb4_general_ci")


def _finish(target: Server, content: Dump) -> None:
    _run(target, content.after)
    with target.cursor() as cursor:
        cursor.execute("RESET MASTER")
        cursor.execute("SET GLOBAL gtid_purged = %s", (content.gtid,))


def _create(cursor: Cursor, kind: str, column: int, schema: str, name: str) -> str:
    return str(_rows(cursor, f"SHOW CREATE {kind} {_name(schema)}.{_name(name)}")[0][column])


def _name(identifier: str) -> str:
    return "`" + identifier.replace("`", "``") + "`"


def _rows(cursor: Cursor, statement: str, args: Any = None) -> tuple[tuple[Any, ...], ...]:
    cursor.execute(statement, args)
    return cursor.fetchall()
