"""Plans of small numbers, and a clock that stands still until it is moved."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from dbops.backfill import journal
from dbops.backfill.records import Plan, PlannedChunk, Tally
from dbops.keyvalue.items import Digest

NOW = datetime(2026, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)
TABLES = (
    "plan", "approval", "pause", "event", "sample", "chunk", "reject", "verification", "verification_part", "difference",
    "bucket", "counter",
)  # fmt: skip


@dataclass
class Clock:
    """Time of a test."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def a_plan(spec: str = "rides", chunks: int = 3, **changes: object) -> Plan:
    values = {
        "plan_id": f"{spec}-20260501-{uuid.uuid4().hex[:8]}", "spec": spec, "rule_digest": "d" * 64, "state": "copying",
        "made_at": NOW, "server_uuid": "3e11fa47-71ca-11e1-9e33-c80aa9429562", "log_position": "mysql-bin.000003:154",
        "rows": 10 * chunks, "chunks": chunks, "estimate": {"rows": 10 * chunks, "usd": 0.5},
    }  # fmt: skip
    return Plan(**{**values, **changes})  # type: ignore[arg-type]


def some_chunks(count: int = 3, hot: tuple[int, ...] = ()) -> list[PlannedChunk]:
    """Ten rows each: keys 1 to 10, 11 to 20, and so on."""
    return [
        PlannedChunk(n, (str(10 * n),) if n else None, (str(10 * n + 10),), 10, is_cold=n not in hot)
        for n in range(count)
    ]


def a_tally(rows: int = 5, seed: int = 1) -> Tally:
    return Tally(
        read=rows, written=rows, bytes=100 * rows, units=1.5 * rows, requests=1, read_s=0.25, write_s=0.5,
        digest=Digest(rows, seed),
    )  # fmt: skip


def begun(
    engine: sa.Engine, clock: Clock | None = None, chunks: int = 3, spec: str = "rides"
) -> tuple[journal.Journal, Plan]:
    kept = journal.Journal.open(engine, clock)
    plan = a_plan(spec, chunks)
    kept.begin(plan, some_chunks(chunks), 7)
    return kept, plan


def empty(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        for table in TABLES:
            connection.execute(sa.text(f"DELETE FROM backfill_{table}"))
