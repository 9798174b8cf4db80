"""How the journal keeps its values: tables of the store, rows of them from values and back, and statements that are repeated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any, TypeVar, get_args

import sqlalchemy as sa
import tenacity

from dbops import keys
from dbops.backfill.records import CLOSED, Chunk, Class, Compared, Difference, Event, Plan, PlannedChunk, Tally
from dbops.keyvalue.items import Digest
from dbops.store import aware, kept_text, naive

T = TypeVar("T")
PATIENCE_S = 45.0
"""So long a store that cannot be reached is tried again: a failover of Aurora takes about 30 s."""
INSERT_ROWS = 1_000
"""Of one statement."""
_HALF = 2**32
_CONFLICTS = {1205, 1213}  # lock wait timeout, deadlock: nothing was done
_LOST = {1053, 1290, 1836, 2002, 2003, 2006, 2013, 4031}  # shutdown, read-only after a failover, no connection

PLAN = sa.table(
    "backfill_plan", *map(sa.column, ("plan_id", "spec", "open_spec", "state", "rule_digest", "server_uuid", "log_position")),
    *map(sa.column, ("planned_rows", "planned_chunks", "shuffle_seed")), sa.column("estimate", sa.JSON),
    *(sa.column(name, sa.DateTime) for name in ("made_at", "closed_at")),
)  # fmt: skip
APPROVAL = sa.table(
    "backfill_approval", *map(sa.column, ("plan_id", "digest", "approved_by")),
    *(sa.column(name, sa.DateTime) for name in ("approved_at", "withdrawn_at")),
)  # fmt: skip
PAUSE = sa.table(
    "backfill_pause", *map(sa.column, ("spec", "reason", "paused_by")), sa.column("paused_at", sa.DateTime)
)
EVENT = sa.table(
    "backfill_event", *map(sa.column, ("event_id", "plan_id", "kind", "reason", "seconds", "times", "run")),
    sa.column("noted_at", sa.DateTime),
)  # fmt: skip
SUMS = ("rows_done", "write_units", "refused_requests")
SAMPLE = sa.table(
    "backfill_sample", *map(sa.column, ("plan_id", *SUMS)), sa.column("sampled_at", sa.DateTime)
)  # fmt: skip
OUTCOMES = {
    "read": "rows_read", "written": "rows_written", "buried": "rows_buried", "equal": "rows_equal", "newer": "rows_newer",
    "tombstones": "rows_tombstoned", "unversioned": "rows_unversioned", "rejected": "rows_rejected", "checked": "rows_checked",
    "bytes": "item_bytes",
}  # fmt: skip
"""Field of a tally -> column. A chunk that is copied once more begins anew with these, while it goes on with what follows."""
_EFFORT = {
    "units": "write_units", "requests": "requests", "refused_requests": "refused_requests", "read_s": "read_s",
    "write_s": "write_s", "waited_s": "waited_s",
}  # fmt: skip
TALLY = {**OUTCOMES, **_EFFORT}
DIGEST = ("digest_rows", "digest_high", "digest_low")
CHUNK = sa.table(
    "backfill_chunk", *map(sa.column, ("plan_id", "chunk_no", "position", "low_key", "high_key", "planned_rows")),
    sa.column("is_cold", sa.Boolean), *map(sa.column, ("state", "reached_key", "attempt", "checkpoints", "owner", "error")),
    *(sa.column(name, sa.DateTime) for name in ("claimed_at", "leased_until", "done_at")),
    *map(sa.column, (*TALLY.values(), *DIGEST, "rows_removed", "rows_kept")),
)  # fmt: skip
REJECT = sa.table(
    "backfill_reject", *map(sa.column, ("plan_id", "chunk_no", "key_hash", "row_key", "reason")),
    sa.column("noted_at", sa.DateTime),
)  # fmt: skip
VERIFICATION = sa.table(
    "backfill_verification", *map(sa.column, ("verification_id", "plan_id", "run", "mode", "verdict", "bound")),
    sa.column("is_open", sa.Boolean), *(sa.column(name, sa.DateTime) for name in ("began_at", "ended_at")),
)  # fmt: skip
CLASS_COLUMNS: dict[Class, str] = {each: f"rows_{each}" for each in get_args(Class)}
BESIDE = {
    "rejected": "rows_rejected", "foreign": "items_foreign", "unread": "rows_unread", "looked_again": "looked_again",
}  # fmt: skip
"""Field of what was compared -> column."""
PART = sa.table(
    "backfill_verification_part", *map(sa.column, ("verification_id", "direction", "part", "name")),
    *map(sa.column, (*CLASS_COLUMNS.values(), *BESIDE.values(), "seconds", "note")), sa.column("ended_at", sa.DateTime),
)  # fmt: skip
DIFFERENCE = sa.table(
    "backfill_difference", *map(sa.column, ("verification_id", "key_hash", "direction", "part", "item_key", "class")),
    *map(sa.column, ("source_version", "target_version", "detail", "looks")), sa.column("noted_at", sa.DateTime),
)  # fmt: skip
BUCKET = sa.table(
    "backfill_bucket", *map(sa.column, ("resource", "limit_units_per_s", "eased_units_per_s", "granted_units", "refused_units")),
    *map(sa.column, ("easings", "revision")), *(sa.column(n, sa.DateTime) for n in ("limit_until", "free_at", "eased_at")),
)  # fmt: skip
COUNTER = sa.table(
    "backfill_counter", *map(sa.column, ("spec", "application", "instance")), sa.column("counts", sa.JSON),
    sa.column("is_last", sa.Boolean),
    *(sa.column(name, sa.DateTime) for name in ("counted_from", "counted_to")),
)  # fmt: skip


def plan_row(plan: Plan, seed: int) -> dict[str, Any]:
    """A new plan as its row."""
    row = {name: value for name, value in asdict(plan).items() if name not in ("rows", "chunks")}
    return {
        **row, "open_spec": None if plan.state in CLOSED else plan.spec, "made_at": naive(plan.made_at),
        "closed_at": naive(plan.closed_at) if plan.closed_at else None, "planned_rows": plan.rows,
        "planned_chunks": plan.chunks, "shuffle_seed": seed,
    }  # fmt: skip


def read_plan(row: Any) -> Plan:
    """A plan from its row."""
    return Plan(
        row.plan_id, row.spec, row.rule_digest, row.state, aware(row.made_at), row.server_uuid, row.log_position,
        int(row.planned_rows), int(row.planned_chunks), dict(row.estimate), aware_or_none(row.closed_at),
    )  # fmt: skip


def planned_row(plan_id: str, chunk: PlannedChunk, position: int) -> dict[str, Any]:
    """A new chunk as its row, without its position."""
    return {
        "plan_id": plan_id, "chunk_no": chunk.number, "position": position, "low_key": keys.dump(chunk.low),
        "high_key": keys.dump(chunk.high), "planned_rows": chunk.rows, "is_cold": chunk.is_cold, "state": "planned", "error": "",
    }  # fmt: skip


def read_chunk(row: Any) -> Chunk:
    """A chunk from its row."""
    return Chunk(
        plan_id=row.plan_id,
        number=int(row.chunk_no),
        position=int(row.position),
        low=keys.parse(row.low_key),
        high=keys.parse(row.high_key) or (),
        planned_rows=int(row.planned_rows),
        is_cold=bool(row.is_cold),
        state=row.state,
        reached=keys.parse(row.reached_key),
        tally=read_tally(row),
        attempt=int(row.attempt),
        owner=row.owner,
        leased_until=aware_or_none(row.leased_until),
        done_at=aware_or_none(row.done_at),
        error=row.error,
        checkpoints=int(row.checkpoints),
        removed=int(row.rows_removed),
        kept=int(row.rows_kept),
    )


def tally_row(tally: Tally) -> dict[str, Any]:
    """The columns of a chunk that hold its tally."""
    high, low = divmod(tally.digest.total, _HALF)
    digest = dict(zip(DIGEST, (tally.digest.count, high, low), strict=True))
    return {column: getattr(tally, name) for name, column in TALLY.items()} | digest


def read_tally(row: Any) -> Tally:
    """A tally from a row of a chunk, or from the sums over many."""
    found = row._mapping
    whole = {each.name for each in fields(Tally) if isinstance(each.default, int)}
    # MySQL sums whole numbers to Decimal, and nothing to null.
    numbers: dict[str, Any] = {
        name: (int if name in whole else float)(found[column] or 0) for name, column in TALLY.items()
    }
    count, high, low = (int(found[name] or 0) for name in DIGEST)
    return Tally(**numbers, digest=Digest(count, (high * _HALF + low) % _HALF**2))


def part_row(verification_id: int, found: Compared, now: datetime) -> dict[str, Any]:
    """What was compared as its row."""
    return {
        "verification_id": verification_id, "direction": found.direction, "part": found.part, "name": found.name[:100],
        **{column: int(found.counts.get(each, 0)) for each, column in CLASS_COLUMNS.items()},
        **{column: getattr(found, name) for name, column in BESIDE.items()}, "seconds": found.seconds,
        "note": kept_text(found.note), "ended_at": now,
    }  # fmt: skip


def read_part(row: Any) -> Compared:
    """What was compared from its row, without its differences; all classes are there."""
    columns = row._mapping
    counts: dict[Class, int] = {each: int(columns[column]) for each, column in CLASS_COLUMNS.items()}
    beside: dict[str, Any] = {name: int(columns[column]) for name, column in BESIDE.items()}
    return Compared(
        row.direction, int(row.part), counts, **beside, seconds=float(row.seconds), name=row.name, note=row.note
    )


def put_differences(
    connection: sa.Connection,
    verification_id: int,
    direction: str,
    part: int,
    found: Sequence[Difference],
    now: datetime,
) -> None:
    """Insert differences, or replace those of the same key and direction."""
    rows = [
        {
            "verification_id": verification_id, "key_hash": key_hash(each.key), "direction": direction, "part": part,
            "item_key": each.key, "class": each.classed, "source_version": each.source_version,
            "target_version": each.target_version, "detail": kept_text(each.detail), "looks": each.looks, "noted_at": now,
        }
        for each in found
    ]  # fmt: skip
    for start in range(0, len(rows), INSERT_ROWS):
        upsert(connection, DIFFERENCE, ("verification_id", "key_hash", "direction"), rows[start : start + INSERT_ROWS])


def event_row(plan_id: str, event: Event, now: datetime) -> dict[str, Any]:
    """An event as its row; one without time has `now`."""
    return {
        "plan_id": plan_id, "noted_at": naive(event.at) if event.at else now, "kind": event.kind, "reason": kept_text(event.reason),
        "seconds": event.seconds, "times": event.count, "run": event.run[:300],
    }  # fmt: skip


def upsert(
    connection: sa.Connection, table: sa.TableClause, key: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Insert rows, or put them in the place of those of the same key."""
    if not rows:
        return
    others = [name for name in rows[0] if name not in key]
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as sqlite_insert

        lite = sqlite_insert(table)
        replaced: Any = lite.on_conflict_do_update(index_elements=key, set_={n: lite.excluded[n] for n in others})
    else:
        from sqlalchemy.dialects.mysql import insert as mysql_insert

        mine = mysql_insert(table)
        replaced = mine.on_duplicate_key_update({name: mine.inserted[name] for name in others})
    connection.execute(replaced, list(rows))


def repeat(work: Callable[[], T]) -> T:
    """Do it again after a deadlock, and for :data:`PATIENCE_S` while the store cannot be reached."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_may_repeat),
        wait=tenacity.wait_random_exponential(multiplier=0.02, max=2),
        stop=tenacity.stop_after_delay(PATIENCE_S),
        reraise=True,
    )
    return retrying(work)


def _may_repeat(error: BaseException) -> bool:
    if not isinstance(error, (sa.exc.OperationalError, sa.exc.InterfaceError)):
        return False
    code = getattr(error.orig, "args", (None,))[0]
    return code in _CONFLICTS | _LOST or "database is locked" in str(error.orig)


def key_hash(text: str) -> str:
    """Of a key that is too long for an index."""
    return hashlib.sha256(text.encode()).hexdigest()


def aware_or_none(moment: datetime | None) -> datetime | None:
    """The same, where there may be none."""
    return None if moment is None else aware(moment)
