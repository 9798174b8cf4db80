"""Restore: archived rows back into a scratch table, proven equal, never over live rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any

from dbops import mysql, sql
from dbops.archive import checksum, codec, verify
from dbops.archive.checksum import Checksum
from dbops.archive.export import BATCH_COLUMN, CHUNK_COLUMN, PLAN_COLUMN
from dbops.archive.ledger import Batch, Plan

if TYPE_CHECKING:
    import pyarrow as pa
    from MySQLdb.connections import Connection
    from pyiceberg.expressions import BooleanExpression
    from pyiceberg.table import Table as IcebergTable
    from trino.dbapi import Connection as TrinoConnection

MARK = "dbops restore of "
"""How the comment of every scratch table begins: a table without it is somebody else's."""
INSERT_ROWS = 2_000
_NAME_CHARS = 64  # of MySQL's identifiers
MAX_LISTED_CONFLICTS = 20
_COMPARABLE = {"int32", "int64", "date32", "timestamp", "timestamptz"}


class RestoreError(RuntimeError):
    """The restore cannot be done as asked, or did not reproduce the archived rows; live rows were not touched."""


@dataclass(frozen=True)
class Selection:
    """Which archived rows: chunks of a plan, a half-open range of the key, or a half-open range of a date column."""

    chunks: tuple[int, ...] = ()
    column: str | None = None
    low: str | None = None
    high: str | None = None


@dataclass(frozen=True)
class Restored:
    """What a restore made. ``equal`` is the whole answer: the scratch table hashes like the archive."""

    scratch: tuple[str, str]
    rows: int
    in_mysql: Checksum
    in_lake: Checksum
    manifest: Checksum | None
    conflicts: int
    sample_conflicts: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Scratch table, lake and (for whole chunks) ledger have the same checksum."""
        return self.in_mysql == self.in_lake and self.manifest in (None, self.in_mysql)


def selection(*, chunks: Sequence[int], column: str | None, low: str | None, high: str | None) -> Selection:
    """A selection from a trigger form. Raises RestoreError for combinations that mean nothing."""
    if chunks and column:
        raise RestoreError("give chunks or a column range, not both")
    if column is None and (low is not None or high is not None):
        raise RestoreError("from and to need a column")
    if column is not None and low is None and high is None:
        raise RestoreError(f"column {column!r} needs from, to or both")
    return Selection(tuple(chunks), column, low, high)


def scratch_name(table: str, tail: str) -> str:
    """Name of a scratch table. The tail tells tables apart, so it is the source's name that is cut when both are too long."""
    return table[: _NAME_CHARS - len(tail)] + tail


def scratch_ddl(create_table: str, scratch: Sequence[str], plan_id: str) -> str:
    """CREATE TABLE of the scratch table: the source's as it was, under another name and comment, without foreign keys.

    SHOW CREATE TABLE writes one definition a line, which is what makes this safe to do by line.
    """
    head, *lines = create_table.split("\n")
    if not re.match(r"CREATE TABLE `(?:[^`]|``)+` \($", head):
        raise RestoreError(f"stored CREATE TABLE begins with {head[:80]!r}; expected CREATE TABLE `name` (")
    end = next(i for i, line in enumerate(lines) if line.startswith(")"))
    body = [line.rstrip(",") for line in lines[:end] if not re.match(r"\s*CONSTRAINT `.*` FOREIGN KEY ", line)]
    options = [
        f"{lines[end]} COMMENT={sql.lit(MARK + plan_id)}",
        *lines[end + 1 :],
    ]  # of two comments the last one counts
    return f"CREATE TABLE {sql.ident(scratch)} (\n" + ",\n".join(body) + "\n" + "\n".join(options)


def batch_ranges(batches: Sequence[Batch]) -> list[tuple[int, int, int]]:
    """(chunk, first batch, last batch) of the gapless runs among these batches, which are in order."""
    ranges: list[tuple[int, int, int]] = []
    for batch in batches:
        if ranges and ranges[-1][0] == batch.chunk_no and ranges[-1][2] + 1 == batch.batch_no:
            ranges[-1] = (*ranges[-1][:2], batch.batch_no)
        else:
            ranges.append((batch.chunk_no, batch.batch_no, batch.batch_no))
    return ranges


def conditions(
    plan: Plan, selection: Selection, only: Sequence[tuple[int, int, int]] | None = None
) -> tuple[str, BooleanExpression]:
    """The selection as a Trino condition and as a PyIceberg expression, restricted to the batches of `only` (of batch_ranges).

    Raises RestoreError for what cannot be compared exactly.
    """
    from pyiceberg.expressions import And, EqualTo, GreaterThanOrEqual, In, LessThan

    texts = [f'"{PLAN_COLUMN}" = {sql.lit_trino(plan.plan_id)}']
    terms: list[Any] = [EqualTo(term=PLAN_COLUMN, value=plan.plan_id)]
    if selection.chunks:
        texts.append(f'"{CHUNK_COLUMN}" IN ({", ".join(map(str, selection.chunks))})')
        terms.append(In(term=CHUNK_COLUMN, literals=set(selection.chunks)))
    if only is not None:
        text, expression = _within(only)
        texts.append(text)
        terms.append(expression)
    if selection.column:
        column = next((c for c in plan.codecs if c.name.lower() == selection.column.lower()), None)
        if column is None or not (column.arrow in _COMPARABLE or column.arrow.startswith("decimal(")):
            kind = column.arrow if column else "not a column of the archive"
            raise RestoreError(
                f"column {selection.column!r} is {kind}; ranges are possible on integers, decimals, dates and times, because text"
                " does not sort in the lake as it does in MySQL; select by chunks instead"
            )
        for bound, operator, term in ((selection.low, ">=", GreaterThanOrEqual), (selection.high, "<", LessThan)):
            if bound is not None:
                text, value = _bound(column, bound)
                texts.append(f"{sql.ident_trino(column.name)} {operator} {text}")
                terms.append(term(term=column.name, value=value))
    return " AND ".join(texts), And(*terms) if len(terms) > 1 else terms[0]


def _within(ranges: Sequence[tuple[int, int, int]]) -> tuple[str, BooleanExpression]:
    from pyiceberg.expressions import And, EqualTo, GreaterThanOrEqual, LessThanOrEqual, Or

    texts = [
        f'("{CHUNK_COLUMN}" = {chunk} AND "{BATCH_COLUMN}" BETWEEN {first} AND {last})' for chunk, first, last in ranges
    ]
    terms = [
        And(
            EqualTo(term=CHUNK_COLUMN, value=chunk),
            GreaterThanOrEqual(term=BATCH_COLUMN, value=first),
            LessThanOrEqual(term=BATCH_COLUMN, value=last),
        )
        for chunk, first, last in ranges
    ]
    return f"({' OR '.join(texts)})", Or(*terms) if len(terms) > 1 else terms[0]


def _bound(column: codec.Codec, text: str) -> tuple[str, Any]:
    """The bound in Trino's SQL and as PyIceberg takes it. Raises RestoreError for a text that the column cannot hold exactly."""
    try:
        if column.arrow in ("int32", "int64"):
            return str(int(text)), int(text)
        if column.arrow.startswith("decimal("):
            number = _decimal(text, scale=int(column.arrow[8:-1].split(",")[1]))
            return f"DECIMAL '{number:f}'", number
        moment = _moment(text, column.arrow)
    except (ValueError, ArithmeticError) as error:
        raise RestoreError(f"{text!r} is not a value of column {column.name} ({column.arrow})") from error
    if column.arrow == "date32":
        return f"DATE '{moment.date().isoformat()}'", moment.date().isoformat()
    zone = " UTC" if column.arrow == "timestamptz" else ""
    iso = moment.isoformat(timespec="microseconds")
    return f"TIMESTAMP '{iso.replace('T', ' ')}{zone}'", iso + ("+00:00" if zone else "")


def _decimal(text: str, *, scale: int) -> Decimal:
    """The number with exactly `scale` digits after the point, as PyIceberg wants it."""
    number = Decimal(text)
    scaled = number.quantize(Decimal(1).scaleb(-scale), context=Context(prec=codec.MAX_DECIMAL_PRECISION))
    if scaled != number:
        raise ValueError(f"{text} has more than {scale} digits after the point")
    return scaled


def _moment(text: str, arrow: str) -> datetime:
    """The instant without time zone; in UTC for a TIMESTAMP column, the only one whose values have a zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        if arrow != "timestamptz":
            raise ValueError(f"{text} has a time zone, the column has none")
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    if arrow == "date32" and moment.time() != time():
        raise ValueError(f"{text} has a time of day, the column has none")
    return moment


def restore(
    conn: Connection,
    trino: TrinoConnection,
    table: IcebergTable,
    plan: Plan,
    scratch: tuple[str, str],
    selection: Selection,
    manifest: Checksum | None,
    only: Sequence[tuple[int, int, int]] | None = None,
) -> Restored:
    """Create the scratch table anew, fill it from the lake, and compare it with the lake and the manifest. Returns also when unequal.

    `only` restricts the restore to those batches. Raises RestoreError for what cannot be done, and when the scratch table's name is taken.
    """
    if scratch == plan.source:
        raise RestoreError(f"scratch table {'.'.join(scratch)} is the live table; choose another restore_schema")
    where, expression = conditions(plan, selection, only)
    snapshot = table.current_snapshot()
    if snapshot is None:
        raise RestoreError(f"{plan.lake_table} has no snapshot")
    _assert_scratch(conn, scratch)
    with conn.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS {sql.ident(scratch)}")
        cursor.execute(scratch_ddl(plan.create_table, scratch, plan.plan_id))
    made = mysql.read_table(conn, *scratch)
    if made is None:
        raise RestoreError(f"scratch table {'.'.join(scratch)} was not created")
    generated = {c.name for c in made.columns if c.is_generated}
    stored = [c for c in plan.codecs if c.name not in generated]
    names = [c.name for c in stored]
    reader = table.scan(
        row_filter=expression, selected_fields=tuple(names), snapshot_id=snapshot.snapshot_id
    ).to_arrow_batch_reader()
    text_as_bytes = [
        c.name for c in stored if c.form == "long_binary" and (column := made.column(c.name)) and column.charset
    ]
    rows = _insert(conn, scratch, names, text_as_bytes, reader)
    row_text = codec.mysql_row_text(plan.codecs)
    with conn.cursor() as cursor:
        cursor.execute(checksum.mysql_statement(scratch, row_text, "TRUE"))
        in_mysql = Checksum.from_row(*cursor.fetchone())
    statement = checksum.trino_statement(
        plan.lake, codec.trino_row_text(plan.codecs), where, snapshot_id=snapshot.snapshot_id
    )
    in_lake = Checksum.from_row(*verify.trino_rows(trino, statement)[0])
    conflicts, sample = _conflicts(conn, plan, scratch, made)
    return Restored(scratch, rows, in_mysql, in_lake, manifest, conflicts, sample)


def _assert_scratch(conn: Connection, scratch: Sequence[str]) -> None:
    comment = mysql.scalar(
        conn,
        "SELECT TABLE_COMMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s",
        tuple(scratch),
    )
    if comment is not None and not str(comment).startswith(MARK):
        raise RestoreError(
            f"table {'.'.join(scratch)} exists, and its comment does not begin with {MARK!r}: no restore made it; rename it, or choose"
            " another restore_schema"
        )


def _insert(
    conn: Connection, scratch: Sequence[str], names: Sequence[str], text_as_bytes: Sequence[str], batches: Any
) -> int:
    columns = ", ".join(sql.ident(n) for n in names)
    into = f"{sql.ident(scratch)} ({columns})".replace("%", "%%")  # the driver formats the whole statement
    # The driver sends bytes as text of the connection, which MySQL converts to the character set of a text column.
    holes = ", ".join("UNHEX(%s)" if n in text_as_bytes else "%s" for n in names)
    statement = f"INSERT INTO {into} VALUES ({holes})"
    rows = 0
    with conn.cursor() as cursor:
        for batch in batches:
            for part in _slices(batch):
                values = (_values(part.column(n), as_hex=n in text_as_bytes) for n in names)
                cursor.executemany(statement, list(zip(*values, strict=True)))
                rows += part.num_rows
            conn.commit()
    return rows


def _slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    for start in range(0, batch.num_rows, INSERT_ROWS):
        yield batch.slice(start, INSERT_ROWS)


def _values(column: pa.Array, *, as_hex: bool) -> list[Any]:
    """Python values that mysqlclient writes without loss: times as text, whole decimals as int."""
    import pyarrow as pa

    if as_hex:
        return [None if v is None else v.hex() for v in column.to_pylist()]
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us")).cast(pa.string()).to_pylist()
    if pa.types.is_date(column.type):
        return column.cast(pa.string()).to_pylist()
    if pa.types.is_decimal(column.type) and column.type.scale == 0:
        return [None if v is None else int(v) for v in column.to_pylist()]
    return column.to_pylist()


def _conflicts(conn: Connection, plan: Plan, scratch: Sequence[str], made: mysql.Table) -> tuple[int, list[str]]:
    """How many restored keys exist in the live table, and the first of them."""
    live = mysql.read_table(conn, *plan.source)
    key = made.row_key
    if live is None or key is None:
        return 0, []
    join = " AND ".join(f"live.{sql.ident(n)} = restored.{sql.ident(n)}" for n in key.columns)
    source = f"{sql.ident(scratch)} AS restored INNER JOIN {sql.ident(plan.source)} AS live ON {join}"
    count = int(mysql.scalar(conn, f"SELECT COUNT(*) FROM {source}") or 0)
    if not count:
        return 0, []
    columns = ", ".join(f"restored.{sql.ident(n)}" for n in key.columns)
    with conn.cursor() as cursor:
        cursor.execute(f"SELECT {columns} FROM {source} ORDER BY {columns} LIMIT {MAX_LISTED_CONFLICTS}")
        return count, [", ".join(map(str, row)) for row in cursor.fetchall()]
