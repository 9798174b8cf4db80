"""Takes back what a plan has written: live items with its stamp that are still what it wrote, and nothing else.

Every writer of a whole item drops the stamp, so what an application or the stream has written since stays; tombstones stay, so that nothing
that was deleted comes back. An item whose version MySQL does not reach stays too: a change that was made in the store only. Readers have to
fall back to MySQL before this begins, and writes of applications that were under way during the copy have to be over (``verify.drain_s``):
a late one would find nothing that it loses against.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

from dbops.backfill.journal import Journal
from dbops.backfill.records import Chunk
from dbops.backfill.source import Source, SourceRow
from dbops.backfill.target import Pace, Target
from dbops.keys import Key
from dbops.keyvalue import rules
from dbops.keyvalue.items import Item, canonical, write_units
from dbops.keyvalue.rules import Names, Version

PAGE_ROWS = 500
POLL_S = 5.0


@dataclass(frozen=True)
class RolledBack:
    """What became of items; adds up."""

    removed: int = 0
    unstamped: int = 0
    """Written by somebody else, before or since."""
    tombstones: int = 0
    newer: int = 0
    """With the stamp, but of a version that MySQL has not: changed in the store."""
    overtaken: int = 0
    """Changed between reading and removing."""
    absent: int = 0
    """Rows without an item."""

    @property
    def kept(self) -> int:
        """Items that stay."""
        return self.unstamped + self.tombstones + self.newer + self.overtaken

    def __add__(self, other: RolledBack) -> RolledBack:
        return RolledBack(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


@dataclass(frozen=True)
class Remover:
    """Removes the items of one plan."""

    source: Source
    """Of all rows, cold or not."""
    target: Target
    conn: Any
    """Of the writer, autocommit: on a replica an item may look newer than its row."""
    stamp: str
    pace: Pace
    threads: int = 8
    hold: Callable[[], object] = lambda: None
    """See :class:`verify.Verifier`."""
    wait: Callable[[float], object] = time.sleep
    """So many seconds; may raise to end."""

    def chunks(
        self, journal: Journal, plan_id: str, owner: str, *, lease_s: float = 60, span: tuple[int, int] | None = None
    ) -> RolledBack:
        """The items of the plan's chunks, until all are done. A killed one begins its chunk again, which is harmless.

        Waits while all chunks that are left belong to others: one of those may have died, or copies a last page of a plan that was closed.

        Raises:
            LeaseLost: another worker has taken the chunk; its items are in its count
            Refused: of `hold`; the chunk is given back
            Overloaded: the store turned requests away for too long; the chunk is given back
        """
        total = RolledBack()
        while (chunk := self._next(journal, plan_id, owner, lease_s, span)) is not None:
            found = RolledBack()
            try:
                for page in self.span(chunk.low, chunk.high):
                    found += page
                    journal.beat(chunk, owner, lease_s)
            except Exception as error:
                journal.release(chunk, owner, f"{type(error).__name__}: {error}")
                raise
            journal.rolled_back(chunk, owner, found.removed, found.kept)
            total += found
        return total

    def _next(
        self, journal: Journal, plan_id: str, owner: str, lease_s: float, span: tuple[int, int] | None
    ) -> Chunk | None:
        while (chunk := journal.claim_roll_back(plan_id, owner, lease_s, span)) is None:
            free_in = journal.until_free(plan_id, ("planned", "done"))
            if free_in is None:
                return None
            self.hold()
            self.wait(min(POLL_S, max(0.05, free_in)))
        return chunk

    def span(self, low: Key | None, high: Key) -> Iterator[RolledBack]:
        """Items of the rows with low < key <= high, page by page."""
        is_end = False
        while not is_end:
            self.hold()
            page = self.source.page(self.conn, low, high, PAGE_ROWS, "")
            rows = [row for row in page.rows if row.write is not None]
            items = self.target.read([row.write.key for row in rows if row.write is not None])
            absent = sum(item is None for item in items)
            there = [(row, item) for row, item in zip(rows, items, strict=True) if item is not None]
            yield self._remove(there) + RolledBack(absent=absent)
            low, is_end = page.last, page.is_end

    def sweep(self, segment: int, of: int, after: str | None = None) -> Iterator[tuple[RolledBack, str | None]]:
        """Items whose row has gone since, so that no chunk has them: all of a segment of the store, and where to go on."""
        for page in self.target.scan(segment, of, after):
            self.hold()
            stamped = [item for item in page.items if item.get(self.target.names.stamp) == {"S": self.stamp}]
            driving = [self.source.driving_key(self.conn, item) for item in stamped]
            rows = self.source.rows(self.conn, [key for key in driving if key is not None])
            there = [(None if key is None else rows.get(key), item) for key, item in zip(driving, stamped, strict=True)]
            yield self._remove(there), page.next

    def _remove(self, pairs: Sequence[tuple[SourceRow | None, Item]]) -> RolledBack:
        names, keys = self.target.names, self.source.view.keys.names
        found, removable = RolledBack(), list[tuple[Item, Version, Item]]()
        for row, item in pairs:
            key = {name: item[name] for name in keys}
            if (stays := _stays(item, row, key, self.stamp, names)) is not None:
                found += stays
            elif (version := rules.version_of(item, names)) is not None:
                removable.append((key, version, item))
        with ThreadPoolExecutor(self.threads) as pool:
            removed = list(pool.map(self._one, removable))
        return found + RolledBack(removed=sum(removed), overtaken=len(removed) - sum(removed))

    def _one(self, each: tuple[Item, Version, Item]) -> bool:
        key, version, item = each
        self.pace.spend(write_units(item))
        return self.target.remove(key, version, self.stamp)


def _stays(item: Item, row: SourceRow | None, key: Item, stamp: str, names: Names) -> RolledBack | None:
    """What an item counts as that is not removed; None when it is."""
    if rules.is_tombstone(item, names):
        return RolledBack(tombstones=1)
    version = rules.version_of(item, names)
    if item.get(names.stamp) != {"S": stamp} or version is None:
        return RolledBack(unstamped=1)
    write = row.write if row else None
    if write is None or canonical(write.key) != canonical(key):
        return None  # no row: a reader that asks MySQL gets the right answer
    return None if version.is_of(write.version) and version <= write.version else RolledBack(newer=1)
