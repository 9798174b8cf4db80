"""Made-up data for blue, and checksums of what a schema holds.

The server makes the rows itself (``INSERT ... SELECT``), so that nothing but statements travels. Every value follows from the seed, the
table and the row's number: the same :class:`~dbops.blue_green.spec.Data` makes the same rows on any server, however often the work was
interrupted. A chunk and its mark are one transaction, so that a repeated call goes on where the last one was killed.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from dbops import mysql, sql
from dbops.blue_green.spec import Data

PREFIX = "dbops_load_"
MARKS = f"{PREFIX}marks"
NUMBERS = f"{PREFIX}numbers"
WORKERS = 2
CHUNK_BYTES = 8 * 2**20
"""About the size of a transaction; large enough that commits do not count, small enough for the binlog's cache and the undo log."""
NUMBER_ROWS = 2**15
GIGABYTE = 10**9
BYTES_PER_ROW = {"keyed": 657, "keyless": 621, "wide": 1263, "partitioned": 620, "utf8mb3": 723, "zerofill": 658}
"""Bytes that a row of each shape takes on disk, indexes included, as 5.7.22 has it at 0.2 GB."""
_CYCLE = ("keyed", "wide", "partitioned", "utf8mb3", "zerofill")
_ANALYZE_AT_ONCE = 100


class LoadError(RuntimeError):
    """The schema holds something else than what is to be made; the text says what to do."""


@dataclass(frozen=True)
class Plan:
    """A table that is to be made: name, shape, rows."""

    number: int
    name: str
    shape: str
    rows: int

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk; the last chunk of the table has what is left."""
        return min(NUMBER_ROWS, max(1, CHUNK_BYTES // BYTES_PER_ROW[self.shape]))

    @property
    def chunks(self) -> range:
        """Numbers of its chunks."""
        return range(-(-self.rows // self.chunk_rows))

    def rows_of(self, chunk: int) -> int:
        """Rows of one chunk."""
        return min(self.chunk_rows, self.rows - chunk * self.chunk_rows)


@dataclass(frozen=True)
class Made:
    """A table that was filled; ``size`` in bytes as the server has it, indexes included."""

    name: str
    shape: str
    rows: int
    size: int


@dataclass(frozen=True)
class Filled:
    """What there is now. ``seconds`` are those of this call, which may have found a part of the rows made already."""

    tables: tuple[Made, ...]
    rows: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Checksum:
    """Number of rows, and the sum of a 60-bit hash of each: it ignores their order, and sees a row that is there twice."""

    rows: int
    crc: int


def plan(data: Data) -> list[Plan]:
    """Tables and rows that `data` asks for; none when it asks for 0 GB."""
    if not data.gigabytes:
        return []
    # The table without a key is the second one, so that the first one of a small spec is an ordinary one; a single table has to be it.
    keyless = min(1, data.tables - 1) if data.without_key else None
    shapes, found = itertools.cycle(_CYCLE), []
    share = data.gigabytes * GIGABYTE / data.tables
    for number in range(data.tables):
        shape = "keyless" if number == keyless else next(shapes)
        rows = max(1, round(share / BYTES_PER_ROW[shape]))
        found.append(Plan(number, f"{PREFIX}{number + 1:05d}_{shape}", shape, rows))
    return found


def fill(
    connect: Callable[[], Any],
    data: Data,
    schema: str,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    workers: int = WORKERS,
) -> Filled:
    """Make the data, or what is missing of it.

    Args:
        connect: gives a new connection to blue's writer; as a user who may create, insert into and analyze tables of the schema
        data: how much, in how many tables, from which seed
        schema: created where it is missing
        on_progress: called after each chunk, in the thread of the caller, with rows made and rows wanted
        workers: connections that work at a time

    Raises:
        LoadError: the schema has made-up data of other settings
        MySQLdb.Error: the server refused or was lost; call it again
    """
    begun, tables = time.monotonic(), plan(data)
    if not tables:
        return Filled((), 0, 0, 0.0)
    settings = f"seed={data.seed} gigabytes={data.gigabytes:g} tables={data.tables} without_key={data.without_key:d}"
    with closing(connect()) as conn:
        done = _prepare(conn, schema, settings)
    wanted, made = sum(table.rows for table in tables), sum(done.values())
    work = _Work(connect, schema, settings, data.seed)
    missing = {table: [c for c in table.chunks if (table.name, c) not in done] for table in tables}
    try:
        for rows in work.through(missing, workers):
            made += rows
            if on_progress is not None:
                on_progress(made, wanted)
    finally:
        work.close()
    with closing(connect()) as conn:
        sizes = _sizes(conn, schema, [table.name for table in tables])
    found = tuple(Made(table.name, table.shape, table.rows, sizes[table.name]) for table in tables)
    return Filled(found, wanted, sum(table.size for table in found), time.monotonic() - begun)


def _prepare(conn: Any, schema: str, settings: str) -> dict[tuple[str, int], int]:
    """Make the schema and the helper tables, and tell which chunks are there, with their rows."""
    conn.autocommit(True)
    with conn.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE IF NOT EXISTS {sql.ident(schema)} CHARACTER SET utf8mb4")
        cursor.execute(sql.render("blue_green/load_marks", table=(schema, MARKS)))
    _fill_numbers(conn, schema)
    marks = mysql.rows(conn, f"SELECT table_name, chunk, row_count, settings FROM {sql.ident((schema, MARKS))}")
    if others := sorted({mark["settings"] for mark in marks} - {settings}):
        raise LoadError(
            f"schema {schema} has made-up data of {others[0]}, not of {settings}; drop the schema or use another one"
        )
    return {(mark["table_name"], mark["chunk"]): mark["row_count"] for mark in marks}


def _fill_numbers(conn: Any, schema: str) -> None:
    """A table of the numbers from 0; one that a kill left unfinished is finished."""
    table = sql.ident((schema, NUMBERS))
    with conn.cursor() as cursor:
        cursor.execute(f"CREATE TABLE IF NOT EXISTS {table} (n INT UNSIGNED NOT NULL PRIMARY KEY) ENGINE = InnoDB")
        cursor.execute(f"INSERT IGNORE INTO {table} (n) VALUES (0)")
        while (count := mysql.scalar(conn, f"SELECT COUNT(*) FROM {table}")) < NUMBER_ROWS:
            cursor.execute(f"INSERT INTO {table} (n) SELECT n + %s FROM {table}", (count,))


class _Work:
    """Connections of the threads, and the word that ends all when one of them fails."""

    def __init__(self, connect: Callable[[], Any], schema: str, settings: str, seed: int) -> None:
        self._connect, self._schema, self._settings, self._seed = connect, schema, settings, seed
        self._mine = threading.local()
        self._open: list[Any] = []
        self._lock, self._stopping = threading.Lock(), threading.Event()

    def through(self, missing: Mapping[Plan, Sequence[int]], workers: int) -> Iterator[int]:
        """Make the tables and their missing chunks; gives the rows of each chunk once it is committed."""
        with ThreadPoolExecutor(workers, "fill") as pool:
            try:
                for created in [pool.submit(self._create, table) for table in missing]:
                    created.result()
                # Taken in turns, so that two workers are seldom at one table.
                turns = itertools.zip_longest(*([(table, chunk) for chunk in of] for table, of in missing.items()))
                todo = (item for turn in turns for item in turn if item is not None)
                for written in as_completed([pool.submit(self._write, *item) for item in todo]):
                    yield written.result()
            except BaseException:
                self._stopping.set()
                raise

    def close(self) -> None:
        for conn in self._open:
            conn.close()

    def _conn(self) -> Any:
        if not hasattr(self._mine, "conn"):
            self._mine.conn = conn = self._connect()
            with self._lock:
                self._open.append(conn)
            with conn.cursor() as cursor:
                # Rows are made once and looked at by nobody meanwhile; the server need not check what the generator guarantees.
                cursor.execute("SET SESSION unique_checks = 0, foreign_key_checks = 0, time_zone = '+00:00'")
        return self._mine.conn

    def _create(self, table: Plan) -> None:
        if self._stopping.is_set():
            return
        conn = self._conn()
        conn.autocommit(True)
        with conn.cursor() as cursor:
            cursor.execute(sql.render(f"blue_green/load_table_{table.shape}", table=(self._schema, table.name)))

    def _write(self, table: Plan, chunk: int) -> int:
        import MySQLdb

        if self._stopping.is_set():
            return 0
        conn, rows = self._conn(), table.rows_of(chunk)
        conn.autocommit(False)
        statement = sql.render(
            f"blue_green/load_rows_{table.shape}", table=(self._schema, table.name), numbers=(self._schema, NUMBERS),
            base=chunk * table.chunk_rows + 1, rows=rows, seed=self._seed, number=table.number,
        )  # fmt: skip
        mark = f"INSERT INTO {sql.ident((self._schema, MARKS))} VALUES (%s, %s, %s, %s)"
        with conn.cursor() as cursor:
            try:
                # The mark comes first: it waits for the transaction of a killed client that still runs.
                cursor.execute(mark, (table.name, chunk, rows, self._settings))
            except MySQLdb.IntegrityError:  # that one was committed after all
                conn.rollback()
                return rows
            cursor.execute(statement)
            if cursor.rowcount != rows:
                raise LoadError(
                    f"{self._schema}.{table.name}: chunk {chunk} made {cursor.rowcount} rows instead of {rows}; "
                    f"{self._schema}.{NUMBERS} was changed, drop the schema and begin again"
                )
        conn.commit()
        return rows


def _sizes(conn: Any, schema: str, names: Sequence[str]) -> dict[str, int]:
    """Bytes of the tables, after their statistics were made anew."""
    with conn.cursor() as cursor:
        for start in range(0, len(names), _ANALYZE_AT_ONCE):
            some = ", ".join(sql.ident((schema, name)) for name in names[start : start + _ANALYZE_AT_ONCE])
            cursor.execute(f"ANALYZE NO_WRITE_TO_BINLOG TABLE {some}")
            cursor.fetchall()
        # 8.0 answers from a cache of up to a day; 5.7 has neither.
        cursor.execute("SET @dbops_unused = 0 /*!80000 , SESSION information_schema_stats_expiry = 0 */")
    found = mysql.rows(conn, sql.render("blue_green/load_sizes"), {"schema": schema})
    return {row["name"]: int(row["bytes"]) for row in found}


def checksums(
    conn: Any,
    schema: str,
    *,
    tables: Collection[str] | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Checksum]:
    """Checksum of every base table of the schema, which reads it whole; equal on 5.7 and 8.0 when the rows are equal.

    Pins time zone and sql_mode of the session, because a checksum is made of values as text. Open a consistent snapshot first where others
    write.

    Args:
        conn: a user who may SELECT
        schema: whose tables
        tables: only these; one that is not there is not in the answer
        columns: table -> names, where not all of its columns count

    Raises:
        LoadError: a row's text exceeds max_allowed_packet, and so has no checksum
        MySQLdb.Error: a column that `columns` names is not there
    """
    with conn.cursor() as cursor:
        cursor.execute("SET SESSION time_zone = '+00:00', sql_mode = ''")
    found = {}
    for table, expressions in texts(conn, schema, columns).items():
        if tables is None or table in tables:
            text = f"CONCAT_WS(',', {', '.join(expressions)})"
            row = mysql.rows(conn, sql.render("blue_green/checksum", table=(schema, table), text=text))[0]
            if row["hashed"] != row["row_count"]:
                raise LoadError(
                    f"{schema}.{table}: {row['row_count'] - row['hashed']} rows are longer than max_allowed_packet; raise it"
                )
            found[table] = Checksum(int(row["row_count"]), int(row["checksum"] or 0))
    return found


def texts(conn: Any, schema: str, columns: Mapping[str, Sequence[str]] | None = None) -> dict[str, list[str]]:
    """For each base table, SQL expressions for each column that give its value as text, the same on 5.7 and 8.0, and never NULL."""
    found: dict[str, list[str]] = {}
    for row in mysql.rows(conn, sql.render("blue_green/checksum_columns"), {"schema": schema}):
        wanted = (columns or {}).get(row["table_name"])
        if wanted is None or row["name"] in wanted:
            text = _text(sql.ident(row["name"]), row["data_type"], row["charset"])
            found.setdefault(row["table_name"], []).append(text)
    return found


_GEOMETRIES = frozenset({
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geometrycollection", "geomcollection",
})  # fmt: skip


def _text(name: str, data_type: str, charset: str | None) -> str:
    kind = data_type.lower()
    if charset is not None or kind == "json":
        # With its length before it, so that a comma in a value is not taken for one between values. (QUOTE takes three times as long.)
        return f"IFNULL(LENGTH({name}), 'NULL'), IFNULL(CONVERT({name} USING utf8mb4), '')"
    if kind in _GEOMETRIES or "binary" in kind or "blob" in kind:
        return f"IFNULL(HEX({name}), 'NULL')"
    if kind in ("float", "bit"):  # a FLOAT as text has six digits
        name = f"{name} + 0e0" if kind == "float" else f"{name} + 0"
    return f"IFNULL({name}, 'NULL')"


def total(sums: Iterable[Checksum]) -> Checksum:
    """Of all of them together."""
    parts = list(sums)
    return Checksum(sum(part.rows for part in parts), sum(part.crc for part in parts))
