"""Verification over a source and a store in memory: each fault is put in and has to be seen, traffic goes on and must not be."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from dbops.backfill import verify
from dbops.backfill.records import FAILING, Class, Compared, PlannedChunk
from dbops.backfill.verify import Span, TooManyDifferences, Verifier, Wanted
from dbops.guardrails import Refused
from dbops.keyvalue import rules
from dbops.keyvalue.items import canonical
from dbops.keyvalue.rules import Write
from tests.backfill import verify_kit as kit

ROWS = 40
SPANS = [Span(0, None, ("15",)), Span(1, ("15",), ("30",)), Span(2, ("30",), ("60",))]


class World:
    """Rows in MySQL, all of them in the store."""

    def __init__(self, rows: int = ROWS) -> None:
        self.mysql, self.store, self.clock = kit.Rows(), kit.MemoryTarget(), kit.Clock()
        for number in range(1, rows + 1):
            self.store.put(self.commit(number, 5))

    def commit(self, number: int, version: int, name: str = "", note: str | None = None) -> Write:
        made = self.mysql.put(number, version, name, note)
        assert made is not None
        return made

    def verifier(self, **more: Any) -> Verifier:
        given = {"drain_s": 10.0, "page_rows": 7, "monotonic": self.clock, "sleep": self.clock.sleep, **more}
        return Verifier(self.mysql, self.store, None, **given)

    def forward(self, **more: Any) -> list[Compared]:
        return list(self.verifier(**more).forward(SPANS))

    def reverse(self, **more: Any) -> list[Compared]:
        return list(self.verifier(**more).reverse(range(2), 2))


def total(parts: list[Compared]) -> dict[Class, int]:
    return dict(sum((Counter(dict(each.counts)) for each in parts), Counter[Class]()))


def test_all_equal_without_a_pause() -> None:
    world = World()
    forward, reverse = world.forward(), world.reverse()
    assert [(each.part, each.seen) for each in forward] == [(0, 15), (1, 15), (2, 10)]
    assert total(forward) == total(reverse) == {"equal": ROWS}
    assert [each.part for each in reverse] == [0, 1]
    assert sum(each.looked_again for each in forward + reverse) == 0
    assert world.clock() == 1000


# --- each fault, alone, in both directions -----------------------------------------------------------------------------


def fault_missing(world: World) -> None:
    world.store.erase(kit.key(20))


def fault_source_newer(world: World) -> None:
    world.commit(20, 6)


def fault_extra(world: World) -> None:
    del world.mysql.loaded[20]


def fault_resurrected(world: World) -> None:
    """A plain put over a tombstone."""
    del world.mysql.loaded[20]
    world.store.put(kit.tombstone(20, 5))
    world.store.overwrite(rules.document(kit.write(20, 5), kit.NAMES))


def fault_converter(world: World) -> None:
    world.commit(20, 5, "written without a new version")


def fault_unversioned(world: World) -> None:
    made = dict(rules.document(kit.write(20, 5), kit.NAMES))
    del made[kit.NAMES.version]
    world.store.overwrite(made)


def fault_other_version(world: World) -> None:
    world.store.overwrite({**rules.document(kit.write(20, 5), kit.NAMES), kit.NAMES.version: {"S": "000005"}})


def fault_older(world: World) -> None:
    """An older write that went over a newer one."""
    world.store.overwrite(rules.document(kit.write(20, 4), kit.NAMES))


def fault_ahead(world: World) -> None:
    """A join lost the row with the greatest version."""
    world.store.put(kit.write(20, 9))


def fault_hidden(world: World) -> None:
    """Inserted again with the version of its tombstone."""
    world.store.put(kit.tombstone(20, 5))


def fault_not_buried(world: World) -> None:
    world.commit(20, 6, note="GONE")


def fault_stale_reject(world: World) -> None:
    world.mysql.put(20, 6, "TOO LARGE")


FAULTS: dict[Callable[[World], None], tuple[Class | None, Class | None]] = {
    fault_missing: ("missing", None),
    fault_source_newer: ("source_newer", "source_newer"),
    fault_extra: (None, "extra"),
    fault_resurrected: (None, "extra"),
    fault_converter: ("converter", "converter"),
    fault_unversioned: ("unversioned", "unversioned"),
    fault_other_version: ("unversioned", "unversioned"),
    fault_older: ("source_newer", "source_newer"),
    fault_ahead: ("ahead", "ahead"),
    fault_hidden: ("ahead", "ahead"),
    fault_not_buried: ("source_newer", "source_newer"),
    fault_stale_reject: (None, "source_newer"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda each: each.__name__.removeprefix("fault_"))
def test_each_fault_is_reported_once_with_its_key_and_no_value(fault: Callable[[World], None]) -> None:
    world = World()
    fault(world)
    for parts, expected in zip((world.forward(), world.reverse()), FAULTS[fault], strict=True):
        failed = [each for part in parts for each in part.differences]
        assert [(each.key, each.classed) for each in failed] == (
            [(canonical(kit.key(20)), expected)] if expected else []
        )
        assert sum(part.failing for part in parts) == len(failed)
        assert "written without" not in str(failed)
        assert total(parts).get("equal", 0) in (ROWS - 1, ROWS)
    assert {each for pair in FAULTS.values() for each in pair if each} == FAILING


def test_a_row_that_cannot_be_an_item_is_counted_not_compared() -> None:
    world = World()
    world.mysql.put(41, 1, "TOO LARGE")
    (*_, last) = world.forward()
    assert (last.rejected, last.seen, last.failing) == (1, 10, 0)


def test_it_waits_no_longer_than_it_has_to() -> None:
    world = World()
    late = world.commit(20, 6)
    world.clock.on_sleep = lambda: world.clock.now >= 1004 and world.store.put(late) and None
    assert total(world.forward()) == {"equal": ROWS}
    assert 1004 <= world.clock() <= 1006
    fault_missing(world)
    world.clock.on_sleep = lambda: None
    began = world.clock()
    assert total(world.forward())["missing"] == 1
    assert 10 <= world.clock() - began <= 12


# --- under traffic -----------------------------------------------------------------------------------------------------


class Traffic:
    """Between any two reads rows are inserted, updated, deleted, inserted again; writes to the store come late and cross."""

    def __init__(self, world: World, seed: int, lag_s: float = 5.0) -> None:
        self.world, self.random, self.lag_s = world, random.Random(seed), lag_s
        self.under_way: list[tuple[float, Write]] = []
        self.versions = dict.fromkeys(range(1, 61), 5)
        self.changes = 0
        self.frozen: set[int] = set()
        world.clock.step = 0.02
        world.mysql.before_read = world.store.before_read = self
        world.clock.on_sleep = self

    def __call__(self) -> None:
        now = self.world.clock.now
        self.deliver(now)
        for _ in range(3):
            number = self.random.randrange(1, 61)
            if number in self.frozen:
                continue
            self.changes += 1
            if number in self.world.mysql.loaded and self.random.random() < 0.4:
                del self.world.mysql.loaded[number]
                write = kit.tombstone(number, self.versions[number])
            else:
                self.versions[number] += 1
                write = self.world.commit(number, self.versions[number])
            self.under_way.append((now + self.random.uniform(0, self.lag_s), write))

    def deliver(self, now: float) -> None:
        due = [each for each in self.under_way if each[0] <= now]
        self.under_way = [each for each in self.under_way if each[0] > now]
        self.random.shuffle(due)
        for _, write in due:
            self.world.store.put(write)


@pytest.mark.parametrize("seed", range(20))
def test_no_false_alarm_under_traffic(seed: int) -> None:
    world = World()
    traffic = Traffic(world, seed)
    forward, reverse = world.forward(), world.reverse()
    assert traffic.changes > 100
    assert sum(each.looked_again for each in forward) > 0
    assert sum(each.looked_again for each in reverse) > 0
    assert not [each for part in forward + reverse for each in part.differences]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda each: each.__name__.removeprefix("fault_"))
@pytest.mark.parametrize("seed", range(3))
def test_a_fault_is_seen_among_traffic(fault: Callable[[World], None], seed: int) -> None:
    world = World()
    traffic = Traffic(world, seed)
    traffic.frozen = {20}
    fault(world)
    for parts, expected in zip((world.forward(), world.reverse()), FAULTS[fault], strict=True):
        failed = [(each.key, each.classed) for part in parts for each in part.differences]
        assert failed == ([(canonical(kit.key(20)), expected)] if expected else [])


@pytest.mark.parametrize("seed", range(5))
def test_what_a_lossy_store_lacks_is_what_is_reported(seed: int) -> None:
    """One write in ten never arrives. Then traffic ends, and a reader's own comparison says which keys are wrong."""
    world = World()
    traffic = Traffic(world, seed)
    put = world.store.put
    world.store.put = lambda *writes: put(*writes) if traffic.random.random() > 0.1 else []  # type: ignore[method-assign]
    for _ in range(200):
        world.clock.now += 0.1
        traffic()
    traffic.frozen = set(range(61))
    traffic.deliver(world.clock.now + 60)
    wrong = set()
    for number in range(1, 61):
        there = world.store.store.get(kit.key(number))
        name = None if there is None or rules.is_tombstone(there, kit.NAMES) else there["name"]["S"]
        loaded = world.mysql.loaded.get(number)
        wrong |= {canonical(kit.key(number))} if name != (loaded.row["name"] if loaded else None) else set()
    found = {each.key for part in world.forward() + world.reverse() for each in part.differences}
    assert wrong
    assert found == wrong


# --- edges -------------------------------------------------------------------------------------------------------------


def test_keys_of_other_views() -> None:
    world = World()
    world.store.overwrite({"pk": {"S": "USER#7"}, "name": {"S": "Ann"}, "_v": {"N": "1"}})
    (found,) = [each for part in world.reverse() for each in part.differences]
    assert (found.key, found.classed) == ('{"pk":{"S":"USER#7"}}', "extra")
    parts = world.reverse(shared_table=True)
    assert sum(each.foreign for each in parts) == 1
    assert total(parts) == {"equal": ROWS}


def test_a_row_under_another_spelling_of_the_key_is_not_this_row() -> None:
    """MySQL's collation finds the row of the item; its own item is another one."""
    world = World()
    world.store.overwrite({**rules.document(kit.write(20, 5), kit.NAMES), "pk": {"S": "RIDE#+20"}})
    world.mysql.driving_key = lambda conn, found: ("20",)  # type: ignore[method-assign]
    world.mysql.loaded = {20: world.mysql.loaded[20]}
    parts = world.reverse()
    assert {each.key for part in parts for each in part.differences} >= {'{"pk":{"S":"RIDE#+20"}}'}


def test_items_that_a_scan_gives_twice_are_looked_at_again_once() -> None:
    world = World()
    world.store.scanned_twice = True
    fault_ahead(world)
    assert sum(len(part.differences) for part in world.reverse()) == 1


def test_single_keys() -> None:
    world = World()
    fault_missing(world)
    world.mysql.put(30, 6, "TOO LARGE")
    gone = Wanted(("55",))
    gap = Wanted(("56",), kit.key(56))
    rows = [Wanted((str(number),)) for number in (19, 20, 30)]
    found = world.verifier().keys(3, [*rows, gone, gap], name="uniform")
    assert (found.direction, found.part, found.name, found.unread, found.rejected) == ("sample", 3, "uniform", 1, 1)
    assert found.counts == {"equal": 2, "missing": 1}
    world.store.put(kit.write(56, 1))
    assert world.verifier().keys(4, [gap]).counts == {"extra": 1}


def test_too_many_differences_end_it_and_say_where() -> None:
    world = World()
    world.store.store.items.clear()
    with pytest.raises(TooManyDifferences, match="more than 7 differences by forward part 0") as ended:
        world.forward(max_differences=7)
    assert len(ended.value.found.differences) == 8


def test_keys_that_wait_are_bounded() -> None:
    world = World()
    world.store.store.items.clear()
    verifier = world.verifier(capacity=10)
    most = 0
    sleep = verifier.sleep

    def watched(seconds: float) -> None:
        nonlocal most
        most = max(most, len(verifier._waiting))
        sleep(seconds)

    verifier.sleep = watched
    assert total(list(verifier.forward(SPANS))) == {"missing": ROWS}
    assert most <= 10 + 7


def test_the_brake_ends_it_and_finished_parts_stay() -> None:
    world = World()
    asked = 0

    def hold() -> None:
        nonlocal asked
        asked += 1
        if asked > 5:
            raise Refused("outside the window")

    parts: list[Compared] = []
    walk = world.verifier(hold=hold).forward(SPANS)
    parts.append(next(walk))
    with pytest.raises(Refused):
        next(walk)
    assert [(each.part, each.seen) for each in parts] == [(0, 15)]


def test_what_waited_when_it_was_ended_does_not_disturb_the_next() -> None:
    world = World()
    fault_missing(world)
    ends = [False, False, False, False, False, True]
    verifier = world.verifier(hold=lambda: ends and ends.pop(0) and _refuse())
    with pytest.raises(Refused):
        list(verifier.forward(SPANS))
    assert total(list(verifier.forward(SPANS))) == {"equal": ROWS - 1, "missing": 1}
    assert verifier._waiting == {}


def _refuse() -> None:
    raise Refused("outside the window")


def test_a_connection_with_a_snapshot_is_refused() -> None:
    class Connection:
        def get_autocommit(self) -> bool:
            return False

    world = World()
    with pytest.raises(ValueError, match="open it with autocommit"):
        Verifier(world.mysql, world.store, Connection())


def test_parts_of_a_plan_reach_to_the_newest_row() -> None:
    chunks = [PlannedChunk(1, ("9",), ("20",), 11), PlannedChunk(0, None, ("9",), 9)]
    assert verify.spans(chunks, ("20",)) == [Span(0, None, ("9",), 9), Span(1, ("9",), ("20",), 11)]
    assert verify.spans(chunks, ("25",))[-1] == Span(2, ("20",), ("25",))
    assert verify.spans([], ("25",)) == [Span(0, None, ("25",))]
    assert verify.spans([], None) == []
    world = World()
    assert world.mysql.last_key(None) == ("40",)
