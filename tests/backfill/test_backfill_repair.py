"""Repair goes through the condition only; roll-back removes what is still the plan's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dbops.backfill import repair as repairs
from dbops.backfill.records import FAILING, Chunk, Difference, Tally
from dbops.backfill.repair import Repaired
from dbops.backfill.roll_back import Remover, RolledBack
from dbops.backfill.target import Overloaded, Pressure
from dbops.backfill.verify import Span, Verifier
from dbops.guardrails import Refused
from dbops.keyvalue import rules
from dbops.keyvalue.items import canonical
from dbops.keyvalue.rules import Write
from tests.backfill import verify_kit as kit

STAMP = kit.STAMP
ROWS = 12


class World:
    """Rows in MySQL, copied under a stamp."""

    def __init__(self) -> None:
        self.mysql, self.store, self.clock = kit.Rows(), kit.MemoryTarget(), kit.Clock()
        for number in range(1, ROWS + 1):
            self.mysql.put(number, 5)
            self.store.put(kit.write(number, 5, stamp=STAMP))

    def verifier(self) -> Verifier:
        return Verifier(self.mysql, self.store, None, drain_s=1, monotonic=self.clock, sleep=self.clock.sleep)

    def differences(self) -> list[Difference]:
        verifier = self.verifier()
        parts = [*verifier.forward([Span(0, None, ("99",))]), *verifier.reverse(range(1), 1)]
        return [each for part in parts for each in part.differences]

    def repair(self, found: list[Difference], **more: Any) -> Repaired:
        return repairs.repair(self.mysql, self.store, None, found, kit.Free(), stamp=STAMP, **more)

    def remover(self, **more: Any) -> Remover:
        return Remover(self.mysql, self.store, None, STAMP, kit.Free(), threads=2, **more)

    def item(self, number: int) -> Any:
        return self.store.store.get(kit.key(number))


def test_rows_that_the_store_lacks_are_written_and_right_afterwards() -> None:
    world = World()
    world.store.erase(kit.key(1))
    world.mysql.put(2, 6)
    found = world.differences()
    done = world.repair(found)
    assert done.counts == {"written": 2, "buried": 0, "settled": 0, "left": 0}
    assert world.item(1)[kit.NAMES.stamp] == {"S": STAMP}
    again = repairs.look_again(world.verifier(), 7, found)
    assert (again.part, again.name, again.counts) == (7, "repaired", {"equal": 2})
    assert world.differences() == []
    assert world.repair(found).counts == {"written": 0, "buried": 0, "settled": 2, "left": 0}


def test_an_item_without_row_becomes_a_tombstone_only_when_approved() -> None:
    world = World()
    del world.mysql.loaded[3]
    found = world.differences()
    done = world.repair(found)
    assert [each.detail for each in done.left] == [
        "the item lives without a row: find how its deletion was lost, then repair with bury_extra"
    ]
    assert repairs.look_again(world.verifier(), 0, done.left).counts == {"extra": 1}
    assert world.repair(found, may_bury=True).counts == {"written": 0, "buried": 1, "settled": 0, "left": 0}
    assert rules.is_tombstone(world.item(3), kit.NAMES)
    assert rules.version_of(world.item(3), kit.NAMES) == rules.Version(5)
    assert not world.store.put(kit.write(3, 5))[0].is_written  # the deleted row stays so
    assert world.store.put(kit.write(3, 6))[0].is_written  # one that comes back lives
    assert world.differences()[0].classed == "extra"  # which MySQL does not have


@pytest.mark.parametrize("moment", ["before", "between the reads", "before the write"])
def test_a_row_that_comes_back_is_never_buried(moment: str) -> None:
    world = World()
    del world.mysql.loaded[3]
    found = world.differences()

    def back() -> None:
        world.store.before_read = lambda: None
        write = world.mysql.put(3, 6)
        assert write is not None
        world.store.put(write)

    if moment == "before":
        back()
    elif moment == "between the reads":
        world.store.before_read = back
    else:
        write = world.store.write

        def late(writes: Any, pace: Any) -> Any:
            back()
            return write(writes, pace)

        world.store.write = late  # type: ignore[method-assign]
    done = world.repair(found, may_bury=True)
    assert done.buried == 0
    assert not rules.is_tombstone(world.item(3), kit.NAMES)
    assert world.differences() == []


def test_an_item_that_moved_since_it_was_approved_stays() -> None:
    world = World()
    del world.mysql.loaded[3]
    found = world.differences()
    world.store.put(kit.write(3, 8))
    done = world.repair(found, may_bury=True)
    assert [each.detail for each in done.left] == ["row or item have changed since the verification: verify again"]
    world.store.put(kit.tombstone(3, 8))
    assert world.repair(found, may_bury=True).settled == 1
    world.store.erase(kit.key(3))
    assert world.repair(found, may_bury=True).settled == 1


def test_an_item_under_another_spelling_of_the_key_does_not_get_the_row() -> None:
    """MySQL finds row 3 by it; the item of that row is another one."""
    world = World()
    other = {"pk": {"S": "RIDE#+3"}}
    world.store.overwrite({**world.item(3), **other})
    world.mysql.driving_key = lambda conn, found: ("3",)  # type: ignore[method-assign]
    found = [Difference(canonical(other), "extra", "", "5", "")]
    assert world.repair(found, may_bury=True).counts == {"written": 0, "buried": 1, "settled": 0, "left": 0}
    assert not rules.is_tombstone(world.item(3), kit.NAMES)


def test_what_the_condition_refuses_is_left_and_says_what_to_do() -> None:
    world = World()
    world.mysql.put(1, 5, "other")
    world.store.put(kit.write(2, 9))
    world.store.put(kit.tombstone(3, 5))
    world.store.overwrite({name: value for name, value in world.item(4).items() if name != kit.NAMES.version})
    world.mysql.put(5, 6, "TOO LARGE")
    del world.mysql.loaded[6]
    world.store.overwrite({name: value for name, value in world.item(6).items() if name != kit.NAMES.version})
    before = dict(world.store.store.items)
    found = list({each.key: each for each in world.differences()}.values())
    assert {each.classed for each in found} == FAILING - {"missing", "extra"}
    done = world.repair(found, may_bury=True)
    assert world.store.store.items == before
    why = {each.key: each.detail.split(":")[0] for each in done.left}
    assert why == {
        canonical(kit.key(1)): "the store has another content under this version",
        canonical(kit.key(2)): "the item is newer than the row",
        canonical(kit.key(3)): "the item is newer than the row",
        canonical(kit.key(4)): "the item has no version of this table",
        canonical(kit.key(5)): "the row cannot be an item (the item has too many bytes)",
        canonical(kit.key(6)): "the item has no version of this table",
    }
    assert repairs.summary(done).startswith("0 written, 0 buried, 0 settled meanwhile; 2 left: ")


def test_a_version_that_was_raised_in_mysql_is_repaired() -> None:
    world = World()
    world.mysql.put(1, 5, "other")
    world.store.put(kit.write(2, 9))
    found = world.differences()
    world.mysql.put(1, 6, "other")
    world.mysql.put(2, 10)
    assert world.repair(list({each.key: each for each in found}.values())).written == 2
    assert world.differences() == []


def test_a_repair_that_was_turned_away_can_be_repeated() -> None:
    world = World()
    world.store.erase(kit.key(1))
    found = world.differences()
    write = world.store.write

    def away(writes: Any, pace: Any) -> Any:
        raise Overloaded("for 60 s", Pressure("table", "x"))

    world.store.write = away  # type: ignore[method-assign]
    with pytest.raises(Overloaded):
        world.repair(found)
    world.store.write = write  # type: ignore[method-assign]
    assert world.repair(found).written == 1


def test_keys_come_back_from_their_text() -> None:
    key = {"pk": {"B": b"\0\xff"}, "sk": {"N": "-5"}}
    assert repairs.item_key(canonical(key)) == key
    assert repairs.item_key(canonical(kit.key(5))) == kit.key(5)


# --- roll back -----------------------------------------------------------------------------------------------------------


def spread(world: World) -> set[int]:
    """What may have happened since the copy; the rows whose items a roll-back removes."""
    world.store.put(world.mysql.put(1, 6))  # type: ignore[arg-type]  # updated by the application
    del world.mysql.loaded[2]
    world.store.put(kit.tombstone(2, 5))  # deleted
    kept = dict(world.item(3))
    world.store.overwrite(
        {**kept, kit.NAMES.version: {"N": "6"}}
    )  # changed in the store only: UpdateItem keeps the stamp
    world.store.overwrite({**world.item(4), kit.NAMES.stamp: {"S": "another-run"}})
    world.mysql.put(5, 7)  # its dual write was lost: the item is older
    world.store.erase(kit.key(6))
    return {5, *range(7, ROWS + 1)}


def test_only_what_is_still_the_plans_is_removed() -> None:
    world = World()
    gone = spread(world)
    found = sum(world.remover().span(None, ("99",)), RolledBack())
    assert found == RolledBack(removed=len(gone), unstamped=2, newer=1, absent=1)
    assert found.kept == 3
    assert {number for number in range(1, ROWS + 1) if world.item(number) is None} == {*gone, 6}
    again = sum(world.remover().span(None, ("99",)), RolledBack())
    assert again == RolledBack(unstamped=2, newer=1, absent=1 + len(gone))


def test_a_tombstone_stays_though_its_row_is_back() -> None:
    world = World()
    world.store.put(kit.tombstone(7, 5))
    world.store.overwrite({**world.item(7), kit.NAMES.stamp: {"S": STAMP}})
    found = sum(world.remover().span(None, ("99",)), RolledBack())
    assert found == RolledBack(removed=ROWS - 1, tombstones=1)


def test_items_whose_row_has_gone_are_swept() -> None:
    world = World()
    del world.mysql.loaded[7]
    sum(world.remover().span(None, ("99",)), RolledBack())
    assert world.item(7) is not None
    pages = list(world.remover().sweep(0, 1))
    assert sum((page for page, _ in pages), RolledBack()) == RolledBack(removed=1)
    assert pages[-1][1] is None
    assert world.item(7) is None


def test_a_write_between_reading_and_removing_is_kept() -> None:
    world = World()
    remove = world.store.remove

    def late(key: Any, version: Any, stamp: str) -> bool:
        if key == kit.key(7):
            world.store.put(kit.write(7, 6))
        return remove(key, version, stamp)

    world.store.remove = late  # type: ignore[method-assign]
    found = sum(world.remover().span(None, ("99",)), RolledBack())
    assert found == RolledBack(removed=ROWS - 1, overtaken=1)
    assert rules.version_of(world.item(7), kit.NAMES) == rules.Version(6)


class Journal:
    """Two chunks."""

    def __init__(self) -> None:
        base = Chunk("p", 0, 0, None, ("6",), 6, True, "done", None, Tally(), 1, None, None, None)
        self.todo = [base, replace(base, number=1, low=("6",), high=("99",))]
        self.done: list[tuple[int, int, int]] = []
        self.released: list[str] = []
        self.beats = 0

    def claim_roll_back(self, plan_id: str, owner: str, lease_s: float, span: Any = None) -> Chunk | None:
        return self.todo[0] if self.todo else None

    def until_free(self, plan_id: str, states: Any = ()) -> float | None:
        return 0.0 if self.todo else None

    def beat(self, chunk: Chunk, owner: str, lease_s: float) -> None:
        self.beats += 1

    def rolled_back(self, chunk: Chunk, owner: str, removed: int, kept: int) -> Chunk:
        self.done.append((chunk.number, removed, kept))
        return self.todo.pop(0)

    def release(self, chunk: Chunk, owner: str, error: str = "") -> None:
        self.released.append(error)


def test_chunks_are_claimed_counted_and_given_back() -> None:
    world, journal = World(), Journal()
    gone = spread(world)
    asked = 0

    def hold() -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise Refused("outside the window")

    with pytest.raises(Refused):
        world.remover(hold=hold).chunks(journal, "p", "me")
    assert journal.done == [(0, 1, 3)]
    assert journal.released == ["Refused: outside the window"]
    total = world.remover(hold=hold).chunks(journal, "p", "me")
    assert journal.done == [(0, 1, 3), (1, len(gone) - 1, 0)]
    assert (total.removed, journal.beats) == (len(gone) - 1, 2)


def test_verify_repair_and_roll_back_leave_a_clean_store() -> None:
    """A store that only the plan has written is empty afterwards, tombstones aside."""
    world = World()
    world.store.erase(kit.key(1))
    world.repair(world.differences())
    writes: list[Write] = [kit.tombstone(2, 5)]
    world.store.put(*writes)
    del world.mysql.loaded[2]
    sum(world.remover().span(None, ("99",)), RolledBack())
    assert list(world.store.store.items) == [canonical(kit.key(2))]
