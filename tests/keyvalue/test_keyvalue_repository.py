"""The read path and the write paths, their counters, and a state machine over all of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from dbops.keyvalue import rules, views
from dbops.keyvalue.items import Reject, canonical
from dbops.keyvalue.repository import DualWriteLost, Repository
from dbops.keyvalue.rules import Condition, Domain, Outcome, Version, VersionError, Write
from dbops.keyvalue.stores import Contended, MemoryStore
from dbops.keyvalue.views import Loaded
from tests.keyvalue import keyvalue_kit as kit
from tests.keyvalue.keyvalue_machine import Moving

VIEW = views.view(
    [kit.column("name", "varchar(20)", nullable=False, collation="utf8mb4_general_ci"), kit.column("score", "int(11)")],
    {"pk": "USER#{name}"},
)
ANN = {"name": "ann"}
KEY = VIEW.key(ANN)


class Source:
    """Rows of MySQL, found as its collation finds them."""

    def __init__(self, **rows: int | None) -> None:
        self.rows = {name: Loaded({"name": name, "score": score}, 1) for name, score in rows.items()}
        self.asked = 0

    def __call__(self, row: Any) -> Loaded | None:
        self.asked += 1
        return self.rows.get(row["name"].lower())


def repository(source: Callable[[Any], Loaded | None] | None = None, **more: Any) -> Repository:
    return Repository(VIEW, more.pop("store", None) or MemoryStore(), source or Source(), **more)


def test_a_miss_is_loaded_once_and_is_a_hit_afterwards() -> None:
    source = Source(ann=5)
    users = repository(source)
    assert users.look(ANN).how == "loaded"
    assert users.read(ANN) == {"name": "ann", "score": 5}
    assert source.asked == 1
    counts = users.counters.snapshot()
    assert {name: count for name, count in counts.items() if count} == {
        "hits": 1, "misses": 1, "fallback_hits": 1, "write_throughs": 1,
    }  # fmt: skip


def test_a_row_that_nobody_has_leaves_nothing_behind() -> None:
    users = repository()
    assert users.read(ANN) is None
    assert users.store.get(KEY) is None
    assert users.counters.snapshot()["negative"] == 1


def test_a_tombstone_is_absent_and_mysql_is_not_asked() -> None:
    source = Source(ann=5)
    users = repository(source)
    users.store.put(Write(KEY, Version(1)))
    assert users.look(ANN).how == "tombstone"
    assert source.asked == 0


def test_without_fall_back_mysql_is_not_asked() -> None:
    source = Source(ann=5)
    users = repository(source, falls_back=False)
    assert users.read(ANN) is None
    assert source.asked == 0


@pytest.mark.parametrize(
    ("write", "score"),
    [(Write(KEY, Version(2), {"name": {"S": "ann"}, "score": {"N": "9"}}), 9), (Write(KEY, Version(1)), None)],
)
def test_what_overtook_the_write_through_is_the_answer(write: Write, score: int | None) -> None:
    users = repository()
    source = Source(ann=5)

    def slow(row: Any) -> Loaded | None:
        users.store.put(write)
        return source(row)

    users = repository(slow, store=users.store)
    found = users.look(ANN)
    assert found.how == "overtaken"
    assert (found.row or {}).get("score") == score
    assert found.written is not None
    assert users.counters.snapshot()["lost_tombstone" if score is None else "lost_newer"] == 1


def test_the_item_is_under_the_stored_value_and_not_under_the_one_that_was_typed() -> None:
    """MySQL finds Ann by ANN; under ANN there must be no second item, and a tombstone of ann counts."""
    source = Source(ann=5)
    users = repository(source)
    assert users.look({"name": "ANN"}).how == "loaded"
    assert users.look({"name": "ANN"}).how == "aliased"
    assert users.look({"name": "ANN"}).fell_back
    assert users.store.get(VIEW.key({"name": "ANN"})) is None
    assert users.update({"name": "ANN"}, {"score": 6}).is_written
    assert users.read(ANN) == {"name": "ann", "score": 6}
    assert users.delete({"name": "ANN"}).is_written
    assert users.look({"name": "ANN"}).how == "tombstone"


def test_a_row_that_the_store_cannot_have_is_served_by_mysql_and_counted() -> None:
    users = repository(Source(ann=2**40))
    assert users.look(ANN).how == "unstorable"
    assert users.read(ANN) == {"name": "ann", "score": 2**40}
    assert users.counters.snapshot()["unstorable"] == 2


def test_a_read_whose_write_through_fails_has_needed_mysql() -> None:
    class Full(MemoryStore):
        def put(self, write: Write, condition: Condition = Condition.NEWER, seen: Version | None = None) -> Outcome:
            raise ConnectionError

    users = repository(Source(ann=5), store=Full())
    with pytest.raises(ConnectionError):
        users.look(ANN)
    assert users.counters.snapshot()["fallback_hits"] == 1
    with pytest.raises(ConnectionError):
        repository(lambda _: (_ for _ in ()).throw(ConnectionError()), counters=users.counters).look(ANN)
    assert users.counters.snapshot()["fallback_hits"] == 1, "nobody knows whether MySQL has the row"


def test_save_and_remove_write_mysql_first() -> None:
    users = repository()
    assert users.save(lambda: Loaded({"name": "ann", "score": 1}, 1)).is_written
    assert users.save(lambda: Loaded({"name": "ann", "score": 0}, 1)).reason == "equal"
    assert users.remove(lambda: (ANN, 1), expires_s=4_000_000_000).is_written
    assert users.save(lambda: Loaded({"name": "ann", "score": 2}, 1)).reason == "tombstone"
    assert users.remove(lambda: None).reason == "missing"
    assert users.store.get(KEY) == {
        **KEY, "_v": {"N": "1"}, "_deleted": {"BOOL": True}, "_exp": {"N": "4000000000"},
    }  # fmt: skip
    counts = users.counters.snapshot()
    assert (counts["writes"], counts["deletes"], counts["lost"], counts["lost_equal"]) == (1, 1, 2, 1)


def test_a_commit_that_fails_leaves_the_store_alone_and_a_store_that_fails_says_that_mysql_has_committed() -> None:
    class Down(MemoryStore):
        def put(self, *arguments: Any, **more: Any) -> Outcome:
            raise ConnectionError("password=secret")

    def fails() -> Loaded:
        raise RuntimeError("deadlock")

    users = repository(store=Down())
    with pytest.raises(RuntimeError, match="deadlock"):
        users.save(fails)
    assert users.counters.snapshot()["failed"] == 0
    with pytest.raises(DualWriteLost, match=r"^MySQL has committed, the store did not take it: ConnectionError$"):
        users.save(lambda: Loaded({"name": "ann", "score": 1}, 1))
    assert users.counters.snapshot()["failed"] == 1


def test_an_update_brings_the_whole_row_first() -> None:
    users = repository(Source(ann=5))
    assert users.update(ANN, {"score": None}).is_written
    item = users.store.get(KEY)
    assert item == {**KEY, "_v": {"N": "2"}, "name": {"S": "ann"}}
    assert users.update({"name": "bob"}, {"score": 1}).reason == "missing"
    with pytest.raises(Reject, match="a column of the key does not change"):
        users.update(ANN, {"name": "bob"})


def test_created_and_deleted_rows_go_on_from_the_version_that_was() -> None:
    users = repository(Source(ann=5))
    assert users.create({"name": "ann", "score": 1}).reason == "equal"
    assert users.delete(ANN).is_written
    assert users.delete(ANN).reason == "tombstone"
    assert users.create({"name": "ann", "score": 1}).is_written
    assert (users.store.get(KEY) or {})["_v"] == {"N": "3"}
    assert users.create({"name": "ann", "score": 2}).reason == "equal"
    assert users.create({"name": "bob", "score": 2}).is_written
    assert users.delete({"name": "carl"}).reason == "missing"


def test_a_row_that_was_never_brought_is_deleted_by_a_newer_tombstone() -> None:
    users = repository(Source(ann=5))
    assert users.delete(ANN).is_written
    assert users.store.get(KEY) == {**KEY, "_v": {"N": "2"}, "_deleted": {"BOOL": True}}
    assert users.store.put(VIEW.write(Loaded({"name": "ann", "score": 5}, 1))).reason == "tombstone"


def test_places_in_a_log_have_no_next_one() -> None:
    logged = views.view(
        [kit.column("name", "varchar(20)"), kit.column("score", "int(11)")],
        {"pk": "{name}"},
        domain=Domain("text", (3,)),
    )
    users = Repository(logged, MemoryStore(), lambda row: Loaded({"name": "ann", "score": 5}, "001"))
    assert users.look(ANN).how == "loaded"
    assert users.update(ANN, {"score": 1}).reason == "unversioned"
    assert users.delete(ANN).reason == "unversioned"
    empty = Repository(logged, MemoryStore(), lambda row: None)
    with pytest.raises(VersionError, match="numbers"):
        empty.create({"name": "bob", "score": 1})


def test_an_item_without_version_stays_and_is_read() -> None:
    users = repository(Source(ann=5))
    users.store.items[canonical(KEY)] = {**KEY, "score": {"N": "7"}}  # type: ignore[attr-defined]
    assert users.read(ANN) == {"name": None, "score": 7}
    assert users.update(ANN, {"score": 1}).reason == "unversioned"
    assert users.delete(ANN).reason == "unversioned"


def test_a_delete_that_is_always_overtaken_ends() -> None:
    class Busy(MemoryStore):
        def put(self, write: Write, condition: Condition = Condition.NEWER, seen: Any = None) -> Outcome:
            if condition is Condition.UNCHANGED:
                super().change(rules.Change(write.key, {"score": {"N": "1"}}))
            return super().put(write, condition, seen)

    users = repository(Source(ann=5), store=Busy())
    users.read(ANN)
    with pytest.raises(Contended):
        users.delete(ANN)


def test_counters_are_shared_by_threads() -> None:
    users = repository(Source(ann=5))

    def read() -> None:
        for _ in range(200):
            users.read(ANN)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = users.counters.snapshot()
    assert counts["hits"] + counts["misses"] == 800
    assert counts["write_throughs"] + counts["lost"] == counts["fallback_hits"]


# --- views ------------------------------------------------------------------------------------------------------------------


def test_a_row_that_is_not_whole_is_not_written() -> None:
    with pytest.raises(KeyError):
        VIEW.write(Loaded(ANN, 1))


def test_names_that_are_taken_are_refused() -> None:
    with pytest.raises(ValueError, match="_v have the names of attributes of the rules"):
        views.view([kit.column("_v", "int(11)")], {"pk": "{_v}"})
    with pytest.raises(ValueError, match="'id' has the name of a column but not its value"):
        views.view([kit.column("id", "int(11)")], {"id": "USER#{id}"})
    plain = views.view([kit.column("id", "int(11)"), kit.column("at", "datetime")], {"id": "{id}"})
    row = {"id": 5, "at": datetime(2026, 11, 29)}
    assert plain.item(row) == {"id": {"N": "5"}, "at": {"S": "2026-11-29T00:00:00Z"}}
    assert plain.row(plain.item(row)) == row


def test_an_item_that_is_too_large_is_refused_before_it_is_sent() -> None:
    users = kit.users()
    row = {**dict.fromkeys(users.by_name), "id": 1, "photo": b"x" * 420_000}
    with pytest.raises(Reject, match="largest: photo 420,000"):
        users.write(Loaded(row, 1))


# --- everything at once -------------------------------------------------------------------------------------------------------


class InMemory(Moving):
    make_store = MemoryStore


def test_a_move_with_losses_late_writers_and_a_switch() -> None:
    run_state_machine_as_test(InMemory, settings=settings(max_examples=200, stateful_step_count=40, deadline=None))


def test_the_machine_sees_a_store_that_lets_older_items_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "holds", lambda *_, **__: True)
    quick = settings(
        max_examples=200,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        print_blob=False,
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(InMemory, settings=quick)
