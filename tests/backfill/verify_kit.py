"""A source and a target in memory, with what can go wrong between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dbops.backfill.target import Pace, ScanPage, Sent, TargetFacts
from dbops.keys import Key
from dbops.keyvalue import rules, views
from dbops.keyvalue.items import Item, Reject, canonical
from dbops.keyvalue.rules import Condition, Names, Outcome, Version, Write
from dbops.keyvalue.stores import MemoryStore
from dbops.keyvalue.views import Loaded, View
from dbops.mysql import Column

STAMP = "rides-20261129-0a1b2c3d"


def view() -> View:
    """A table with a number for its key."""
    columns = [
        Column("id", "bigint", "bigint(20)", nullable=False),
        Column("name", "varchar", "varchar(40)", nullable=True),
        Column("note", "varchar", "varchar(40)", nullable=True),
    ]
    return views.view(columns, {"pk": "RIDE#{id}"})


VIEW = view()
NAMES = VIEW.names


def key(number: int) -> Item:
    """The key of an item."""
    return VIEW.key({"id": number})


def write(number: int, version: int, name: str = "", *, stamp: str = "") -> Write:
    """Of a row."""
    return VIEW.write(Loaded(row(number, name or f"v{version}"), version), stamp=stamp)


def tombstone(number: int, version: int) -> Write:
    """Of a row."""
    return VIEW.tombstone({"id": number}, version)


def row(number: int, name: str, note: str | None = None) -> dict[str, Any]:
    """As MySQL has it."""
    return {"id": number, "name": name, "note": note}


@dataclass
class Clock:
    """Time that passes by sleeping, or by a step whenever somebody asks."""

    now: float = 1000.0
    step: float = 0.0
    on_sleep: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        self.now += self.step
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        self.on_sleep()


@dataclass(frozen=True)
class Row:
    """As `source.SourceRow`."""

    key: Key
    write: Write | None
    reject: str = ""


@dataclass(frozen=True)
class Page:
    """As `source.Page`."""

    rows: list[Row]
    last: Key | None
    is_end: bool


@dataclass
class Rows:
    """MySQL: id -> row and version. A row whose name is TOO LARGE cannot be an item; one with note GONE is buried."""

    loaded: dict[int, Loaded] = field(default_factory=dict)
    view: View = VIEW
    calls: int = 0
    before_read: Callable[[], None] = lambda: None

    def put(self, number: int, version: int, name: str = "", note: str | None = None) -> Write | None:
        """Commit a row."""
        self.loaded[number] = Loaded(row(number, name or f"v{version}", note), version)
        return self._row(number, "").write

    def page(self, conn: Any, low: Key | None, high: Key, limit: int, stamp: str) -> Page:
        self._asked()
        found = sorted(n for n in self.loaded if (low is None or n > int(low[0])) and n <= int(high[0]))
        some = found[:limit]
        last = (str(some[-1]),) if len(found) >= limit and (str(some[-1]),) != high else high
        return Page([self._row(n, stamp) for n in some], last, last == high)

    def rows(self, conn: Any, found: Sequence[Key], stamp: str = "") -> Mapping[Key, Row]:
        self._asked()
        return {each: self._row(int(each[0]), stamp) for each in found if int(each[0]) in self.loaded}

    def driving_key(self, conn: Any | None, found: Mapping[str, Any]) -> Key | None:
        try:
            values = self.view.keys.parts[0][1].values(found["pk"]["S"])
        except Reject:
            return None
        return (str(values["id"]),)

    def nth_key(self, conn: Any, low: Key | None, rows: int) -> Key | None:
        found = sorted(n for n in self.loaded if low is None or n > int(low[0]))
        return (str(found[rows - 1]),) if len(found) >= rows else None

    def size(self, conn: Any, low: Key | None, high: Key) -> int:
        return len([n for n in self.loaded if (low is None or n > int(low[0])) and n <= int(high[0])])

    def last_key(self, conn: Any, low: Key | None = None) -> Key | None:
        found = [n for n in self.loaded if low is None or n > int(low[0])]
        return (str(max(found)),) if found else None

    def _asked(self) -> None:
        self.calls += 1
        self.before_read()

    def _row(self, number: int, stamp: str) -> Row:
        loaded, at = self.loaded[number], (str(number),)
        if loaded.row["name"] == "TOO LARGE":
            return Row(at, None, "the item has too many bytes")
        if loaded.row["note"] == "GONE":
            return Row(at, self.view.tombstone(loaded.row, loaded.version))
        return Row(at, self.view.write(loaded, stamp=stamp))


@dataclass
class MemoryTarget:
    """A store under the rules, and the ways around them that faults take."""

    store: MemoryStore = field(default_factory=MemoryStore)
    before_read: Callable[[], None] = lambda: None
    page_items: int = 3
    scanned_twice: bool = False
    reads: int = 0

    @property
    def names(self) -> Names:
        return self.store.names

    def facts(self) -> TargetFacts:
        return TargetFacts(True, "ACTIVE")

    def write(self, writes: Sequence[Write], pace: Pace) -> Sent:
        assert len({canonical(each.key) for each in writes}) == len(writes)
        return Sent([self.store.put(each) for each in writes], float(len(writes)), requests=1)

    def put(self, *writes: Write) -> list[Outcome]:
        """Of an application."""
        return [self.store.put(each, Condition.NEWER) for each in writes]

    def read(self, keys: Sequence[Item]) -> list[Item | None]:
        self.before_read()
        assert len({canonical(each) for each in keys}) == len(keys), "a key twice"
        self.reads += len(keys)
        return [self.store.get(each) for each in keys]

    def remove(self, key: Item, version: Version, stamp: str) -> bool:
        there = self.store.get(key)
        if there is None or rules.is_tombstone(there, self.names):
            return False
        if rules.version_of(there, self.names) != version or there.get(self.names.stamp) != {"S": stamp}:
            return False
        self.erase(key)
        return True

    def scan(self, segment: int, segments: int, after: str | None = None) -> Iterator[ScanPage]:
        found = sorted(text for text in self.store.items if sum(text.encode()) % segments == segment)
        begin = found.index(after) + 1 if after in found else 0
        for at in range(begin, max(len(found), 1), self.page_items):
            some = found[at : at + self.page_items]
            items = [self.store.items[text] for text in some if text in self.store.items]
            yield ScanPage(items * (1 + self.scanned_twice), some[-1] if at + self.page_items < len(found) else None)

    def erase(self, key: Item) -> None:
        """A plain delete, which the rules forbid."""
        self.store.items.pop(canonical(key), None)

    def overwrite(self, item: Item) -> None:
        """A put without condition, which the rules forbid."""
        self.store.items[canonical({name: item[name] for name in VIEW.keys.names})] = item


class Free:
    """A pace without limit."""

    def spend(self, units: float) -> None:
        """At once."""

    def eased(self, pressure: Any, refused_units: float) -> None:
        """Nothing."""
