"""Verify: what Trino reads at the published snapshot must hash to what MySQL sent.

The comparison is between the checksum that the exporter took of the text that MySQL sent and the checksum that Trino computes from the
committed files, batch by batch. A difference is a fault of the way there (conversion, file, catalog, reader), never a change of the
source, because the source is not read again here; changes are the purge's business. A batch that differs is opened up to row and
column, and refused: it is never deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dbops import sql
from dbops.archive import checksum, codec, lake
from dbops.archive.checksum import Checksum
from dbops.archive.export import BATCH_COLUMN, CHUNK_COLUMN
from dbops.archive.ledger import Batch, Plan, RefusedRow
from dbops.keys import RowKey, from_row

if TYPE_CHECKING:
    from MySQLdb.connections import Connection
    from trino.dbapi import Connection as TrinoConnection

MAX_NAMED_ROWS = 20


class ColumnGone(RuntimeError):
    """The lake table has no column of that name any more; the message is Trino's."""


def trino_rows(conn: TrinoConnection, statement: str) -> list[list[Any]]:
    """Run one Trino statement to its end and return its rows."""
    cursor = conn.cursor()
    try:
        cursor.execute(statement)
        return list(cursor.fetchall())
    finally:
        cursor.close()


def lake_checksums(
    conn: TrinoConnection, plan: Plan, lake_table: Sequence[str], chunk_nos: Sequence[int], snapshot_id: int | None
) -> dict[tuple[int, int], Checksum]:
    """{(chunk, batch): checksum} as Trino reads those chunks at that snapshot; None: the current one, with the current columns.

    Raises ColumnGone.
    """
    statement = checksum.trino_statement(
        lake_table,
        codec.trino_row_text(plan.codecs),
        lake.chunk_filter(plan.plan_id, chunk_nos),
        snapshot_id=snapshot_id,
        group_by=(CHUNK_COLUMN, BATCH_COLUMN),
    )
    with _column_errors():
        return {(row[0], row[1]): Checksum.from_row(*row[2:]) for row in trino_rows(conn, statement)}


def plan_checksums(conn: TrinoConnection, plan: Plan) -> dict[int, Checksum]:
    """{chunk: checksum} of all rows of a plan as Trino reads them now; rows without hash where a column is gone, rows of no chunk as -1."""
    where = lake.plan_filter(plan.plan_id)
    statement = checksum.trino_statement(
        plan.lake, codec.trino_row_text(plan.codecs), where, snapshot_id=None, group_by=(CHUNK_COLUMN,)
    )
    try:
        with _column_errors():
            rows = trino_rows(conn, statement)
    except ColumnGone:
        chunk = sql.ident_trino(CHUNK_COLUMN)
        counts = f"SELECT {chunk}, count(*), 0, 0, 0 FROM {sql.ident_trino(plan.lake)} WHERE {where} GROUP BY {chunk}"
        rows = trino_rows(conn, counts)
    return {-1 if row[0] is None else row[0]: Checksum.from_row(*row[1:]) for row in rows}


@contextmanager
def _column_errors() -> Iterator[None]:
    from trino.exceptions import TrinoUserError

    try:
        yield
    except TrinoUserError as error:
        if error.error_name == "COLUMN_NOT_FOUND":
            raise ColumnGone(error.message) from error
        raise


def judge(batches: Sequence[Batch], found: dict[tuple[int, int], Checksum]) -> list[tuple[Batch, Checksum, str]]:
    """(batch, Trino's checksum, 'verified' or 'refused') for every batch; one that Trino does not see has an empty checksum."""
    verdicts = []
    for batch in batches:
        there = found.get((batch.chunk_no, batch.batch_no), Checksum())
        good = there == batch.source and there.is_whole and there.n > 0
        verdicts.append((batch, there, "verified" if good else "refused"))
    return verdicts


def strangers(batches: Sequence[Batch], found: dict[tuple[int, int], Checksum]) -> list[tuple[int, int]]:
    """(chunk, batch) numbers that Trino sees although the ledger has no such batch."""
    known = {(b.chunk_no, b.batch_no) for b in batches}
    return sorted(set(found) - known)


def explain(
    mysql_conn: Connection,
    trino_conn: TrinoConnection,
    plan: Plan,
    key: RowKey,
    batch: Batch,
    lake_table: Sequence[str],
    snapshot_id: int,
) -> list[RefusedRow]:
    """Name the rows and columns of a refused batch, at most MAX_NAMED_ROWS, then how many more there are.

    Reads both sides in full for this batch only. Rows of the source that changed in the meantime are reported as such: they cannot
    explain the difference, and the batch stays refused all the same.
    """
    with mysql_conn.cursor() as cursor:
        cursor.execute(
            sql.render(
                "archive/batch_texts_mysql",
                key_literals=[c.literal_sql for c in key.columns],
                row_text=codec.mysql_row_text(plan.codecs),
                table=plan.source,
                where=f"{key.between(batch.lower, batch.upper)} AND {plan.predicate}",
                order_by=key.order_by,
            )
        )
        source = {_key_text(plan, key, row[-1]): (from_row(row[:-1]), _split(row[-1])) for row in cursor.fetchall()}
    key_codecs = [next(c for c in plan.codecs if c.name == name) for name in key.names]
    where = f'{lake.chunk_filter(plan.plan_id, [batch.chunk_no])} AND "{BATCH_COLUMN}" = {batch.batch_no}'
    statement = sql.render(
        "archive/batch_texts_trino",
        key_text=codec.trino_row_text(key_codecs),
        row_text=codec.trino_row_text(plan.codecs),
        table=lake_table,
        where=where,
        snapshot_id=snapshot_id,
    )
    archived: dict[str, list[list[str]]] = {}
    for key_text, row_text in trino_rows(trino_conn, statement):
        archived.setdefault(key_text, []).append(row_text.split("|"))
    differences = list(_differences(plan, source, archived))
    named = differences[:MAX_NAMED_ROWS]
    if len(differences) > len(named):
        named.append(RefusedRow("...", None, f"and {len(differences) - len(named)} more rows of this batch"))
    if not named:
        named.append(
            RefusedRow(
                "...",
                None,
                "the archived rows equal the source now, but not what was exported: rows changed since; export again",
            )
        )
    return named


def _differences(plan: Plan, source: dict[str, Any], archived: dict[str, list[list[str]]]) -> Sequence[RefusedRow]:
    found = []
    for key_text in sorted(source.keys() | archived.keys()):
        literals = " ,".join(source[key_text][0]) if key_text in source else key_text
        copies = archived.get(key_text, [])
        if not copies:
            found.append(RefusedRow(literals, None, "not in the lake"))
        elif key_text not in source:
            found.append(RefusedRow(literals, None, "in the lake, but no longer in MySQL"))
        elif len(copies) > 1:
            found.append(RefusedRow(literals, None, f"{len(copies)} times in the lake"))
        else:
            for c, here, there in zip(codec.hash_order(plan.codecs), source[key_text][1], copies[0], strict=True):
                if here != there:
                    found.append(
                        RefusedRow(
                            literals, c.name, f"MySQL has {here[:80]!r}, the lake has {there[:80]!r} (canonical text)"
                        )
                    )
    return found


def _split(text: Any) -> list[str]:
    return (text.decode("ascii", "replace") if isinstance(text, bytes) else str(text)).split("|")


def _key_text(plan: Plan, key: RowKey, row_text: Any) -> str:
    cells = dict(zip((c.name for c in codec.hash_order(plan.codecs)), _split(row_text), strict=True))
    return "|".join(cells[name] for name in key.names)
