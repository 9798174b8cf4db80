"""Plan: walk the key of the source table forward, cut the cold rows into chunks, and look at every row once on the way.

MySQL counts a chunk and tells its last key, so only that key crosses the wire: the walk's memory does not grow with the table, there is
no OFFSET, and no read view stays open longer than one chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbops import sql
from dbops.archive.ledger import Chunk
from dbops.keys import Key, RowKey, from_row
from dbops.mysql import Table

if TYPE_CHECKING:
    from MySQLdb.connections import Connection


@dataclass(frozen=True)
class Walk:
    """A finished walk: chunks in key order, how many rows they hold, and for each condition the failing rows of each chunk."""

    chunks: list[Chunk]
    rows: int
    failed: list[list[int]]


def rows_per_chunk(table: Table, chunk_bytes: int, batch_rows: int) -> int:
    """How many rows make a chunk of `chunk_bytes` source bytes, by InnoDB's mean row length; whole batches, at least one."""
    mean = table.average_row_bytes or 200
    return max(1, chunk_bytes // mean // batch_rows) * batch_rows


def walk(
    conn: Connection,
    table: Table,
    key: RowKey,
    predicate: str,
    *,
    chunk_rows: int,
    conditions: Sequence[str] = (),
) -> Walk:
    """Cut the rows that meet `predicate` into chunks of `chunk_rows` (the last one may be smaller). Reads only.

    `conditions` are SQL expressions that no row should meet; the walk counts the rows that do.
    """
    chunks: list[Chunk] = []
    failed: list[list[int]] = [[] for _ in conditions]
    lower: Key | None = None
    count = chunk_rows
    with conn.cursor() as cursor:
        while count == chunk_rows:
            values = {
                "literals": key.select_literals,
                "keys": key.names,
                "table": (table.schema, table.name),
                "index": key.index,
                "range": key.above(lower),
                "predicate": predicate,
                "order_by": key.order_by,
                "chunk_rows": chunk_rows,
            }
            single = len(key.columns) == 1
            cursor.execute(sql.render("archive/next_chunk", single=single, conditions=list(conditions), **values))
            row = cursor.fetchone()
            count = int(row[0])
            if not count:
                break
            if not single:
                cursor.execute(sql.render("archive/last_key", **values))
            upper = from_row(row[-1:] if single else cursor.fetchone())
            for counts, rows in zip(failed, row[1 : 1 + len(conditions)], strict=True):
                counts.append(int(rows))
            chunks.append(Chunk(len(chunks), lower, upper, count))
            lower = upper
    return Walk(chunks, sum(c.planned_rows for c in chunks), failed)
