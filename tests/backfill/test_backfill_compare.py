"""Classes of pairs, and the proof over every interleaving that live traffic is no fault and that a fault is none of live traffic."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.backfill import compare
from dbops.backfill.compare import Look, Settled, Watch
from dbops.backfill.records import FAILING, Class
from dbops.keyvalue import rules
from dbops.keyvalue.items import Item
from dbops.keyvalue.rules import Condition, Version, Write
from tests.backfill import verify_kit as kit

NAMES = kit.NAMES
LIVE, DEAD = kit.write(1, 5, "a"), kit.tombstone(1, 5)


def item(write: Write, **more: Any) -> Item:
    return {**rules.document(write, NAMES), **more}


def bare(write: Write) -> Item:
    made = item(write)
    del made[NAMES.version]
    return made


PAIRS: dict[str, tuple[Write | None, Item | None, Class]] = {
    "neither": (None, None, "equal"),
    "gone on both sides": (None, item(DEAD), "equal"),
    "the same": (LIVE, item(LIVE), "equal"),
    "the same with another stamp": (LIVE, item(replace(LIVE, stamp="run")), "equal"),
    "the same number in another spelling": (LIVE, item(LIVE, id={"N": "1.0"}), "equal"),
    "both tombstones": (DEAD, item(DEAD), "equal"),
    "both tombstones, the item's newer": (DEAD, item(kit.tombstone(1, 6)), "equal"),
    "tombstone older than that of the row": (kit.tombstone(1, 6), item(DEAD), "source_newer"),
    "item newer": (LIVE, item(kit.write(1, 6)), "target_newer"),
    "deleted meanwhile": (LIVE, item(DEAD), "target_newer"),
    "item older": (LIVE, item(kit.write(1, 4)), "source_newer"),
    "row buried, item alive": (DEAD, item(LIVE), "source_newer"),
    "inserted again, tombstone of the life before": (LIVE, item(kit.tombstone(1, 4)), "source_newer"),
    "no item": (LIVE, None, "missing"),
    "no tombstone": (DEAD, None, "missing"),
    "no row": (None, item(LIVE), "extra"),
    "another value": (LIVE, item(LIVE, name={"S": "b"}), "converter"),
    "another type": (LIVE, item(LIVE, name={"B": b"a"}), "converter"),
    "a value more": (LIVE, item(LIVE, more={"S": "b"}), "converter"),
    "a value less": (LIVE, {name: value for name, value in item(LIVE).items() if name != "name"}, "converter"),
    "no version": (LIVE, bare(LIVE), "unversioned"),
    "no version and no row": (None, bare(LIVE), "unversioned"),
    "tombstone without version": (None, bare(DEAD), "unversioned"),
    "version of another kind": (LIVE, item(LIVE, **{NAMES.version: {"S": "5"}}), "unversioned"),
    "version of another kind and no row": (None, item(LIVE, **{NAMES.version: {"S": "5"}}), "unversioned"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_classes(name: str) -> None:
    write, there, expected = PAIRS[name]
    assert compare.classify(write, there, NAMES, "N") == expected


def test_every_class_is_reached_and_ahead_only_with_time() -> None:
    assert {expected for _, _, expected in PAIRS.values()} == {*FAILING, "equal", "target_newer"} - {"ahead"}
    newer = item(kit.write(1, 6))
    first = compare.settle(None, Look(LIVE, newer, 0, 0), NAMES, "N", 10)
    assert isinstance(first, Watch)
    assert compare.settle(first, Look(LIVE, newer, 10, 10), NAMES, "N", 10) == Settled(
        "ahead", "the item is newer than the row, and MySQL does not reach it; for 10 s"
    )


def test_names_what_differs_and_no_value() -> None:
    there = item(LIVE, name={"S": "secret"}, more={"S": "x"})
    assert compare.differing(LIVE, there, NAMES) == ("more", "name")
    found = compare.settle(None, Look(LIVE, there, 0, 0), NAMES, "N", 10)
    assert found == Settled("converter", "one version, other values of more, name")
    assert compare.differing(LIVE, item(DEAD), NAMES) == compare.differing(None, there, NAMES) == ()


versions = st.integers(1, 3)
names = st.sampled_from(["a", "b"])
writes = st.one_of(
    st.none(), st.builds(lambda v, n: kit.write(1, v, n), versions, names), versions.map(lambda v: kit.tombstone(1, v))
)
attributes = st.one_of(
    st.sampled_from([{"S": "a"}, {"S": ""}, {"N": "1"}, {"N": "1.0"}, {"B": b"a"}, {"BOOL": True}, {"NULL": True}, {"SS": ["a"]}]),
    st.just({"L": [{"N": "1"}, {"M": {"x": {"S": "a"}}}]}),
)  # fmt: skip
items = st.one_of(
    st.none(),
    writes.filter(lambda each: each is not None).map(lambda each: item(each)),  # type: ignore[arg-type]
    st.dictionaries(st.sampled_from(["name", "note", "more", NAMES.version, NAMES.deleted, NAMES.stamp]), attributes).map(
        lambda found: {**kit.key(1), **found}
    ),
)  # fmt: skip


@given(writes, items)
def test_is_total_and_equal_means_equal(write: Write | None, there: Item | None) -> None:
    """What a reader gets from the store is what MySQL has, if and only if the class says so."""
    found = compare.classify(write, there, NAMES, "N")
    is_gone = write is None or write.is_tombstone
    if found == "equal":
        if is_gone:
            assert there is None or rules.is_tombstone(there, NAMES)
        else:
            assert there is not None
            assert write is not None
            assert not rules.is_tombstone(there, NAMES)
            assert rules.version_of(there, NAMES) == write.version
            assert not compare.differing(write, there, NAMES)
    if found == "target_newer":
        assert there is not None
        assert write is not None
        assert not rules.holds(Condition.NEWER, there, write, NAMES)
    if write is not None and there is not None:  # what a repair can put right, and only that
        assert rules.holds(Condition.NEWER, there, write, NAMES) == (found == "source_newer")


@given(writes, items, st.booleans())
def test_a_fault_that_stays_is_never_fine(write: Write | None, there: Item | None, has_reject: bool) -> None:
    """Nothing moves: whatever is not equal at first sight fails when the time is over, and not before."""
    reject = "too large" if has_reject else ""
    first = compare.settle(None, Look(None if reject else write, there, 0, 1, reject), NAMES, "N", 10)
    if isinstance(first, Watch):
        early = compare.settle(first, Look(None if reject else write, there, 10.5, 11, reject), NAMES, "N", 10)
        assert isinstance(early, Watch)
        late = compare.settle(early, Look(None if reject else write, there, 11, 12, reject), NAMES, "N", 10)
        assert isinstance(late, Settled)
        assert late.classed in FAILING
    elif first.classed not in FAILING:
        assert first.classed == ("equal" if not reject else None)


# --- every interleaving ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """A commit in MySQL: the row and its write to the store, or that it is gone and the tombstone."""

    row: Write | None
    write: Write


def put(version: int) -> Change:
    return Change(kit.write(1, version), kit.write(1, version))


def delete(version: int) -> Change:
    return Change(None, kit.tombstone(1, version))


HISTORIES: dict[str, tuple[Write | None, list[Change]]] = {
    "updated": (kit.write(1, 1), [put(2), put(3)]),
    "inserted": (None, [put(1), put(2)]),
    "deleted": (kit.write(1, 1), [put(2), delete(2)]),
    "inserted again": (kit.write(1, 1), [delete(1), put(2)]),
    "comes and goes": (None, [put(1), delete(1), put(2)]),
    "ends gone": (kit.write(1, 1), [delete(1), put(2), delete(2)]),
    "hot": (kit.write(1, 1), [put(2), put(3), put(4)]),
}
TIME = 3
"""So many steps after its commit a write has reached the store, at most."""


@dataclass(frozen=True)
class World:
    """One key: what is committed, what is on its way, and a verification that is somewhere in between. Rows and items by their repr."""

    row: str
    item: str
    done: int
    under_way: tuple[tuple[int, int], ...] = ()
    """Change, and how old it is."""
    row_first: bool = True
    has_begun: bool = False
    """Of the look that is under way: it has read one side."""
    age: int = 0
    """Of that look."""
    read: str = ""
    watch: Watch | None = None
    saw_last: bool = False
    """The first look began after the last commit."""


@dataclass(frozen=True)
class Case:
    """What may happen to one key."""

    changes: list[Change]
    lost: frozenset[int]
    things: dict[str, Any] = field(default_factory=dict)

    def keep(self, found: Any) -> str:
        self.things[repr(found)] = found
        return repr(found)


def explore(
    start: Write | None, changes: list[Change], lost: frozenset[int] = frozenset(), *, row_first: bool
) -> set[tuple[bool, str]]:
    """What the verification may come to: whether it began after the last commit, and the class."""
    case = Case(changes, lost)
    item_of = case.keep(None if start is None else rules.document(start, NAMES))
    first = World(case.keep(start), item_of, 0, row_first=row_first)
    todo, seen, ends = [first], {first}, set()
    while todo:
        for after in steps(todo.pop(), case):
            if isinstance(after, tuple):
                ends.add(after)
            elif after not in seen:
                seen.add(after)
                todo.append(after)
    return ends


def steps(now: World, case: Case) -> list[Any]:
    made: list[Any] = []
    for at, (number, _) in enumerate(now.under_way):
        there, _ = rules.put(Condition.NEWER, case.things[now.item], case.changes[number].write, NAMES)
        made.append(replace(now, item=case.keep(there), under_way=now.under_way[:at] + now.under_way[at + 1 :]))
    if any(age >= TIME for _, age in now.under_way):
        return made  # what is due comes before anything else
    older = older_by_one(now)
    if now.age >= TIME:
        return [*made, look(now, older, case)]
    if now.done < len(case.changes):
        way = older.under_way + (() if now.done in case.lost else ((now.done, 0),))
        made.append(replace(older, row=case.keep(case.changes[now.done].row), done=now.done + 1, under_way=way))
    return [*made, older, look(now, older, case)]


def look(now: World, older: World, case: Case) -> Any:
    """The next read of the verification, or what it came to."""
    reads_row = now.has_begun != now.row_first
    side = now.row if reads_row else now.item
    if not now.has_begun:
        saw_last = now.saw_last
        if now.watch is None:
            # Gone on both sides is equal, though a write that is still on its way may raise the item afterwards.
            saw_last = now.done == len(case.changes) and not (case.changes[-1].row is None and now.under_way)
        return replace(older, has_begun=True, read=side, age=1, saw_last=saw_last)
    row, there = (side, now.read) if reads_row else (now.read, side)
    # Time is relative, so that states are finite: this look began `age` steps ago.
    seen = Look(case.things[row], case.things[there], -now.age, 0.0, row_first=now.row_first)
    came = compare.settle(now.watch, seen, NAMES, "N", TIME)
    if isinstance(came, Settled):
        return (now.saw_last, came.classed)
    return replace(older, has_begun=False, age=0, read="", watch=shifted(came, -1), row_first=False)


def older_by_one(now: World) -> World:
    way = tuple((number, age + 1) for number, age in now.under_way)
    return replace(now, under_way=way, age=now.age + now.has_begun, watch=shifted(now.watch, -1))


def shifted(watch: Watch | None, by: float) -> Watch | None:
    """Its times as seen a step later; what is over is over."""
    if watch is None:
        return None
    still = None if watch.still_since is None else max(watch.still_since + by, -3 * TIME)
    return replace(watch, since=max(watch.since + by, -3 * TIME), still_since=still, looks=0, turns=0)


@pytest.mark.parametrize("row_first", [True, False], ids=["forward", "reverse"])
@pytest.mark.parametrize("name", HISTORIES)
def test_live_traffic_is_no_fault(name: str, row_first: bool) -> None:
    start, changes = HISTORIES[name]
    ends = explore(start, changes, row_first=row_first)
    assert ends
    assert {classed for _, classed in ends} <= {"equal", "target_newer"}


@pytest.mark.parametrize("row_first", [True, False], ids=["forward", "reverse"])
@pytest.mark.parametrize("name", HISTORIES)
def test_a_lost_write_is_found(name: str, row_first: bool) -> None:
    """The last write never arrives: who looks after its commit must not call it fine."""
    start, changes = HISTORIES[name]
    ends = explore(start, changes, frozenset({len(changes) - 1}), row_first=row_first)
    after = {classed for saw_last, classed in ends if saw_last}
    assert after
    assert after <= FAILING


def test_versions_that_fall_are_found() -> None:
    """A joined row was deleted and took the greatest version with it; a key was inserted again from 1 over its tombstone."""
    for there in (kit.write(1, 9), kit.tombstone(1, 1)):
        now = kit.write(1, 1, "other")
        ends = explore(there, [Change(now, now)], row_first=True)
        assert {classed for saw_last, classed in ends if saw_last} == {"ahead"}


def test_a_row_that_comes_and_goes_does_not_hide_an_item_that_stays() -> None:
    stale = item(kit.write(1, 1))
    watch: Watch | Settled | None = None
    for second in range(100):
        row = kit.write(1, 10 + second) if second % 2 else None
        watch = compare.settle(watch, Look(row, stale, second, second), NAMES, "N", 10)
        if isinstance(watch, Settled):
            break
    assert isinstance(watch, Settled)
    assert watch.classed in FAILING
    assert second == 10


def test_a_hot_key_of_which_one_version_is_wrong() -> None:
    """The item reaches the version that was seen with other values, while the row has moved on."""
    watch = compare.settle(None, Look(kit.write(1, 5, "a"), item(kit.write(1, 4)), 0, 0), NAMES, "N", 10)
    assert isinstance(watch, Watch)
    wrong = compare.settle(watch, Look(kit.write(1, 7), item(kit.write(1, 5, "b")), 1, 1), NAMES, "N", 10)
    right = compare.settle(watch, Look(kit.write(1, 7), item(kit.write(1, 5, "a")), 1, 1), NAMES, "N", 10)
    further = compare.settle(watch, Look(kit.write(1, 7), item(kit.write(1, 6, "a")), 1, 1), NAMES, "N", 10)
    assert [each.classed for each in (wrong, right, further) if isinstance(each, Settled)] == [
        "converter", "equal", "target_newer",
    ]  # fmt: skip
    lagging = compare.settle(None, Look(kit.write(1, 4), item(kit.write(1, 5, "a")), 0, 0), NAMES, "N", 10)
    assert isinstance(lagging, Watch)
    wrong = compare.settle(lagging, Look(kit.write(1, 5, "b"), item(kit.write(1, 6)), 1, 1), NAMES, "N", 10)
    assert isinstance(wrong, Settled)
    assert wrong.classed == "converter"


def test_ranks() -> None:
    assert compare.rank_of(item(DEAD), NAMES) == (Version(5), True)
    assert compare.rank_of(None, NAMES) is compare.rank_of(bare(LIVE), NAMES) is None
