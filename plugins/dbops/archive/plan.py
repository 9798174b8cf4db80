"""Plan: walk the key of the source table forward and cut the cold rows into chunks.

The walk is a series of keyset pages (no OFFSET, no long-running read view) that hold two keys of a chunk at a time, so its memory
does not grow with the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbops import sql
from dbops.archive.keys import Key, RowKey, from_row
from dbops.archive.ledger import Chunk
from dbops.mysql import Table

if TYPE_CHECKING:
    from MySQLdb.connections import Connection

PAGE_ROWS = 50_000


@dataclass(frozen=True)
class Walk:
    """A finished walk: chunks in key order and how many rows they hold."""

    chunks: list[Chunk]
    rows: int


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
    page_rows: int = PAGE_ROWS,
    on_page: Callable[[int], None] = lambda rows: None,
) -> Walk:
    """Cut the rows that meet `predicate` into chunks of `chunk_rows` (the last one may be smaller). Reads only."""
    chunks: list[Chunk] = []
    lower: Key | None = None
    last: Key | None = None
    in_chunk = rows = 0
    for last in _keys(conn, table, key, predicate, page_rows, on_page):
        in_chunk += 1
        rows += 1
        if in_chunk == chunk_rows:
            chunks.append(Chunk(len(chunks), lower, last, in_chunk))
            lower, in_chunk = last, 0
    if in_chunk and last is not None:
        chunks.append(Chunk(len(chunks), lower, last, in_chunk))
    return Walk(chunks, rows)


def _keys(
    conn: Connection, table: Table, key: RowKey, predicate: str, page_rows: int, on_page: Callable[[int], None]
) -> Iterator[Key]:
    low: Key | None = None
    seen = 0
    with conn.cursor() as cursor:
        while True:
            cursor.execute(
                sql.render(
                    "archive/next_keys",
                    literals=key.select_literals,
                    table=(table.schema, table.name),
                    index=key.index,
                    range=key.above(low),
                    predicate=predicate,
                    order_by=key.order_by,
                    page_rows=page_rows,
                )
            )
            page = cursor.fetchall()
            for row in page:
                yield from_row(row)
            seen += len(page)
            on_page(seen)
            if len(page) < page_rows:
                return
            low = from_row(page[-1])
