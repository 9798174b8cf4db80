"""How an application reads and writes while its rows move: one read path, and a write path for each of the two phases.

    MySQL first   MySQL is the truth. Write there, then put the whole row, or a tombstone, at its version (`save`, `remove`). A crash
                  between the two loses the second: the change stream repairs it, and is not optional.
    store first   MySQL takes no writes of the row any more. See that the whole row is in the store, then change it there under a
                  condition (`create`, `update`, `delete`). A tombstone, never a deletion, as long as anybody falls back to MySQL.

The paths are generators of single steps (:class:`Get`, :class:`Load`, :class:`Put`, :class:`rules.Change`) without a store: the repository
drives them against a store and MySQL, and the test of the rule table drives the same generators through every interleaving.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from dbops.keyvalue import rules
from dbops.keyvalue.items import Item, Reject, check_size
from dbops.keyvalue.rules import Change, Condition, Outcome, Version, Write
from dbops.keyvalue.stores import ATTEMPTS, Contended, Store
from dbops.keyvalue.views import Loaded, Row, View

T = TypeVar("T")
How = Literal["hit", "tombstone", "negative", "loaded", "overtaken", "aliased", "unstorable"]
"""How a read was answered.

``hit`` or ``tombstone`` by the store; ``negative``: neither has it; ``loaded`` by MySQL, and written through; ``overtaken``: MySQL had it,
but the store had something by then, which is the answer; ``aliased``: the store has it under the key of the value that MySQL stores, not of
the one that was asked for; ``unstorable``: MySQL has it, the store cannot.
"""


@dataclass(frozen=True)
class Get:
    """Read an item of the store, consistently."""

    key: Item


@dataclass(frozen=True)
class Load:
    """Read a row of MySQL: from the writer, or from a replica that has applied everything up to the start of the dual writes."""

    row: Row
    """The key's columns."""


@dataclass(frozen=True)
class Put:
    """Write a whole item under a condition."""

    write: Write
    condition: Condition = Condition.NEWER
    seen: Version | None = None


Step = Get | Load | Put | Change
Path = Generator[Step, Any, T]


@dataclass(frozen=True)
class Read:
    """The answer of the read path."""

    row: dict[str, Any] | None
    """MySQL values by column; None when there is no such row."""
    how: How
    written: Outcome | None = None
    """What the write-through came to; None when there was none."""

    @property
    def fell_back(self) -> bool:
        """MySQL had to be asked, and had the row: what has to be 0 for days before the fall back is switched off."""
        return self.how not in ("hit", "tombstone", "negative")


class DualWriteLost(RuntimeError):
    """MySQL has committed, the store has not taken it (the cause says why). The change stream repairs it; do not write MySQL again."""


def read_path(view: View, row: Row, *, falls_back: bool = True) -> Path[Read]:
    """Store first; on a miss MySQL, and what it has is written through on condition. A tombstone is absent, without fall back.

    Args:
        view: of the table
        row: the key's columns
        falls_back: False when MySQL is no longer asked
    """
    key = view.key(row)
    item = yield Get(key)
    if item is not None:
        return _answer(view, item, "hit")
    if not falls_back:
        return Read(None, "negative")
    loaded: Loaded | None = yield Load(row)
    if loaded is None:
        # No tombstone is written for it: it would need a version, and a row may be on its way.
        return Read(None, "negative")
    try:
        write = view.write(loaded)
    except Reject:
        return Read(dict(loaded.row), "unstorable")
    if write.key != key:
        # MySQL found it by a value that its collation takes for equal: the item is under the key of the stored value.
        item = yield Get(write.key)
        if item is not None:
            return _answer(view, item, "aliased")
    outcome: Outcome = yield Put(write)
    if outcome.is_written:
        return Read(view.row(rules.document(write, view.names)), "loaded", outcome)
    if outcome.there is None:
        return Read(dict(loaded.row), "loaded", outcome)
    return Read(_answer(view, outcome.there, "hit").row, "overtaken", outcome)


def save_path(view: View, loaded: Loaded) -> Path[Outcome]:
    """MySQL first: the whole row as MySQL has committed it."""
    outcome: Outcome = yield Put(view.write(loaded))
    return outcome


def remove_path(view: View, row: Row, version: object, *, expires_s: int | None = None) -> Path[Outcome]:
    """MySQL first: the tombstone of a row that MySQL has deleted.

    Args:
        view: of the table
        row: the key's columns
        version: of the deletion; the row's last one will do, since a tombstone wins over its row
        expires_s: Unix time at which the tombstone may go; only after the backfill and the fall-back reads are over
    """
    outcome: Outcome = yield Put(view.tombstone(row, version, expires_s=expires_s))
    return outcome


def update_path(view: View, row: Row, values: Row) -> Path[Outcome]:
    """Store first: some columns of a row. On an item that is not there the whole row is brought first, then the change is tried again.

    Args:
        view: of the table
        row: the key's columns
        values: MySQL values of the columns to change

    Raises:
        Reject: a value has no form, or belongs to the key
        Contended: other writers overtook it each time
    """
    if fixed := sorted(values.keys() & set(view.keys.columns)):
        raise Reject(f"{', '.join(fixed)}: a column of the key does not change; delete the row and create another")
    put = view.attributes(values, only=values)
    asked = Change(view.key(row), put, frozenset(values.keys() - put.keys()))
    for _ in range(ATTEMPTS):
        outcome: Outcome = yield asked
        if outcome.reason != "missing":
            return outcome
        loaded: Loaded | None = yield Load(row)
        if loaded is None:
            return outcome
        write = view.write(loaded)
        yield Put(write)  # whoever wins, an item is there now
        asked = Change(write.key, asked.put, asked.remove)
    raise Contended("the item vanished each time it was there: does a TTL remove live items?")


def create_path(view: View, row: Row) -> Path[Outcome]:
    """Store first: a new row. Refused with the item that is there when the store or MySQL has the row.

    Raises:
        Reject: the row has no item
        VersionError: versions are places in a log
    """
    key = view.key(row)
    item: Item | None = yield Get(key)
    if item is None:
        loaded: Loaded | None = yield Load(row)
        if loaded is not None:
            write = view.write(loaded)
            outcome: Outcome = yield Put(write)
            if outcome.is_written:
                return Outcome("equal", rules.document(write, view.names))
            return outcome
    elif not rules.is_tombstone(item, view.names):
        return Outcome("equal", item)
    made = Write(key, view.domain.after(_numbered(item, view)), view.attributes(row))
    check_size(rules.document(made, view.names))
    outcome = yield Put(made)
    return outcome


def delete_path(view: View, row: Row, *, expires_s: int | None = None) -> Path[Outcome]:
    """Store first: a tombstone, newer than the item that is there, or than the row of MySQL that would be brought.

    Returns:
        written; ``missing`` when neither has the row; ``tombstone`` when it is gone already; ``unversioned`` when the item has no version

    Raises:
        VersionError: versions are places in a log
        Contended: other writers overtook it each time
    """
    key = view.key(row)
    for _ in range(ATTEMPTS):
        item: Item | None = yield Get(key)
        if item is not None and not rules.can_change(item, view.names):
            return Outcome(rules.refused_change(item, view.names), item)
        seen = _numbered(item, view)
        if item is None:
            loaded: Loaded | None = yield Load(row)
            if loaded is None:
                return Outcome("missing")
            if (own := view.key(loaded.row)) != key:  # found by a value that the collation takes for equal
                key = own
                continue
            tombstone = Write(key, view.domain.after(view.domain.version(loaded.version)), None, "", expires_s)
            outcome: Outcome = yield Put(tombstone)
        else:
            outcome = yield Put(Write(key, view.domain.after(seen), None, "", expires_s), Condition.UNCHANGED, seen)
        if outcome.is_written:
            return outcome
    raise Contended(f"the item changed {ATTEMPTS} times while it was being deleted")


@dataclass
class Counters:
    """What a repository has done, for the gate of the read switch. Safe to share between threads."""

    _counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, *names: str) -> None:
        """Count each of them once."""
        with self._lock:
            self._counts.update(names)

    def snapshot(self) -> dict[str, int]:
        """All counts since the start; those of :data:`ALWAYS` are there when they are 0, too."""
        with self._lock:
            return {**dict.fromkeys(ALWAYS, 0), **self._counts}


ALWAYS = (
    "hits",
    "misses",
    "tombstone_hits",
    "negative",
    "fallback_hits",
    "write_throughs",
    "writes",
    "deletes",
    "lost",
    "failed",
)
"""``misses`` = ``fallback_hits`` + ``negative``; ``lost`` are conditions that were not met, counted as ``lost_<reason>`` as well;
``failed`` are dual writes that the store did not take."""


@dataclass(frozen=True)
class Repository:
    """Rows of one view in one store, for an application in either phase."""

    view: View
    store: Store
    load: Callable[[Row], Loaded | None]
    """Reads a row of MySQL by the key's columns, with the select list of `ColumnCodec.select_sql`."""
    falls_back: bool = True
    """False after the read switch: MySQL is not asked any more."""
    counters: Counters = field(default_factory=Counters)

    def read(self, row: Row) -> dict[str, Any] | None:
        """The row, or None when there is none. See :func:`read_path`."""
        return self.look(row).row

    def look(self, row: Row) -> Read:
        """As `read`, with how it was answered."""
        needed: list[Loaded] = []
        try:
            found = self._drive(read_path(self.view, row, falls_back=self.falls_back), needed)
        except Exception:
            if needed:  # the store did not take what MySQL had: a read that needed MySQL all the same
                self.counters.add("misses", "fallback_hits")
            raise
        names = {"hit": ["hits"], "tombstone": ["tombstone_hits"], "negative": ["misses", "negative"]}
        self.counters.add(
            *names.get(found.how, ["misses", "fallback_hits", *({found.how} & {"aliased", "unstorable"})])
        )
        if found.written is not None:
            self._count(found.written, "write_throughs")
        return found

    def save(self, commit: Callable[[], Loaded]) -> Outcome:
        """MySQL first: write MySQL, then the store.

        Args:
            commit: writes MySQL, commits, and gives the row as it is there now with its version (both from that transaction)

        Raises:
            DualWriteLost: MySQL has committed, the store did not take it
            Exception: of `commit`; then the store was not touched
        """
        loaded = commit()
        return self._second(lambda: save_path(self.view, loaded), "writes")

    def remove(self, commit: Callable[[], tuple[Row, object] | None], *, expires_s: int | None = None) -> Outcome:
        """MySQL first: delete in MySQL, then write the tombstone.

        Args:
            commit: deletes in MySQL, commits, and gives the key's columns and the version of the deletion; None when there was no such row
            expires_s: see :func:`remove_path`

        Raises:
            DualWriteLost: MySQL has committed, the store did not take it
            Exception: of `commit`; then the store was not touched
        """
        found = commit()
        if found is None:
            return Outcome("missing")
        row, version = found
        return self._second(lambda: remove_path(self.view, row, version, expires_s=expires_s), "deletes")

    def create(self, row: Row) -> Outcome:
        """Store first: see :func:`create_path`."""
        return self._count(self._drive(create_path(self.view, row)), "writes")

    def update(self, row: Row, values: Mapping[str, Any]) -> Outcome:
        """Store first: see :func:`update_path`."""
        return self._count(self._drive(update_path(self.view, row, values)), "writes")

    def delete(self, row: Row, *, expires_s: int | None = None) -> Outcome:
        """Store first: see :func:`delete_path`."""
        return self._count(self._drive(delete_path(self.view, row, expires_s=expires_s)), "deletes")

    def _second(self, path: Callable[[], Path[Outcome]], name: str) -> Outcome:
        try:
            return self._count(self._drive(path()), name)
        except Exception as error:
            self.counters.add("failed")
            raise DualWriteLost(f"MySQL has committed, the store did not take it: {type(error).__name__}") from error

    def _count(self, outcome: Outcome, name: str) -> Outcome:
        self.counters.add(*([name] if outcome.is_written else ["lost", f"lost_{outcome.reason}"]))
        return outcome

    def _drive(self, path: Path[T], needed: list[Loaded] | None = None) -> T:
        """Carry out a path. What MySQL had goes to `needed`."""
        answer: Any = None
        try:
            while True:
                answer = self._carry_out(path.send(answer))
                if needed is not None and isinstance(answer, Loaded):
                    needed.append(answer)
        except StopIteration as end:
            found: T = end.value
            return found

    def _carry_out(self, step: Step) -> Any:
        match step:
            case Get():
                return self.store.get(step.key)
            case Load():
                return self.load(step.row)
            case Put():
                return self.store.put(step.write, step.condition, step.seen)
        return self.store.change(step)


def _answer(view: View, item: Item, how: How) -> Read:
    return Read(None, "tombstone") if rules.is_tombstone(item, view.names) else Read(view.row(item), how)


def _numbered(item: Item | None, view: View) -> Version | None:
    """The version of an item, if it is a number."""
    found = rules.version_of(item, view.names)
    return found if found is not None and found.kind == "N" else None
