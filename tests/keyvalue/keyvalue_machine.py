"""A state machine of Hypothesis: an application, a backfill, a change stream and readers over one store and a MySQL of dicts.

Until the switch MySQL is written first (second halves may be lost, the stream delivers in any order and repeatedly); after it the store is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dbops.keyvalue import rules
from dbops.keyvalue.items import Item, canonical
from dbops.keyvalue.repository import DualWriteLost, Repository
from dbops.keyvalue.rules import Condition, Outcome, Write
from dbops.keyvalue.stores import Store
from dbops.keyvalue.views import Loaded, View
from tests.keyvalue import keyvalue_kit as kit

VIEW: View = kit.users()
IDS = st.integers(1, 3)
NAMES = st.sampled_from(["Ann", "Bob", "", "日本"])
DOCUMENTS = st.sampled_from([None, "{}", '{"a":[1,18446744073709551615,1.5]}'])


class Lossy:
    """A store that may be told to fail the next write."""

    def __init__(self, store: Store) -> None:
        self.store, self.fails = store, False

    def get(self, key: Item) -> Item | None:
        return self.store.get(key)

    def put(self, write: Write, condition: Condition = Condition.NEWER, seen: Any = None) -> Outcome:
        if self.fails:
            raise ConnectionError("the store does not answer")
        return self.store.put(write, condition, seen)

    def change(self, asked: Any) -> Outcome:
        return self.store.change(asked)


class Moving(RuleBasedStateMachine):
    """The move of three rows."""

    make_store: Callable[[], Store]

    @initialize(initial=st.dictionaries(IDS, NAMES))
    def begin(self, initial: dict[int, str]) -> None:
        self.version = 0
        self.rows: dict[int, Loaded | None] = {}
        self.log: list[Write] = []
        self.read: list[Write] = []
        self.is_switched = False
        self.expected: dict[int, dict[str, Any] | None] = {}
        self.seen: dict[int, Item | None] = {}
        self.store = Lossy(type(self).make_store())
        self.repository = Repository(VIEW, self.store, lambda row: self.rows.get(row["id"]))
        for number, name in initial.items():
            self.rows[number] = self.loaded(number, name, None)

    def loaded(self, number: int, name: str, document: str | None) -> Loaded:
        self.version += 1
        row = dict.fromkeys(VIEW.by_name)
        return Loaded({**row, "id": number, "name": name, "profile": document}, self.version)

    # --- MySQL first

    @precondition(lambda self: not self.is_switched)
    @rule(number=IDS, name=NAMES, document=DOCUMENTS, is_lost=st.booleans())
    def save(self, number: int, name: str, document: str | None, is_lost: bool) -> None:
        def commit() -> Loaded:
            made = self.loaded(number, name, document)
            self.rows[number] = made
            self.log.append(VIEW.write(made))
            return made

        self.lossy(is_lost, lambda: self.repository.save(commit))

    @precondition(lambda self: not self.is_switched)
    @rule(number=IDS, is_lost=st.booleans(), raises=st.booleans())
    def remove(self, number: int, is_lost: bool, raises: bool) -> None:
        def commit() -> tuple[dict[str, Any], int] | None:
            there = self.rows.get(number)
            if there is None:
                return None
            self.version += 1
            version = self.version if raises else int(str(there.version))
            self.rows[number] = None
            self.log.append(VIEW.tombstone({"id": number}, version))
            return {"id": number}, version

        self.lossy(is_lost, lambda: self.repository.remove(commit))

    def lossy(self, is_lost: bool, act: Callable[[], Outcome]) -> None:
        self.store.fails = is_lost
        try:
            act()
        except DualWriteLost:
            assert is_lost
        finally:
            self.store.fails = False

    # --- those who are about

    @rule(number=IDS)
    def backfill_reads(self, number: int) -> None:
        there = self.rows.get(number)
        if there is not None:
            self.read.append(VIEW.write(there, stamp="run"))

    @precondition(lambda self: self.read)
    @rule(data=st.data(), condition=st.sampled_from([Condition.ABSENT, Condition.NEWER]))
    def backfill_writes(self, data: st.DataObject, condition: Condition) -> None:
        self.store.put(data.draw(st.sampled_from(self.read)), condition)

    @precondition(lambda self: self.log)
    @rule(data=st.data())
    def stream_delivers(self, data: st.DataObject) -> None:
        self.store.put(data.draw(st.sampled_from(self.log)))

    @rule(number=IDS)
    def read_through(self, number: int) -> None:
        found = self.repository.look({"id": number})
        if self.is_switched:
            assert same(found.row, self.expected[number]), found
        elif found.how in ("loaded", "negative"):
            there = self.rows.get(number)
            assert same(found.row, dict(there.row) if there else None), found

    # --- the store first

    @precondition(lambda self: not self.is_switched)
    @rule()
    def switch(self) -> None:
        """Only when the stream has delivered everything: a repair that comes later would find its version taken."""
        self.deliver_all()
        self.is_switched = True
        for number in (1, 2, 3):
            there = self.rows.get(number)
            self.expected[number] = dict(there.row) if there else None

    @precondition(lambda self: self.is_switched)
    @rule(number=IDS, name=NAMES, document=DOCUMENTS)
    def update(self, number: int, name: str, document: str | None) -> None:
        there = self.expected[number]
        outcome = self.repository.update({"id": number}, {"name": name, "profile": document})
        assert outcome.is_written == (there is not None), outcome
        if there is not None:
            self.expected[number] = {**there, "name": name, "profile": document}

    @precondition(lambda self: self.is_switched)
    @rule(number=IDS, name=NAMES)
    def create(self, number: int, name: str) -> None:
        row = {**dict.fromkeys(VIEW.by_name), "id": number, "name": name}
        outcome = self.repository.create(row)
        assert outcome.is_written == (self.expected[number] is None), outcome
        self.expected[number] = self.expected[number] or row

    @precondition(lambda self: self.is_switched)
    @rule(number=IDS)
    def delete(self, number: int) -> None:
        outcome = self.repository.delete({"id": number})
        assert outcome.is_written == (self.expected[number] is not None), outcome
        self.expected[number] = None

    # --- what has to hold

    @invariant()
    def no_older_item_over_a_newer_one(self) -> None:
        for number in (1, 2, 3) if hasattr(self, "store") else ():
            now, before = self.store.get(VIEW.key({"id": number})), self.seen.get(number)
            if before is not None:
                was, found = rules.version_of(before, VIEW.names), rules.version_of(now, VIEW.names)
                assert was is not None
                assert found is not None
                assert found >= was
                may_differ = found != was or rules.is_tombstone(now or {}, VIEW.names)
                assert may_differ or canonical(before) == canonical(now or {})
            self.seen[number] = now

    def deliver_all(self) -> None:
        for write in self.log:
            self.store.put(write)

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        self.deliver_all()
        for write in self.read:
            self.store.put(write)
        for number in (1, 2, 3):
            there = self.rows.get(number)
            expected = self.expected[number] if self.is_switched else dict(there.row) if there else None
            assert same(self.repository.read({"id": number}), expected)
            item = self.store.get(VIEW.key({"id": number}))
            is_there = item is not None and not rules.is_tombstone(item, VIEW.names)
            assert is_there == (expected is not None)
        counts = self.repository.counters.snapshot()
        assert counts["misses"] == counts["fallback_hits"] + counts["negative"]


def same(one: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    """Whether two rows are one, given that JSON has many texts."""
    if one is None or other is None:
        return one is other
    return canonical(VIEW.item(one)) == canonical(VIEW.item(other))
