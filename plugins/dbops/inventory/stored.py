"""The tables of the history, and how values go into them and come out.

:mod:`history` has the ways in and out, :mod:`recording` what a snapshot adds, :mod:`past` what it is compared with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from dbops.inventory.coverage import Coverage
from dbops.inventory.deltas import IO
from dbops.inventory.model import COUNTERS, Gap, TableIo, TableRef

Span = tuple[int, int | None]
"""Snapshots behind the first number up to the second (None: all), while one server answered."""
NO_SCHEMA = ""
WHOLE_TABLE = "*"
GAUGES = ("p95_ms", "p99_ms")
_CHUNK = 1000
_DEADLOCK, _LOCK_WAIT = 1213, 1205


def _table(name: str, *columns: str, **typed: Any) -> sa.TableClause:
    return sa.table(name, *map(sa.column, columns), *(sa.column(n, kind) for n, kind in typed.items()))


WATCH = _table("inventory_watch", "watch_id", "spec", "instance")
SNAPSHOT = _table(
    "inventory_snapshot", "snapshot_id", "watch_id", "version", "read_only", "digest_epoch", "server_epoch",
    taken_at=sa.DateTime(), previous_at=sa.DateTime(), state=sa.JSON(), settings=sa.JSON(), coverage=sa.JSON(),
)  # fmt: skip
KEY = _table(
    "inventory_key",
    "key_id",
    "watch_id",
    "source",
    "source_key",
    "schema_name",
    "fingerprint",
    "digest",
    "program",
    "snapshot_id",
)
READING = _table(
    "inventory_reading", "key_id", "snapshot_id", "executions", "interval_s", *COUNTERS, *GAUGES,
    since=sa.DateTime(), until=sa.DateTime(), total=sa.JSON(none_as_null=True),
)  # fmt: skip
TEXT = _table("inventory_text", "spec", "fingerprint", "source", "truncated", "is_digest", "text", "snapshot_id")
ORIGIN = _table("inventory_origin", "spec", "fingerprint", "schema_name", "kind", "value", "snapshot_id")
IO_KEY = _table("inventory_io_key", "io_key_id", "watch_id", "table_schema", "table_name", "index_name", "snapshot_id")
IO_READING = _table(
    "inventory_io", "io_key_id", "snapshot_id", *IO, *(f"{name}_total" for name in IO), since=sa.DateTime(), moved=sa.JSON()
)  # fmt: skip


def latest(
    table: sa.TableClause,
    key: sa.ColumnClause[Any],
    outer: sa.ColumnClause[Any],
    last: int | None = None,
    spans: Sequence[Span] = (),
) -> sa.ScalarSelect[Any]:
    """Number of the newest snapshot, up to `last` and in one of the spans, with a row of `outer`'s key in `table`.

    That is one look into the table's primary key.
    """
    inner = sa.alias(table)
    query = sa.select(sa.func.max(inner.c.snapshot_id)).where(inner.c[key.name] == outer)
    if spans:
        number = inner.c.snapshot_id
        query = query.where(sa.or_(*(number > a if b is None else sa.and_(number > a, number <= b) for a, b in spans)))
    return (query if last is None else query.where(inner.c.snapshot_id <= last)).scalar_subquery()


def io_of(row: Any, counts: Sequence[int]) -> TableIo:
    """A row with the columns of IO_KEY, and counters, as a value."""
    index = None if row.index_name == WHOLE_TABLE else row.index_name
    return TableIo(TableRef(row.table_schema, row.table_name), index, *map(int, counts))


def from_coverage(ledger: Coverage) -> dict[str, Any]:
    """A ledger as JSON; with its percentage, for people who read the store."""
    times = {name: at.isoformat() if at else None for name, at in (("since", ledger.since), ("until", ledger.until))}
    return {**asdict(ledger), **times, "explained_percent": ledger.explained_percent}


def to_coverage(stored: Mapping[str, Any]) -> Coverage:
    """The ledger that from_coverage() made."""
    values = {name: value for name, value in stored.items() if name != "explained_percent"}
    gaps = tuple(Gap(**gap) for gap in stored["gaps"])
    times = {name: when(stored[name]) for name in ("since", "until")}
    return Coverage(**{**values, "gaps": gaps, "resets": tuple(stored["resets"]), **times})


def moment(text: str) -> datetime:
    """A time within JSON."""
    return datetime.fromisoformat(text)


def when(text: str | None) -> datetime | None:
    """The same, or None."""
    return moment(text) if text else None


def chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """Portions for ``IN`` lists."""
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]


def insert_new(connection: sa.Connection, table: sa.TableClause, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, leaving those that are there as they are. Any other error is raised (INSERT IGNORE would hide it)."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as sqlite_insert

        connection.execute(sqlite_insert(table).on_conflict_do_nothing(), rows)
    else:
        from sqlalchemy.dialects.mysql import insert as mysql_insert

        spec = table.c.spec
        connection.execute(mysql_insert(table).on_duplicate_key_update({spec.name: spec}), rows)


def is_conflict(error: BaseException) -> bool:
    """Deadlock or lock wait: another instance's snapshot of the same spec adds the same texts."""
    return (
        isinstance(error, sa.exc.OperationalError)
        and bool(getattr(error.orig, "args", ()))
        and error.orig.args[0] in (_DEADLOCK, _LOCK_WAIT)  # type: ignore[union-attr]
    )
