"""Plan: walk the driving table by its key, cut it into chunks, and look at every row of the view once on the way.

MySQL counts a chunk and tells its last key, so only that key crosses the wire: the walk's memory does not grow with the table, there is no
OFFSET over more than a chunk, and no read view stays open longer than one chunk. Rows that are inserted behind the walk come by the dual
writes, which have to be complete before it begins.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dbops.backfill.records import Chunk, Plan, PlannedChunk
from dbops.backfill.source import Source, ViewError
from dbops.backfill.spec import BackfillSpec
from dbops.keys import Key


@dataclass(frozen=True)
class Walk:
    """A finished walk."""

    chunks: list[PlannedChunk]
    """In key order."""
    rows: int
    """Of the driving table, under the predicate of the spec."""
    view_rows: int
    """Rows that become items; fewer than `rows` where the view leaves some out."""
    cold_rows: int
    """Among `rows`; all of them where the spec names no cold ones, or copies only these."""


def walk(
    conn: Any, source: Source, chunk_rows: int, *, progress: Callable[[PlannedChunk], None] = lambda _: None
) -> Walk:
    """Cut the rows that the spec means into chunks of so many rows of the driving table; the last one may be smaller. Reads only.

    A chunk is cold when at least half of its rows are.

    Args:
        conn: of `dbops.connections.mysql`
        source: the view
        chunk_rows: rows of a chunk
        progress: is told of each chunk

    Raises:
        ViewError: a row of the driving table has several rows in the view, so that several rows would become one item
        ValueError: chunk_rows is not above 0
        MySQLdb.Error: of the server
    """
    if chunk_rows < 1:
        raise ValueError(f"chunk_rows={chunk_rows}: has to be above 0")
    chunks: list[PlannedChunk] = []
    rows = view_rows = cold_rows = 0
    low: Key | None = None
    while True:
        full = source.nth_key(conn, low, chunk_rows)
        high = full or source.last_key(conn, low)
        if high is None:
            return Walk(chunks, rows, view_rows, cold_rows)
        found = source.count(conn, low, high)
        if found.view_rows > found.view_keys:
            raise ViewError(
                f"view.sql: gives {found.view_rows:,} rows for {found.view_keys:,} rows of {source.spec.view.table} after key {low} up to "
                f"{high}: a join finds several partners. Join by a unique key, or give each partner an item of its own in a spec of its own"
            )
        chunks.append(PlannedChunk(len(chunks), low, high, found.rows, is_cold=2 * found.cold_rows >= found.rows))
        progress(chunks[-1])
        rows, view_rows, cold_rows = rows + found.rows, view_rows + found.view_rows, cold_rows + found.cold_rows
        if full is None:
            return Walk(chunks, rows, view_rows, cold_rows)
        low = high


def groups(chunks: Sequence[Chunk], tasks: int) -> list[tuple[int, int]]:
    """Spans of positions, [first, end), for so many tasks or fewer: about the same number of rows that are left to copy in each.

    Args:
        chunks: of the plan, as the journal has them; only planned ones count
        tasks: at least 1
    """
    left = sorted((chunk for chunk in chunks if chunk.state == "planned"), key=lambda chunk: chunk.position)
    weights = [max(1, chunk.planned_rows - chunk.tally.read) for chunk in left]
    spans: list[tuple[int, int]] = []
    total, done, first = sum(weights), 0, 0
    for number, weight in enumerate(weights, 1):
        done += weight
        # this task has its share, or as many chunks are left as tasks
        if done * tasks >= total * (len(spans) + 1) or len(left) - number < tasks - len(spans):
            spans.append((left[first].position, left[number - 1].position + 1))
            first = number
    return spans


def new_plan_id(spec: str, now: datetime) -> str:
    """``<spec>-<yyyymmdd>-<8 hex digits>``."""
    return f"{spec}-{now:%Y%m%d}-{secrets.token_hex(4)}"


def new_plan(
    spec: BackfillSpec, found: Walk, *, server_uuid: str, log_position: str, now: datetime, estimate: Mapping[str, Any]
) -> Plan:
    """The plan of a walk, to be kept by `journal.Journal.begin`.

    Args:
        spec: what it was made for
        found: the walk
        server_uuid: of the writer
        log_position: GTID set or file:position of the writer before the walk
        now: UTC
        estimate: as JSON
    """
    return Plan(
        new_plan_id(spec.name, now), spec.name, spec.rule_digest(), "planned", now, server_uuid, log_position, found.rows,
        len(found.chunks), dict(estimate),
    )  # fmt: skip
