"""A sample instead of every row: what is drawn, and what may be said of the rows that were not.

Only the stratum ``uniform`` says how many rows may be wrong: each row has the same chance in it, by its rank within its chunk. The others
look where faults live: keys without a row, edges of chunks, the newest, the largest, rows with most NULLs, text beyond ASCII, values at
the edge of their type, deletions. They raise the chance to see a fault, and bound nothing.
"""

from __future__ import annotations

import heapq
import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from dbops.backfill.records import Compared
from dbops.backfill.source import Source, SourceRow
from dbops.backfill.verify import Span, Wanted
from dbops.keys import Key
from dbops.keyvalue.items import Attribute, Item, Reject, item_size
from dbops.keyvalue.rules import Write
from dbops.keyvalue.views import View

CONFIDENCE = 0.95
SHARE = 0.05
"""Of the sample, at most, for each stratum but the uniform one."""
POOL_SPANS, POOL_ROWS = 200, 500
"""The largest and so on are the largest of so many pages of so many rows."""
STRATA = ("uniform", "gaps", "edges", "newest", "largest", "null_rich", "non_ascii", "extreme", "buried")


@dataclass(frozen=True)
class Stratum:
    """Keys to look at, as one part of a verification."""

    number: int
    """In :data:`STRATA`."""
    wanted: tuple[Wanted, ...]
    note: str = ""

    @property
    def name(self) -> str:
        """What its keys have in common."""
        return STRATA[self.number]


@dataclass(frozen=True)
class Bound:
    """What a uniform sample says of all rows."""

    seen: int
    defects: int
    rows: int
    """Of which it was drawn, about."""
    upper: float
    """With 95 % confidence no larger part of the rows is wrong."""

    @property
    def text(self) -> str:
        """For a person. Never "verified"."""
        found = "no difference" if not self.defects else f"{self.defects:,} differences"
        how = "3/n" if not self.defects else "Clopper-Pearson"
        worst = math.ceil(self.upper * self.rows)
        return (
            f"{found} in {self.seen:,} rows drawn evenly: with 95 % confidence at most {self.upper:.2g} of the rows ({how}), "
            f"so up to {worst:,} of {self.rows:,}, are wrong"
        )


def bound(defects: int, seen: int, confidence: float = CONFIDENCE) -> float:
    """Upper bound of the part of all rows that is wrong, one-sided.

    Without a defect it is 3/n (the rule of three, a little above the exact 1 - 0.05^(1/n)), otherwise the exact one of Clopper and
    Pearson: the part at which so few defects would be seen with a chance of 1 - `confidence` only. Drawn without putting back, both are
    on the safe side.

    Args:
        defects: rows of the sample that are wrong
        seen: rows of the sample
        confidence: 0 to 1

    Raises:
        ValueError: there are more defects than rows
    """
    if not 0 <= defects <= seen or not 0 < confidence < 1:
        raise ValueError(f"{defects} defects in {seen} rows at confidence {confidence}")
    if defects == seen:  # nothing was seen, or nothing was right
        return 1.0
    if not defects and confidence == CONFIDENCE:
        return min(1.0, 3 / seen)
    low, high = defects / seen, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(defects, seen, middle) > 1 - confidence else (low, middle)
    return high


def bound_of(uniform: Compared, rows: int) -> Bound:
    """What the uniform stratum says of all rows."""
    return Bound(uniform.seen, uniform.failing, rows, bound(uniform.failing, uniform.seen))


def _at_most(defects: int, seen: int, part: float) -> float:
    """Chance of so many defects or fewer, each row being wrong with this chance."""
    if part >= 1:
        return 0.0
    ways = math.lgamma(seen + 1)
    wrong, right = math.log(part) if part else -math.inf, math.log1p(-part)
    logs = [
        ways - math.lgamma(n + 1) - math.lgamma(seen - n + 1) + (n * wrong if n else 0.0) + (seen - n) * right
        for n in range(defects + 1)
    ]
    most = max(logs)
    return math.exp(most) * math.fsum(math.exp(each - most) for each in logs) if most > -math.inf else 0.0


def draw(source: Source, conn: Any, spans: Sequence[Span], rows: int, random: Random) -> Iterator[Stratum]:
    """The strata of a sample, the uniform one last: it has what the others did not use.

    Args:
        source: of all rows, cold or not
        conn: of the writer
        spans: the whole table; they are counted anew, since rows that came since the plan have the same chance as the others
        rows: of the sample
        random: seeded from what a repeated task has again, such as the verification's id
    """
    counted = [_counted(source, conn, each) for each in spans]
    full = [each for each in counted if each.rows]
    share = max(1, int(rows * SHARE))
    left = rows
    for stratum in _special(source, conn, full, share, random):
        left -= len(stratum.wanted)
        yield stratum
    yield _uniform(source, conn, full, max(left, 1), random)


def _counted(source: Source, conn: Any, span: Span) -> Span:
    return Span(span.number, span.low, span.high, source.size(conn, span.low, span.high))


def _special(source: Source, conn: Any, spans: Sequence[Span], share: int, random: Random) -> Iterator[Stratum]:
    yield _gaps(source, conn, spans, share, random)
    yield _edges(source, conn, spans, share, random)
    yield Stratum(3, _keys(_newest(source, conn, spans, share)))
    pool = {name: _Best(score, share) for name, score in _SCORES.items()}
    read = 0
    for write, key in _pool(source, conn, spans, random):
        read += 1
        for best in pool.values():
            best.offer(source.view, write, key)
    note = f"of {read:,} rows in {min(len(spans), POOL_SPANS):,} places"
    for name, best in pool.items():
        yield Stratum(STRATA.index(name), _keys(best.keys), note)


def _uniform(source: Source, conn: Any, spans: Sequence[Span], rows: int, random: Random) -> Stratum:
    total = sum(each.rows for each in spans)
    ranks = iter(sorted(random.sample(range(total), min(rows, total))))
    rank, begin, found = next(ranks, None), 0, dict[Key, None]()
    for span in spans:
        at, low = begin - 1, span.low
        while rank is not None and rank < begin + span.rows:
            # From row to row within the chunk, so each chunk is walked once, over the index alone.
            key = source.nth_key(conn, low, rank - at)
            if key is not None:
                found[key], low, at = None, key, rank
            rank = next(ranks, None)
        begin += span.rows
    short = min(rows, total) - len(found)
    return Stratum(0, _keys(found), f"{short:,} of the rows that were drawn were deleted meanwhile" if short else "")


def _gaps(source: Source, conn: Any, spans: Sequence[Span], share: int, random: Random) -> Stratum:
    """Keys whether they have a row or not; where there is none there must be no item."""
    columns = source.view.keys.columns
    ends = [each.high for each in spans]
    is_number = len(columns) == 1 and source.view.by_name[columns[0]].kind == "integer"
    if not is_number or not all(len(end) == 1 and re.fullmatch(r"-?\d+", end[0]) for end in ends) or not ends:
        return Stratum(
            1,
            (),
            "not drawn: only a key of one whole number can be named without its row; the reverse direction finds them",
        )
    last, lowest = int(ends[-1][0]), source.nth_key(conn, None, 1)
    first = min(last, int(lowest[0])) if lowest else last
    wanted = dict[int, Item]()
    for number in (last + 1, *(random.randint(first, last) for _ in range(share - 1))):
        try:
            wanted[number] = source.view.key({columns[0]: number})
        except Reject:
            continue  # no row can have it
    return Stratum(1, tuple(Wanted((str(number),), key) for number, key in wanted.items()))


def _edges(source: Source, conn: Any, spans: Sequence[Span], share: int, random: Random) -> Stratum:
    """The last row of a chunk, and the first of the next: where a bound is off by one."""
    some = random.sample(spans, min(len(spans), max(1, share // 2)))
    found = dict[Key, None]()
    for span in some:
        found[span.high] = None
        if (after := source.nth_key(conn, span.high, 1)) is not None:
            found[after] = None
    note = f"of {len(some):,} of {len(spans):,} chunks" if len(some) < len(spans) else ""
    return Stratum(2, _keys(found), note)


def _newest(source: Source, conn: Any, spans: Sequence[Span], share: int) -> list[Key]:
    """The greatest keys."""
    found = deque[Key](maxlen=share)
    for begin in range(len(spans) - 1, -1, -1):
        found.clear()
        for span in spans[begin:]:
            for row in _rows(source, conn, span):
                found.append(row.key)
        if len(found) == share or sum(each.rows for each in spans[begin:]) >= share:
            break
    return list(found)


def _rows(source: Source, conn: Any, span: Span) -> Iterator[SourceRow]:
    low, is_end = span.low, False
    while not is_end:
        page = source.page(conn, low, span.high, POOL_ROWS, "")
        yield from page.rows
        low, is_end = page.last, page.is_end


def _pool(source: Source, conn: Any, spans: Sequence[Span], random: Random) -> Iterator[tuple[Write, Key]]:
    for span in random.sample(spans, min(len(spans), POOL_SPANS)):
        skipped = random.randrange(max(1, span.rows - POOL_ROWS))
        low = source.nth_key(conn, span.low, skipped) if skipped else span.low
        for row in source.page(conn, low, span.high, POOL_ROWS, "").rows:
            if row.write is not None:
                yield row.write, row.key


class _Best:
    """Keys of the rows with the highest scores above 0."""

    def __init__(self, score: Callable[[View, Write], int], most: int) -> None:
        self._score, self._most = score, most
        self._heap: list[tuple[int, Key]] = []

    def offer(self, view: View, write: Write, key: Key) -> None:
        """Consider a row."""
        if (score := self._score(view, write)) <= 0:
            return
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, (score, key))
        elif score > self._heap[0][0]:
            heapq.heapreplace(self._heap, (score, key))

    @property
    def keys(self) -> list[Key]:
        """Of the best."""
        return [key for _, key in self._heap]


def _size(view: View, write: Write) -> int:
    return item_size({**write.key, **(write.attributes or {})})


def _nulls(view: View, write: Write) -> int:
    if write.attributes is None:
        return 0
    return sum("NULL" in write.attributes.get(name, {"NULL": True}) for name in view.attribute_names)


def _non_ascii(view: View, write: Write) -> int:
    texts = [value["S"] for value in (write.attributes or {}).values() if "S" in value]
    return sum(len(text) - len(text.encode("ascii", "ignore")) for text in texts)


def _extreme(view: View, write: Write) -> int:
    return sum(_is_extreme(view, name, value) for name, value in (write.attributes or {}).items())


def _is_extreme(view: View, name: str, value: Attribute) -> bool:
    codec = view.by_name[name]
    if codec.kind == "integer":
        return value.get("N") in (str(codec.low), str(codec.high))
    if codec.kind in ("float", "double"):
        return "S" in value
    text = value.get("S")
    return isinstance(text, str) and (not text or text != text.strip() or "\0" in text)


def _buried(view: View, write: Write) -> int:
    return int(write.is_tombstone)


_SCORES: dict[str, Callable[[View, Write], int]] = {
    "largest": _size, "null_rich": _nulls, "non_ascii": _non_ascii, "extreme": _extreme, "buried": _buried,
}  # fmt: skip


def _keys(found: Sequence[Key] | dict[Key, None]) -> tuple[Wanted, ...]:
    return tuple(Wanted(key) for key in dict.fromkeys(found))
