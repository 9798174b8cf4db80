"""Whether a store holds what MySQL holds, while both are written: from rows to items, from items to rows, or for keys that are given.

Rows and items are compared by :mod:`compare`; a key that is not equal at first sight waits, and is looked at again until it is settled.
Nothing is written here. Each part (a chunk, a segment of the store, a stratum) gives one :class:`records.Compared` when all of its keys are
settled, so that a run that was killed goes on with the parts that have none.

The connection must be of the writer, or of a replica whose lag is well below ``drain_s``, and must not keep a snapshot (autocommit):
otherwise a look would see what the one before saw.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dbops.backfill import compare
from dbops.backfill.compare import Look, Settled, Watch
from dbops.backfill.records import FAILING, Chunk, Class, Compared, Difference, Direction, PlannedChunk
from dbops.backfill.source import Source, SourceRow
from dbops.backfill.target import Target
from dbops.keys import Key
from dbops.keyvalue import rules
from dbops.keyvalue.items import Item, canonical

BATCH = 500
"""Keys that are looked at together."""
CAPACITY = 20_000
"""Keys that may wait for another look; then the walk waits for them."""


class TooManyDifferences(RuntimeError):
    """A verification ended early. `found` is the part in which it did; the parts before are whole, those after were not looked at."""

    def __init__(self, message: str, found: Compared) -> None:
        super().__init__(message)
        self.found = found


@dataclass(frozen=True)
class Span:
    """Rows with low < key <= high, as one part."""

    number: int
    low: Key | None
    high: Key
    rows: int = 0
    """About how many."""


@dataclass(frozen=True)
class Wanted:
    """A key to look at."""

    driving: Key | None
    """Of the row; None when no row can have it."""
    item: Item | None = None
    """Key of the item; None: that of the row, if there is one."""


def spans(chunks: Iterable[Chunk | PlannedChunk], top: Key | None = None) -> list[Span]:
    """The parts of a full verification: the chunks of a plan, and what was inserted after the last of them.

    Args:
        chunks: of the plan, all
        top: greatest key of the driving table now (`Source.last_key`); None when it has no rows
    """
    made = [
        Span(each.number, each.low, each.high, each.planned_rows if isinstance(each, Chunk) else each.rows)
        for each in sorted(chunks, key=lambda each: each.number)
    ]
    if top is not None and (not made or top != made[-1].high):
        made.append(Span(made[-1].number + 1 if made else 0, made[-1].high if made else None, top))
    return made


def segment_name(segment: int, of: int) -> str:
    """Names a part of the reverse direction: of another number of segments, one of this number is another part of the store."""
    return f"segment {segment} of {of}"


@dataclass
class _Part:
    direction: Direction
    number: int
    name: str
    began: float
    counts: Counter[Class] = field(default_factory=Counter)
    rejected: int = 0
    foreign: int = 0
    unread: int = 0
    looked_again: int = 0
    waiting: int = 0
    differences: list[Difference] = field(default_factory=list)
    note: str = ""

    def compared(self, now: float) -> Compared:
        return Compared(
            self.direction, self.number, dict(self.counts), self.rejected, self.foreign, self.unread, self.looked_again,
            tuple(self.differences), now - self.began, self.name, self.note,
        )  # fmt: skip


@dataclass
class _Waiting:
    part: _Part
    driving: Key | None
    key: Item
    watch: Watch
    due: float


@dataclass
class Verifier:
    """Compares rows and items; one for a task. Not for several threads."""

    source: Source
    target: Target
    conn: Any
    """Of the writer, autocommit."""
    drain_s: float = 60
    page_rows: int = 500
    shared_table: bool = False
    """See `spec.Verify.shared_table`."""
    max_differences: int = 10_000
    hold: Callable[[], object] = lambda: None
    """Asked before each page: returns when the servers can take it, raises `guardrails.Refused` to end."""
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    poll_s: float = 0.0
    """Between two looks at a key; 0: a tenth of `drain_s`, 1 s at most."""
    capacity: int = CAPACITY

    def __post_init__(self) -> None:
        asked = getattr(self.conn, "get_autocommit", None)
        if asked is not None and not asked():
            raise ValueError("the connection keeps a snapshot: open it with autocommit, or every look sees the same")
        self.poll_s = self.poll_s or min(1.0, self.drain_s / 10)
        self._kind: compare.Kind = "N" if self.source.view.domain.kind == "int" else "S"
        self._waiting: dict[str, _Waiting] = {}
        self._failed = 0

    def forward(self, parts: Iterable[Span]) -> Iterator[Compared]:
        """From rows to items.

        Args:
            parts: of the driving table; see :func:`spans`

        Raises:
            TooManyDifferences: there are more than `max_differences`
            Refused: of `hold`
        """
        return self._settled(self._walk(parts))

    def reverse(self, segments: Iterable[int], of: int) -> Iterator[Compared]:
        """From items to rows, tombstones too.

        Args:
            segments: of the store, from 0
            of: so many segments has the store

        Raises:
            TooManyDifferences: there are more than `max_differences`
            Refused: of `hold`
        """
        return self._settled(self._scan(segments, of))

    def keys(self, number: int, wanted: Iterable[Wanted], *, name: str = "", note: str = "") -> Compared:
        """Single keys: a sample, or differences that are looked at once more.

        Args:
            number: of the part
            wanted: the keys, each once; one without row and without a key of its item is `unread`
            name: of the part
            note: about it

        Raises:
            TooManyDifferences: there are more than `max_differences`
            Refused: of `hold`
        """
        part = _Part("sample", number, name, self.monotonic(), note=note)
        return next(self._settled(self._each(part, wanted)))

    # --- walks: they yield a part when it has been read, None where others may be looked at -----------------------------

    def _walk(self, parts: Iterable[Span]) -> Iterator[_Part | None]:
        for span in parts:
            part, low, is_end = _Part("forward", span.number, "", self.monotonic()), span.low, False
            while not is_end:
                self.hold()
                began = self.monotonic()
                page = self.source.page(self.conn, low, span.high, self.page_rows, "")
                self._compare_rows(part, page.rows, began)
                low, is_end = page.last, page.is_end
                yield part if is_end else None

    def _scan(self, segments: Iterable[int], of: int) -> Iterator[_Part | None]:
        for segment in segments:
            part = _Part("reverse", segment, segment_name(segment, of), self.monotonic())
            for page in self.target.scan(segment, of):
                self.hold()
                for items in _batches(page.items):
                    self._compare_items(part, items)
                    yield None
            yield part

    def _each(self, part: _Part, wanted: Iterable[Wanted]) -> Iterator[_Part | None]:
        for some in _batches(wanted):
            self.hold()
            began = self.monotonic()
            found = self.source.rows(self.conn, [each.driving for each in some if each.driving is not None])
            pairs: list[tuple[Key | None, Item, SourceRow | None]] = []
            for each in some:
                row = None if each.driving is None else found.get(each.driving)
                key = each.item or (row.write.key if row and row.write else None)
                if key is not None:
                    pairs.append((each.driving, key, row))
                elif row is not None:
                    part.rejected += 1
                else:
                    part.unread += 1
            self._compare_pairs(part, pairs, self.target.read([key for _, key, _ in pairs]), began)
            yield None
        yield part

    # --- first sight -----------------------------------------------------------------------------------------------------

    def _compare_rows(self, part: _Part, rows: Sequence[SourceRow], began: float) -> None:
        pairs = [(row.key, row.write.key, row) for row in rows if row.write]
        part.rejected += len(rows) - len(pairs)
        self._compare_pairs(part, pairs, self.target.read([key for _, key, _ in pairs]), began)

    def _compare_items(self, part: _Part, items: Sequence[Item]) -> None:
        began = self.monotonic()
        keys = self.source.view.keys.names
        driving = [self.source.driving_key(self.conn, item) for item in items]
        found = self.source.rows(self.conn, [key for key in driving if key is not None])
        pairs, those = [], []
        for key, item in zip(driving, items, strict=True):
            if key is None and self.shared_table:
                part.foreign += 1
                continue
            pairs.append((key, {name: item[name] for name in keys}, None if key is None else found.get(key)))
            those.append(item)
        self._compare_pairs(part, pairs, those, began)

    def _compare_pairs(
        self,
        part: _Part,
        pairs: Sequence[tuple[Key | None, Item, SourceRow | None]],
        items: Sequence[Item | None],
        began: float,
    ) -> None:
        ended = self.monotonic()
        for (driving, key, row), item in zip(pairs, items, strict=True):
            came = self._settle(None, key, row, item, began, ended, row_first=part.direction != "reverse")
            if isinstance(came, Settled):
                self._count(part, key, row, item, came, 1)
            elif (text := canonical(key)) not in self._waiting:  # a scan of Redis may give a key twice
                part.looked_again += 1
                part.waiting += 1
                self._waiting[text] = _Waiting(part, driving, key, came, ended)

    def _settle(
        self,
        watch: Watch | None,
        key: Item,
        row: SourceRow | None,
        item: Item | None,
        began: float,
        ended: float,
        *,
        row_first: bool = False,
    ) -> Watch | Settled:
        write, reject = (row.write, row.reject) if row else (None, "")
        if write is not None and write.key != key and canonical(write.key) != canonical(key):
            write = None  # MySQL takes another key for equal: the row of this one is not there
        look = Look(write, item, began, ended, reject, row_first)
        return compare.settle(watch, look, self.target.names, self._kind, self.drain_s)

    # --- later looks -----------------------------------------------------------------------------------------------------

    def _settled(self, walk: Iterator[_Part | None]) -> Iterator[Compared]:
        self._waiting.clear()
        read: list[_Part] = []
        for part in walk:
            read += [part] if part else []
            self._look_again()
            while len(self._waiting) > self.capacity:
                self._wait()
            yield from self._finished(read)
        while read:
            yield from self._finished(read)
            if read:
                self._wait()

    def _finished(self, read: list[_Part]) -> Iterator[Compared]:
        for part in [part for part in read if not part.waiting]:
            read.remove(part)
            yield part.compared(self.monotonic())

    def _wait(self) -> None:
        self.hold()
        if self._waiting:
            soonest = min(each.due for each in self._waiting.values())
            if (pause := soonest - self.monotonic()) > 0:
                self.sleep(pause)
        self._look_again()

    def _look_again(self) -> None:
        now = self.monotonic()
        due = [(text, each) for text, each in self._waiting.items() if each.due <= now]
        for some in _batches(due):
            began = self.monotonic()
            items = self.target.read([each.key for _, each in some])
            rows = self.source.rows(self.conn, [each.driving for _, each in some if each.driving is not None])
            ended = self.monotonic()
            for (text, each), item in zip(some, items, strict=True):
                row = None if each.driving is None else rows.get(each.driving)
                came = self._settle(each.watch, each.key, row, item, began, ended)
                if isinstance(came, Watch):
                    self._waiting[text] = replace(each, watch=came, due=ended + self.poll_s)
                    continue
                del self._waiting[text]
                each.part.waiting -= 1
                self._count(each.part, each.key, row, item, came, each.watch.looks + 1)

    def _count(
        self, part: _Part, key: Item, row: SourceRow | None, item: Item | None, came: Settled, looks: int
    ) -> None:
        if came.classed is None:
            part.rejected += 1
            return
        part.counts[came.classed] += 1
        if came.classed not in FAILING:
            return
        write = row.write if row else None
        there = rules.version_of(item, self.target.names)
        part.differences.append(
            Difference(
                canonical(key),
                came.classed,
                "" if write is None else str(write.version.value),
                "" if there is None else str(there.value),
                came.detail,
                looks,
            )
        )
        self._failed += 1
        if self._failed > self.max_differences:
            raise TooManyDifferences(
                f"more than {self.max_differences:,} differences by {part.direction} part {part.number}, so the rest was not looked at: "
                "find their cause first, or raise verify.max_differences",
                part.compared(self.monotonic()),
            )


def _batches(values: Iterable[Any]) -> Iterator[list[Any]]:
    some: list[Any] = []
    for value in values:
        some.append(value)
        if len(some) == BATCH:
            yield some
            some = []
    if some:
        yield some
