"""The worker: everything copied once whatever dies, clean ends, lost leases, rejects, and what is read back."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dbops.backfill import copying, worker
from dbops.backfill.brake import Held
from dbops.backfill.copying import Paging, Unsound
from dbops.backfill.dynamodb import DynamoTarget
from dbops.backfill.records import Tally
from dbops.backfill.spec import Limits, Rejects
from dbops.backfill.target import Pace, Pressure, Sent
from dbops.guardrails import Refused
from dbops.keyvalue import rules
from dbops.keyvalue.items import Digest, Item, canonical, item_hash
from dbops.keyvalue.rules import Outcome, Write
from tests.backfill import dynamo_kit
from tests.backfill.copying_kit import Bench, Killed, Life, Mortal, Rows, bench
from tests.backfill.dynamo_kit import NAMES, refused


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path, Rows(100, absent=frozenset(range(40, 75)), buried=frozenset({3, 99}))) as made:
        yield made


def is_whole(stage: Bench) -> None:
    """Every row is in the store, the journal counts each once, and its digest is that of the rows."""
    rows, tally = stage.rows, stage.journal.tally(stage.plan_id)
    usable = [n for n in rows.numbers() if n not in rows.rejected]
    assert stage.live_items() == set(usable) - rows.buried
    assert stage.journal.counts(stage.plan_id)["planned"] == 0
    assert (tally.read, tally.rejected) == (len(rows.numbers()), len(rows.rejected))
    assert tally.written + tally.buried + tally.equal + tally.tombstones == len(usable)
    documents = [rules.document(rows.write(n, stage.plan_id), NAMES) for n in usable]
    assert tally.digest == Digest.of(item_hash(item, NAMES.all) for item in documents)


def test_every_row_is_copied_and_counted(stage: Bench) -> None:
    done = stage.copy()
    assert (done.end, done.reason, done.chunks, done.lost) == ("done", "", 4, 0)
    is_whole(stage)
    assert done.tally == stage.journal.tally(stage.plan_id)
    assert (done.tally.written, done.tally.buried, done.tally.checked) == (63, 2, 65)
    assert stage.client.item(7) == rules.document(stage.rows.write(7, stage.plan_id), NAMES)
    assert done.tally.bytes > 0
    assert done.tally.units == 65


def test_a_second_copy_changes_nothing(stage: Bench) -> None:
    stage.copy()
    stage.journal.reopen(stage.plan_id, range(4))
    before = {name: list(states) for name, states in stage.client.history.items()}
    done = stage.copy("two")
    assert (done.tally.written, done.tally.equal, done.tally.tombstones, done.tally.checked) == (0, 65, 0, 65)
    assert stage.client.history == before


def test_what_is_newer_stays(stage: Bench) -> None:
    newer, dead = dynamo_kit.write(5, 9, "by the application"), dynamo_kit.tombstone(6, 2)
    for each in (newer, dead):
        stage.client.seed(rules.document(each, NAMES))
    stage.client.seed({**dynamo_kit.key(8), "name": {"S": "without version"}})
    done = stage.copy()
    assert (done.tally.newer, done.tally.tombstones, done.tally.unversioned) == (1, 1, 1)
    assert stage.client.item(5) == rules.document(newer, NAMES)
    assert stage.client.item(6) == rules.document(dead, NAMES)


@settings(max_examples=30, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.lists(st.integers(1, 60), max_size=6), st.integers(1, 20))
def test_a_worker_may_die_at_any_step(deaths: list[int], page_rows: int) -> None:
    limits = Limits(page_rows=page_rows, threads=2, chunk_rows=30)
    rows = Rows(
        70, rejected=frozenset({11, 65}), absent=frozenset({20, 21, 22}), buried=frozenset({2, 50}), limits=limits
    )
    with TemporaryDirectory() as folder, bench(Path(folder), rows) as stage:
        for number, steps in enumerate(deaths):
            life = Life(steps)
            with dynamo_kit.target(stage.client) as target:
                mortal = {name: Mortal(getattr(stage, name), life) for name in ("journal",)}
                with suppress(Killed):
                    done = stage.copy(
                        f"mortal {number}", target=Mortal(target, life), source=Mortal(rows, life), **mortal
                    )
                    assert done.end == "done"
            stage.clock.move(worker.LEASE_S + 1)
        assert stage.copy("last").end == "done"
        is_whole(stage)
        assert len(stage.journal.rejects(stage.plan_id)) == 2
        for states in stage.client.history.values():
            assert len(states) == 1


def test_a_chunk_that_was_taken_is_left_to_its_new_owner(stage: Bench) -> None:
    thieves: list[Any] = []

    def steal(page: int) -> None:
        if page == 1:  # the first page is on its way
            stage.clock.move(worker.LEASE_S + 1)
            thieves.append(stage.journal.claim(stage.plan_id, "thief", 600))

    stage.rows.on_page = steal
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "POLL_S", 0.01)
        thread = threading.Timer(0.5, lambda: stage.journal.release(thieves[0], "thief"))
        thread.start()
        done = stage.copy()
        thread.join()
    assert (done.end, done.lost) == ("done", 1)
    assert "thief" in " ".join(
        event.reason for event in stage.journal.events(stage.plan_id) if event.kind == "claim_lost"
    )
    is_whole(stage)


def test_a_worker_that_waits_ends_when_another_has_closed_the_copy(tmp_path: Path) -> None:
    with bench(tmp_path, Rows(60)) as stage:
        last = stage.journal.claim(stage.plan_id, "other", 60)
        assert last is not None

        class Closing(Mortal):
            def until_free(self, plan_id: str) -> float | None:
                left = stage.journal.until_free(plan_id)
                if left is not None:
                    stage.journal.finish(last, "other", Tally(read=30, written=30))
                    stage.journal.set_state(plan_id, "copied", expected=("copying",))
                return left

        assert stage.copy(journal=Closing(stage.journal, Life())).end == "done"


def test_the_lease_is_renewed_while_a_page_takes_long(stage: Bench) -> None:
    beaten = threading.Event()
    journal = Mortal(stage.journal, Life())
    beat = stage.journal.beat

    def heard(*arguments: Any) -> None:
        beat(*arguments)
        beaten.set()

    journal.beat = heard  # type: ignore[attr-defined]
    stage.rows.on_page = lambda page: None if page else _require(beaten.wait(10))
    assert stage.copy(journal=journal, lease_s=0.3).end == "done"


def _require(it: bool) -> None:
    assert it


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (Held("pause", "paused: by me"), "pause"),
        (Held("window", "outside the window 22:00-06:00 UTC"), "window"),
        (Held("limit", "still blocked after 900 s"), "limit"),
    ],
    ids=["pause", "window", "limit"],
)
def test_what_holds_it_back_ends_it_with_a_checkpoint(stage: Bench, error: Held, end: str) -> None:
    asked = iter([0.0] * 5)

    def brake() -> float:
        for waited in asked:
            return waited
        raise error

    held = stage.copy(brake=brake)
    assert (held.end, held.reason) == (end, error.reason)
    kept = stage.journal.tally(stage.plan_id)
    assert 0 < kept.read < 65
    assert kept == held.tally
    assert stage.journal.live_leases(stage.plan_id) == 0
    read = len(stage.rows.read)
    assert stage.copy("next").end == "done"
    assert stage.journal.tally(stage.plan_id).read == 65
    first = stage.rows.read[read]
    assert first[0] not in {low for low, _ in stage.rows.read[: read - 1]}  # it went on, not back
    is_whole(stage)


def test_a_stop_ends_it_after_the_page_under_way(stage: Bench) -> None:
    stop = threading.Event()
    stage.rows.on_page = lambda page: stop.set() if page == 2 else None
    done = stage.copy(stop=stop)
    assert done.end == "stop"
    assert stage.journal.live_leases(stage.plan_id) == 0
    assert done.tally.read > 0
    assert stage.copy("next").end == "done"
    is_whole(stage)


def test_a_pace_that_says_no_ends_it(stage: Bench) -> None:
    class Empty(dynamo_kit.Purse):
        def spend(self, units: float) -> None:
            super().spend(units)
            if self.units > 20:
                raise Refused("the budget of this table is spent elsewhere")

    stage.purse = Empty()
    done = stage.copy()
    assert (done.end, done.reason) == ("limit", "the budget of this table is spent elsewhere")
    stage.purse = dynamo_kit.Purse()
    assert stage.copy("next").end == "done"
    is_whole(stage)


def test_an_overloaded_store_ends_it_and_the_chunk_says_why(stage: Bench) -> None:
    stage.client.faults["batch_execute_statement"].extend([refused("ThrottlingException")] * 200)
    stage.client.faults["put_item"].extend([refused("ThrottlingException")] * 200)
    done = stage.copy()
    assert done.end == "overloaded"
    assert any("turned away" in chunk.error for chunk in stage.journal.chunks(stage.plan_id))
    stage.client.faults.clear()
    assert stage.copy("next").end == "done"
    is_whole(stage)


def test_pressure_is_noted(stage: Bench) -> None:
    stage.client.faults["batch_execute_statement"].append(
        refused("ThrottlingException", reasons=[("TableWriteAccountLimitExceeded", "table/users")])
    )
    assert stage.copy().tally.refused_requests == 7  # each row of the page
    (event,) = (event for event in stage.journal.events(stage.plan_id) if event.kind == "pressure")
    assert (event.reason, event.count) == ("TableWriteAccountLimitExceeded of users", 7)


def test_rejects_go_to_the_journal(stage: Bench) -> None:
    stage.rows.rejected = frozenset({1, 90})
    stage.rows.name_of = lambda number: "x" * 410_000 if number == 20 else "small"
    done = stage.copy()
    assert (done.end, done.tally.rejected, done.tally.read) == ("done", 3, 65)
    found = {each.key: each.reason for each in stage.journal.rejects(stage.plan_id)}
    assert found.keys() == {("1",), ("20",), ("90",)}
    assert "DynamoDB's limit" in found["20",]
    stage.rows.rejected = frozenset({90})  # somebody has corrected a row
    stage.journal.reopen(stage.plan_id, [0])
    stage.copy("again")
    assert {each.key for each in stage.journal.rejects(stage.plan_id)} == {("20",), ("90",)}


@pytest.mark.parametrize(
    ("policy", "says"),
    [(Rejects(policy="stop"), "policy is stop"), (Rejects(max_rows=2), "3 rows cannot be items, rejects.max_rows allows 2")],
    ids=["stop", "threshold"],
)  # fmt: skip
def test_too_many_rejects_end_the_copy(stage: Bench, policy: Rejects, says: str) -> None:
    stage.rows.rejected, stage.rows.rejects = frozenset({1, 2, 4, 80, 95}), policy
    done = stage.copy()
    assert done.end == "rejects"
    assert says in done.reason or policy.max_rows == 2
    assert stage.journal.live_leases(stage.plan_id) == 0


def test_too_many_rejects_are_not_forgotten_and_what_was_corrected_is_copied(stage: Bench) -> None:
    stage.rows.rejected, stage.rows.rejects = frozenset({25, 90}), Rejects(max_rows=0)
    assert stage.copy().end == "rejects"
    assert stage.copy("cleared").end == "rejects"
    stage.rows.rejected = frozenset()
    assert stage.copy("corrected").end == "done"
    is_whole(stage)
    assert stage.journal.reject_count(stage.plan_id) == 0


class Careless:
    """A target that loses or changes what it acknowledges."""

    def __init__(self, target: DynamoTarget, spoil: Any) -> None:
        self.target, self.spoil, self.names = target, spoil, target.names

    def write(self, writes: Sequence[Write], pace: Pace) -> Sent:
        sent = self.target.write(writes, pace)
        if any(write.key in (dynamo_kit.key(5), dynamo_kit.key(3)) for write in writes):
            self.spoil(self.target.client)
        return sent

    def read(self, keys: Sequence[Item]) -> list[Item | None]:
        return self.target.read(keys)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda client: client.items.pop(_place(5), None), "is missing now"),
        (lambda client: client.seed(rules.document(dynamo_kit.write(5, 1), NAMES)), "is older now"),
        (lambda client: client.seed(dynamo_kit.key(5)), "is unversioned now"),
        (lambda client: client.seed(rules.document(dynamo_kit.write(5, 2, "other"), NAMES)), "other values of name"),
        (lambda client: client.seed(rules.document(dynamo_kit.write(3, 2, "other"), NAMES)), "other values of"),
    ],
    ids=["missing", "older", "unversioned", "converter", "raised"],
)  # fmt: skip
def test_what_was_acknowledged_and_is_not_there_stops_the_copy(stage: Bench, spoil: Any, says: str) -> None:
    with dynamo_kit.target(stage.client) as target, pytest.raises(Unsound, match=says):
        stage.copy(target=Careless(target, spoil))
    assert any("Unsound" in chunk.error for chunk in stage.journal.chunks(stage.plan_id))
    assert stage.journal.live_leases(stage.plan_id) == 0


def _place(number: int) -> str:
    return canonical(dynamo_kit.key(number))


@pytest.mark.parametrize("newer", [dynamo_kit.write(5, 3, "x"), dynamo_kit.tombstone(5, 2)], ids=["newer", "deleted"])
def test_what_came_after_the_write_is_right(stage: Bench, newer: Write) -> None:
    with dynamo_kit.target(stage.client) as target:
        done = stage.copy(
            target=Careless(target, lambda client: client.item(5) and client.seed(rules.document(newer, NAMES)))
        )
    assert (done.end, done.tally.checked) == ("done", 65)


def test_an_equal_version_with_other_values_stops_the_copy(stage: Bench) -> None:
    stage.client.seed(rules.document(dynamo_kit.write(5, 2, "converted otherwise", ""), NAMES))
    with pytest.raises(Unsound, match="another writer converts otherwise"):
        stage.copy()


def test_what_was_found_goes_before_an_end_that_was_asked_for(tmp_path: Path) -> None:
    asked = iter([0.0, 0.0])

    def brake() -> float:
        for waited in asked:
            return waited
        raise Held("pause", "paused")

    with bench(tmp_path, Rows(20, limits=Limits(page_rows=5, threads=1, chunk_rows=30))) as stage:
        stage.client.seed(rules.document(dynamo_kit.write(1, 2, "converted otherwise", ""), NAMES))
        with pytest.raises(Unsound):
            stage.copy(brake=brake)


def test_a_lost_connection_is_opened_again(stage: Bench) -> None:
    import MySQLdb

    broken = iter([2013])

    def on_page(page: int) -> None:
        for code in broken:
            raise MySQLdb.OperationalError(code, "Lost connection to MySQL server during query")

    stage.rows.on_page = on_page
    assert stage.copy().end == "done"
    is_whole(stage)


def test_an_error_of_the_source_is_told_and_kept(stage: Bench) -> None:
    import MySQLdb

    def on_page(page: int) -> None:
        raise MySQLdb.OperationalError(1205, "Lock wait timeout exceeded")

    stage.rows.on_page = on_page
    with pytest.raises(MySQLdb.OperationalError):
        stage.copy()
    assert any("1205" in chunk.error for chunk in stage.journal.chunks(stage.plan_id))
    assert stage.journal.live_leases(stage.plan_id) == 0


def test_no_more_than_three_pages_are_in_memory(stage: Bench) -> None:
    """Read ahead stops until the page before is kept."""
    stage.rows.limits = Limits(page_rows=1, threads=1, chunk_rows=30)
    kept = [0]
    ahead = []
    journal = Mortal(stage.journal, Life())

    def count(real: Any) -> Any:
        def call(*arguments: Any) -> Any:
            kept[0] += 1
            return real(*arguments)

        return call

    journal.checkpoint, journal.finish = count(stage.journal.checkpoint), count(stage.journal.finish)  # type: ignore[attr-defined]
    stage.rows.on_page = lambda page: ahead.append(page + 1 - kept[0])
    stage.copy(journal=journal)
    assert max(ahead) <= 4
    assert max(ahead) > 1


@pytest.mark.parametrize(
    ("took", "rows"),
    [((100, 10_000, 1.0), 200), ((100, 10_000, 4.0), 50), ((100, 10_000, 0.001), 200), ((100, 10_000, 100.0), 50),
     ((20, 2_000, 0.01), 100), ((100, 40 << 20, 1.0), 25), ((100, 16 << 20, 1.0), 50), ((100, 0, 2.0), 100),
     ((20, 16 << 20, 1.0), 25)],
    ids=str,
)  # fmt: skip
def test_pages_find_their_size(took: tuple[int, int, float], rows: int) -> None:
    paging = Paging(100, 2.0, 10_000)
    paging.took(*took)
    assert paging.rows == rows


@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 1 << 30), st.floats(0, 1e4)), max_size=30))
def test_pages_stay_within_a_chunk(history: list[tuple[int, int, float]]) -> None:
    paging = Paging(500, 2.0, 10_000)
    for each in history:
        paging.took(*each)
        assert 1 <= paging.rows <= 10_000


def test_what_waits_for_the_pace_is_counted(stage: Bench) -> None:
    clock = [0.0]

    class Slow(dynamo_kit.Purse):
        def spend(self, units: float) -> None:
            clock[0] += 1.0

    stage.purse = Slow()
    stage.rows.limits = Limits(page_rows=30, threads=1, chunk_rows=30)
    done = stage.copy(monotonic=lambda: clock[0])
    assert done.tally.waited_s == pytest.approx(stage.client.calls["batch_execute_statement"])


def test_outcomes_are_counted_by_their_reason() -> None:
    writes = [dynamo_kit.write(n) for n in range(7)] + [dynamo_kit.tombstone(n, 2) for n in (8, 9, 10)]
    reasons: list[Any] = [None, "newer", "equal", "tombstone", "unversioned", "missing", None, None]
    ours, later = (rules.document(dynamo_kit.tombstone(n, version), NAMES) for n, version in ((9, 2), (10, 3)))
    buried = [Outcome("tombstone", ours), Outcome("tombstone", later)]
    sent = Sent([*map(Outcome, reasons), *buried], 8.0, 900, 2, rejects={5: "too large"})
    sent.pressures[Pressure("table", "x")] = 3
    found = copying.tally_of(writes, sent, NAMES)
    counted = (found.written, found.newer, found.equal, found.tombstones, found.unversioned, found.buried)
    assert counted == (2, 1, 2, 2, 1, 1), "a tombstone that is there already is equal, one of a later deletion is not"
    assert (found.units, found.bytes, found.requests, found.refused_requests, found.digest.count) == (8.0, 900, 2, 3, 9)
    assert isinstance(found, Tally)
