"""A source of rows in memory, a journal in a file, and workers that die where they are told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa

from dbops.backfill import copying
from dbops.backfill.journal import Journal
from dbops.backfill.records import PlannedChunk
from dbops.backfill.source import Page, SourceRow
from dbops.backfill.spec import Limits, Rejects
from dbops.backfill.target import Target
from dbops.backfill.worker import Copied
from dbops.keys import Key
from dbops.keyvalue.rules import Write
from tests.backfill import dynamo_kit, journal_kit
from tests.backfill.dynamo_kit import FakeDynamo, Purse

CHUNK_ROWS = 30


class Killed(BaseException):
    """The process ends: nothing that it would do afterwards happens."""


@dataclass
class Life:
    """Ends at the nth step; after that every step ends at once."""

    steps_left: int = 10**9
    lock: threading.Lock = field(default_factory=threading.Lock)

    def step(self) -> None:
        with self.lock:
            self.steps_left -= 1
            if self.steps_left <= 0:
                raise Killed


@dataclass
class Mortal:
    """What it wraps, of a worker that may die before or after a call."""

    wrapped: Any
    life: Life

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.wrapped, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            self.life.step()
            made = found(*arguments, **named)
            self.life.step()
            return made

        return call


@dataclass
class Rows:
    """Stands in for a `Source`: rows 1 to n, some of them rejects, holes or tombstones."""

    count: int
    rejected: frozenset[int] = frozenset()
    absent: frozenset[int] = frozenset()
    buried: frozenset[int] = frozenset()
    version: int = 2
    limits: Limits = field(default_factory=lambda: Limits(page_rows=7, threads=2, chunk_rows=CHUNK_ROWS))
    rejects: Rejects = field(default_factory=lambda: Rejects(max_rows=1000))
    read: list[tuple[Key | None, Key | None]] = field(default_factory=list)
    on_page: Callable[[int], None] = lambda number: None
    name_of: Callable[[int], str] = lambda number: f"name {number}"

    @property
    def spec(self) -> Any:
        return SimpleNamespace(limits=self.limits, rejects=self.rejects)

    def write(self, number: int, stamp: str) -> Write:
        if number in self.buried:
            return dynamo_kit.tombstone(number, self.version)
        return dynamo_kit.write(number, self.version, self.name_of(number), stamp)

    def numbers(self) -> list[int]:
        return [n for n in range(1, self.count + 1) if n not in self.absent]

    def page(self, conn: Any, low: Key | None, high: Key, limit: int, stamp: str) -> Page:
        self.on_page(len(self.read))
        first, end = int(low[0]) if low else 0, int(high[0])
        found = [n for n in self.numbers() if first < n <= end][:limit]
        is_end = not any(found[-1] < n <= end for n in self.numbers()) if found else True
        last: Key = high if is_end else (str(found[-1]),)
        self.read.append((low, last))
        rows = [
            SourceRow((str(n),), None, f"id {n} has no form") if n in self.rejected else SourceRow((str(n),), self.write(n, stamp))
            for n in found
        ]  # fmt: skip
        return Page(rows, last, is_end)


@dataclass
class Bench:
    """A plan over rows, in a journal of its own."""

    journal: Journal
    clock: journal_kit.Clock
    plan_id: str
    rows: Rows
    client: FakeDynamo = field(default_factory=FakeDynamo)
    purse: Purse = field(default_factory=Purse)

    def copy(
        self,
        owner: str = "one",
        *,
        target: Target | None = None,
        brake: Callable[[], float] = lambda: 0.0,
        journal: Any = None,
        source: Any = None,
        **named: Any,
    ) -> Copied:
        with dynamo_kit.target(self.client) as own:
            return copying.copy(
                journal or self.journal, source or self.rows, lambda: SimpleNamespace(close=lambda: None), target or own,
                self.purse, brake, self.plan_id, owner, **named,
            )  # fmt: skip

    def live_items(self) -> set[int]:
        return {int(item["id"]["N"]) for item in self.client.items.values() if "id" in item}


@contextmanager
def bench(folder: Path, rows: Rows) -> Iterator[Bench]:
    """A plan whose chunks have `CHUNK_ROWS` keys."""
    engine = sa.create_engine(f"sqlite:///{folder / 'journal.db'}", connect_args={"timeout": 30})
    clock = journal_kit.Clock()
    journal = Journal.open(engine, clock)
    count = -(-rows.count // CHUNK_ROWS)
    chunks = [
        PlannedChunk(n, (str(CHUNK_ROWS * n),) if n else None, (str(min(rows.count, CHUNK_ROWS * (n + 1))),), CHUNK_ROWS)
        for n in range(count)
    ]  # fmt: skip
    plan = journal_kit.a_plan(chunks=count)
    journal.begin(plan, chunks, 1)
    yield Bench(journal, clock, plan.plan_id, rows)
    engine.dispose()
