"""The journal: one worker a chunk, progress on top of progress, whole or not at all, and a repeated call changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import get_args

import pytest
import sqlalchemy as sa

from dbops import connections
from dbops.backfill import journal, tables
from dbops.backfill.records import Beat, Class, Compared, Difference, Event, Rejected, Tally
from dbops.keyvalue.items import Digest
from tests.backfill.journal_kit import NOW, TABLES, Clock, a_plan, a_tally, begun, empty, some_chunks

LEASE = 60.0


@pytest.fixture(params=["sqlite", pytest.param("mysql", marks=pytest.mark.lab)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    found = sa.create_engine(f"sqlite:///{tmp_path}/store.db") if request.param == "sqlite" else connections.engine()
    journal.Journal.open(found)
    if request.param == "mysql":
        empty(found)
    yield found
    found.dispose()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(engine: sa.Engine, clock: Clock) -> journal.Journal:
    return journal.Journal(engine, clock)


def claimed(kept: journal.Journal, plan_id: str, owner: str = "a", lease_s: float = LEASE) -> journal.Chunk:
    chunk = kept.claim(plan_id, owner, lease_s)
    assert chunk is not None
    return chunk


# Plans ------------------------------------------------------------------------------------------------------------------


def test_all_tables_are_made_and_opening_again_asks_once(engine: sa.Engine) -> None:
    seen: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    journal.Journal.open(engine)
    assert len(seen) == 1
    found = sa.inspect(engine).get_table_names()
    assert {f"backfill_{table}" for table in TABLES} | {journal.VERSION_TABLE} <= set(found)


def test_a_plan_comes_back_as_it_was_kept(kept: journal.Journal) -> None:
    plan = a_plan()
    kept.begin(plan, some_chunks(), 7)
    assert kept.plan(plan.plan_id) == plan == kept.open_plan("rides")
    assert kept.plans("rides") == [plan]
    assert kept.plans("rides", 0) == kept.plans("payments") == []
    assert [(c.number, c.low, c.high, c.planned_rows, c.state, c.tally) for c in kept.chunks(plan.plan_id)] == [
        (0, None, ("10",), 10, "planned", Tally()),
        (1, ("10",), ("20",), 10, "planned", Tally()),
        (2, ("20",), ("30",), 10, "planned", Tally()),
    ]
    assert kept.counts(plan.plan_id) == {"planned": 3, "done": 0, "rolled_back": 0, "leased": 0}


def test_a_second_open_plan_is_refused_and_leaves_nothing(kept: journal.Journal) -> None:
    first, second = a_plan(), a_plan()
    kept.begin(first, some_chunks(), 7)
    with pytest.raises(journal.PlanExists, match=first.plan_id) as refused:
        kept.begin(second, some_chunks(), 7)
    assert refused.value.plan_id == first.plan_id
    assert kept.chunks(second.plan_id) == []
    with pytest.raises(journal.JournalError, match=f"no plan '{second.plan_id}'"):
        kept.plan(second.plan_id)
    kept.set_state(first.plan_id, "abandoned", expected=["copying"])
    kept.begin(second, some_chunks(), 7)
    assert kept.open_plan("rides") == second
    with pytest.raises(journal.PlanExists, match=second.plan_id):
        kept.set_state(first.plan_id, "copying", expected=["abandoned"])
    assert kept.plan(first.plan_id).state == "abandoned"


def test_a_plan_that_is_kept_twice_is_kept_once(kept: journal.Journal) -> None:
    plan = a_plan()
    for _ in range(2):  # the acknowledgement of the first try was lost
        kept.begin(plan, some_chunks(), 7)
    assert len(kept.chunks(plan.plan_id)) == 3
    kept.set_state(plan.plan_id, "abandoned", expected=["copying"])
    with pytest.raises(journal.JournalError, match="make another plan_id"):
        kept.begin(plan, some_chunks(), 7)


def test_chunks_that_are_not_the_whole_plan_are_refused(kept: journal.Journal) -> None:
    plan, chunks = a_plan(), some_chunks()
    for wrong, why in (
        (chunks[:2], "2 chunks are given, the plan says 3"),
        ([chunks[0], chunks[2], chunks[1]], "chunk 2 begins at"),
        ([chunks[0], replace(chunks[1], low=("11",)), chunks[2]], "chunk 1 begins at"),
    ):
        with pytest.raises(journal.JournalError, match=why):
            kept.begin(plan, wrong, 7)
    assert kept.open_plan("rides") is None


def test_a_killed_begin_leaves_nothing(kept: journal.Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "INSERT_ROWS", 1)
    statements = 0

    def dies(*_: object) -> None:
        nonlocal statements
        statements += 1
        if statements == 3:
            raise KeyboardInterrupt

    sa.event.listen(kept.engine, "before_cursor_execute", dies)
    plan = a_plan()
    with pytest.raises(KeyboardInterrupt):
        kept.begin(plan, some_chunks(), 7)
    assert kept.open_plan("rides") is None
    assert kept.chunks(plan.plan_id) == []


def test_states_follow_each_other_and_are_noted(kept: journal.Journal, clock: Clock) -> None:
    plan = a_plan(chunks=1, state="planned")
    kept.begin(plan, some_chunks(1), 7)
    kept.set_state(plan.plan_id, "copying", expected=["planned", "copying"], run="backfill/r1")
    with pytest.raises(journal.JournalError, match="is copying, not planned: it cannot become copied"):
        kept.set_state(plan.plan_id, "copied", expected=["planned"])
    with pytest.raises(journal.JournalError, match="1 chunks are not so far"):
        kept.set_state(plan.plan_id, "copied", expected=["copying"])
    kept.finish(claimed(kept, plan.plan_id), "a", a_tally())
    kept.set_state(plan.plan_id, "copied", expected=["copying"], reason="all chunks are done")
    kept.set_state(plan.plan_id, "verified", expected=["copied"])
    with pytest.raises(journal.JournalError, match="1 chunks are not so far"):
        kept.set_state(plan.plan_id, "rolled_back", expected=["verified"])
    found = kept.plan(plan.plan_id)
    assert (found.state, found.closed_at) == ("verified", clock.now)
    assert kept.open_plan("rides") is None
    assert [(e.kind, e.reason, e.run) for e in kept.events(plan.plan_id)] == [
        ("state", "planned -> copying", "backfill/r1"),
        ("state", "copying -> copied: all chunks are done", ""),
        ("state", "copied -> verified", ""),
    ]


# Leases -----------------------------------------------------------------------------------------------------------------


def test_each_worker_gets_a_chunk_of_its_own_until_there_is_none(kept: journal.Journal) -> None:
    plan = a_plan()
    kept.begin(plan, some_chunks(), 7)
    found = [claimed(kept, plan.plan_id, owner) for owner in "abc"]
    assert sorted(chunk.number for chunk in found) == [0, 1, 2]
    assert [chunk.position for chunk in found] == [0, 1, 2]
    assert {(chunk.attempt, chunk.state, chunk.leased_until) for chunk in found} == {
        (1, "planned", NOW + timedelta(seconds=LEASE))
    }
    assert kept.claim(plan.plan_id, "d", LEASE) is None
    assert kept.live_leases(plan.plan_id) == 3


def test_cold_chunks_come_first_then_the_own_span(kept: journal.Journal) -> None:
    plan = a_plan(chunks=40)
    hot = tuple(range(0, 40, 2))
    kept.begin(plan, some_chunks(40, hot), 7)
    order = [claimed(kept, plan.plan_id) for _ in range(6)]
    assert [chunk.position for chunk in order] == [*range(6)]
    assert all(chunk.is_cold for chunk in order)
    assert [chunk.number for chunk in order] != sorted(chunk.number for chunk in order)
    spanned = kept.claim(plan.plan_id, "b", LEASE, (10, 20))
    assert spanned is not None
    assert spanned.position == 10
    of_hot = kept.claim(plan.plan_id, "b", LEASE, (30, 40))  # its span is hot, and cold ones are left
    assert of_hot is not None
    assert (of_hot.position, of_hot.is_cold) == (6, True)


def test_the_same_seed_gives_the_same_order(kept: journal.Journal) -> None:
    orders = []
    for spec, seed in (("x", 1), ("y", 1), ("z", 2)):
        plan = a_plan(spec, 20)
        kept.begin(plan, some_chunks(20), seed)
        orders.append([chunk.position for chunk in kept.chunks(plan.plan_id)])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[2]) == [*range(20)]


def test_progress_adds_up_and_ends_in_the_plan(kept: journal.Journal, clock: Clock) -> None:
    plan = a_plan(chunks=2)
    kept.begin(plan, some_chunks(2), 7)
    chunk = claimed(kept, plan.plan_id)
    clock.move(30)
    chunk = kept.checkpoint(chunk, "a", ("5",), a_tally(5, 2**64 - 1), LEASE)
    assert (chunk.reached, chunk.begin, chunk.leased_until) == (("5",), ("5",), clock.now + timedelta(seconds=LEASE))
    assert chunk == next(c for c in kept.chunks(plan.plan_id) if c.number == chunk.number)
    done = kept.finish(chunk, "a", a_tally(4, 3))
    assert (done.state, done.reached, done.done_at, done.leased_until) == ("done", done.high, clock.now, None)
    assert kept.chunks(plan.plan_id, ["done"]) == [done]
    assert done.tally == a_tally(5, 2**64 - 1) + a_tally(4, 3)
    other = kept.finish(claimed(kept, plan.plan_id), "a", replace(a_tally(1, 2**63), refused_requests=2))
    assert kept.tally(plan.plan_id) == done.tally + other.tally
    assert kept.tally(plan.plan_id).digest == Digest(10, 2 + 2**63)
    assert kept.tally("none") == Tally()


def test_a_worker_whose_lease_was_taken_keeps_nothing(kept: journal.Journal, clock: Clock) -> None:
    plan = a_plan(chunks=1)
    kept.begin(plan, some_chunks(1), 7)
    zombie = kept.checkpoint(claimed(kept, plan.plan_id, "a"), "a", ("3",), a_tally(3), LEASE)
    clock.move(LEASE)
    taken = claimed(kept, plan.plan_id, "b")
    assert (taken.attempt, taken.reached, taken.tally) == (2, ("3",), a_tally(3))
    for call in (
        lambda: kept.checkpoint(zombie, "a", ("9",), a_tally(6), LEASE),
        lambda: kept.finish(zombie, "a", a_tally(7)),
        lambda: kept.beat(zombie, "a", LEASE),
    ):
        with pytest.raises(journal.LeaseLost, match=r"attempt 1 of a: attempt 2 \(b\) has taken it"):
            call()
    kept.release(zombie, "a", "too late")
    assert kept.chunks(plan.plan_id) == [taken]
    assert kept.finish(taken, "b", a_tally(7)).tally.read == 10


def test_the_name_of_a_worker_is_no_licence(kept: journal.Journal, clock: Clock) -> None:
    """A task that is tried again may call itself as before."""
    plan = a_plan(chunks=1)
    kept.begin(plan, some_chunks(1), 7)
    before = claimed(kept, plan.plan_id, "a")
    clock.move(LEASE)
    again = claimed(kept, plan.plan_id, "a")
    with pytest.raises(journal.LeaseLost):
        kept.checkpoint(before, "a", ("3",), a_tally(), LEASE)
    kept.checkpoint(again, "a", ("3",), a_tally(), LEASE)


def test_a_lease_that_ran_out_but_was_not_taken_goes_on(kept: journal.Journal, clock: Clock) -> None:
    plan = a_plan(chunks=1)
    kept.begin(plan, some_chunks(1), 7)
    chunk = claimed(kept, plan.plan_id)
    clock.move(10 * LEASE)
    assert kept.live_leases(plan.plan_id) == 0
    kept.beat(chunk, "a", LEASE)
    assert kept.live_leases(plan.plan_id) == 1
    assert kept.claim(plan.plan_id, "b", LEASE) is None
    kept.checkpoint(chunk, "a", ("3",), a_tally(), LEASE)


def test_a_repeated_checkpoint_counts_once(kept: journal.Journal) -> None:
    plan = a_plan(chunks=1)
    kept.begin(plan, some_chunks(1), 7)
    chunk = claimed(kept, plan.plan_id)
    once = kept.checkpoint(chunk, "a", ("3",), a_tally(3), LEASE)
    assert kept.checkpoint(chunk, "a", ("3",), a_tally(3), LEASE) == once
    with pytest.raises(journal.LeaseLost, match="progress was kept 1 times, this worker knows of 0"):
        kept.checkpoint(chunk, "a", ("4",), a_tally(4), LEASE)
    done = kept.finish(once, "a", a_tally(7))
    assert kept.finish(once, "a", a_tally(7)) == done
    assert kept.tally(plan.plan_id).read == 10
    with pytest.raises(journal.LeaseLost, match="it is done"):
        kept.beat(done, "a", LEASE)


def test_what_is_given_back_is_free_at_once_with_what_it_reached(kept: journal.Journal) -> None:
    plan = a_plan(chunks=1)
    kept.begin(plan, some_chunks(1), 7)
    chunk = kept.checkpoint(claimed(kept, plan.plan_id), "a", ("3",), a_tally(3), LEASE)
    kept.release(chunk, "a", "paused by dba")
    again = claimed(kept, plan.plan_id, "b")
    assert (again.reached, again.attempt, again.error) == (("3",), 2, "paused by dba")
    assert kept.finish(again, "b", a_tally(7)).error == ""


def test_how_long_until_a_chunk_is_free(kept: journal.Journal, clock: Clock) -> None:
    plan = a_plan(chunks=2)
    kept.begin(plan, some_chunks(2), 7)
    assert kept.until_free(plan.plan_id) == 0
    first = claimed(kept, plan.plan_id, "a", 20)
    assert kept.until_free(plan.plan_id) == 0
    second = claimed(kept, plan.plan_id, "b", 30)
    assert kept.until_free(plan.plan_id) == 20
    clock.move(25)
    assert kept.until_free(plan.plan_id) == 0
    kept.finish(first, "a", Tally())
    kept.finish(second, "b", Tally())
    assert kept.until_free(plan.plan_id) is None


def test_a_plan_that_was_closed_stops_its_workers(kept: journal.Journal) -> None:
    plan = a_plan()
    kept.begin(plan, some_chunks(), 7)
    chunk = claimed(kept, plan.plan_id)
    kept.set_state(plan.plan_id, "abandoned", expected=["copying"])
    with pytest.raises(journal.JournalError, match="is abandoned: its chunks are not copied"):
        kept.claim(plan.plan_id, "b", LEASE)
    for call in (
        lambda: kept.checkpoint(chunk, "a", ("3",), a_tally(), LEASE),
        lambda: kept.finish(chunk, "a", a_tally()),
    ):
        with pytest.raises(journal.LeaseLost, match="the plan is abandoned"):
            call()


def test_chunks_are_copied_once_more(kept: journal.Journal) -> None:
    plan = a_plan(chunks=2)
    kept.begin(plan, some_chunks(2), 7)
    with pytest.raises(journal.JournalError, match="not all of the chunks"):
        kept.reopen(plan.plan_id, [0])
    for _ in range(2):
        kept.finish(claimed(kept, plan.plan_id), "a", a_tally(10))
    kept.reject(plan.plan_id, 1, [Rejected(("15",), "too large")])
    kept.set_state(plan.plan_id, "copied", expected=["copying"])
    kept.reopen(plan.plan_id, [1])
    assert kept.plan(plan.plan_id).state == "copying"
    assert kept.reject_count(plan.plan_id) == 0
    assert kept.events(plan.plan_id)[-1].reason == "chunks to be copied once more: 1"
    again = claimed(kept, plan.plan_id)
    assert (again.number, again.reached, again.begin, again.tally.read) == (1, None, ("10",), 0)
    assert (again.tally.units, again.tally.digest) == (15.0, Digest())
    kept.finish(again, "a", a_tally(10))
    total = kept.tally(plan.plan_id)
    assert (total.read, total.units, total.digest) == (20, 45.0, Digest(20, 2))
    kept.set_state(plan.plan_id, "abandoned", expected=["copying"])
    with pytest.raises(journal.JournalError, match="is closed"):
        kept.reopen(plan.plan_id, [1])


def test_chunks_with_rejects_are_copied_once_more_unless_somebody_has_them(kept: journal.Journal, clock: Clock) -> None:
    plan = a_plan(chunks=3)
    kept.begin(plan, some_chunks(3), 7)
    done = kept.finish(claimed(kept, plan.plan_id), "a", a_tally(10))
    half = claimed(kept, plan.plan_id)
    kept.checkpoint(half, "a", (str(int(half.high[0]) - 5),), a_tally(5), LEASE)
    for number in (done.number, half.number):
        kept.reject(plan.plan_id, number, [Rejected(("15",), "too large")])
    assert kept.reopen_rejected(plan.plan_id) == [done.number]
    assert kept.reject_count(plan.plan_id) == 1
    clock.move(LEASE + 1)
    assert kept.reopen_rejected(plan.plan_id) == [half.number]
    assert kept.reject_count(plan.plan_id) == 0
    assert [(each.state, each.reached, each.tally.read) for each in kept.chunks(plan.plan_id)] == [
        ("planned", None, 0)
    ] * 3
    assert kept.reopen_rejected(plan.plan_id) == []
    assert [each.kind for each in kept.events(plan.plan_id)].count("reopened") == 2
    kept.set_state(plan.plan_id, "abandoned", expected=["copying"])
    with pytest.raises(journal.JournalError, match="is closed"):
        kept.reopen_rejected(plan.plan_id)


def test_a_roll_back_takes_every_chunk_once(kept: journal.Journal, clock: Clock) -> None:
    plan = a_plan(chunks=2)
    kept.begin(plan, some_chunks(2), 7)
    kept.finish(claimed(kept, plan.plan_id), "a", a_tally(10))
    half = kept.checkpoint(claimed(kept, plan.plan_id), "a", ("13",), a_tally(3), LEASE)
    with pytest.raises(journal.JournalError, match="abandon it before it is rolled back"):
        kept.claim_roll_back(plan.plan_id, "b", LEASE)
    kept.set_state(plan.plan_id, "abandoned", expected=["copying"])
    first = kept.claim_roll_back(plan.plan_id, "b", LEASE)
    assert first is not None
    assert first.number != half.number
    assert kept.claim_roll_back(plan.plan_id, "b", LEASE) is None  # the copy may still be writing the other
    clock.move(LEASE)
    second = kept.claim_roll_back(plan.plan_id, "c", LEASE)
    assert second is not None
    kept.rolled_back(second, "c", 7, 3)
    clock.move(LEASE)
    again = kept.claim_roll_back(plan.plan_id, "d", LEASE)
    assert again is not None
    assert again.number not in {second.number}
    with pytest.raises(journal.LeaseLost):
        kept.rolled_back(first, "b", 1, 1)
    done = kept.rolled_back(again, "d", 3, 0)
    assert kept.rolled_back(again, "d", 3, 0) == done
    assert sorted((c.removed, c.kept, c.state) for c in kept.chunks(plan.plan_id)) == [
        (3, 0, "rolled_back"), (7, 3, "rolled_back"),
    ]  # fmt: skip
    kept.set_state(plan.plan_id, "rolled_back", expected=["abandoned"])


# What came of the rows, and what a person says ---------------------------------------------------------------------------


def test_a_reject_is_kept_once_a_key(kept: journal.Journal) -> None:
    first = [Rejected(("1", "_utf8mb4 X'41'"), "too large"), Rejected(("2", "X'42'"), "zero date")]
    kept.reject("p", 0, first)
    kept.reject("p", 0, [replace(first[0], reason="still too large")])
    kept.reject("p", 1, [Rejected(("3",), "NaN")])
    kept.reject("p", 1, [])
    assert kept.reject_count("p") == 3
    assert {(r.key, r.reason) for r in kept.rejects("p")} == {
        (("1", "_utf8mb4 X'41'"), "still too large"), (("2", "X'42'"), "zero date"), (("3",), "NaN"),
    }  # fmt: skip
    kept.clear_rejects("p", 0)
    assert [r.key for r in kept.rejects("p")] == [("3",)]


def test_events_come_in_order(kept: journal.Journal, clock: Clock) -> None:
    kept.note("p", Event("wait", "replica lag is 20 s, limit 10 s", 12.5, 2, run="backfill/r1"))
    clock.move(1)
    kept.note("p", Event("pressure", "password=secret", at=NOW - timedelta(hours=1)))
    first, second = kept.events("p")
    assert first == Event("wait", "replica lag is 20 s, limit 10 s", 12.5, 2, NOW, "backfill/r1")
    assert second.at == NOW - timedelta(hours=1)


def test_a_pause_holds_a_spec_or_all(kept: journal.Journal) -> None:
    assert kept.paused("rides") is None
    kept.pause("rides", "peak hour", "dba")
    kept.pause("rides", "peak hours", "dba2")
    assert kept.paused("rides") == "paused by dba2 at 2026-05-01 12:00:00 UTC: peak hours"
    assert kept.paused("payments") is None
    kept.unpause("rides")
    kept.unpause("rides")
    assert kept.paused("rides") is None
    kept.pause(journal.ALL_SPECS, "incident", "dba")
    assert "incident" in (kept.paused("payments") or "")


def test_an_approval_is_of_one_digest_and_can_be_withdrawn(kept: journal.Journal) -> None:
    plan = a_plan()
    kept.begin(plan, some_chunks(), 7)
    kept.approve(plan.plan_id, "abc", "Ann")
    assert kept.approved(plan.plan_id, "abc") == "Ann"
    assert kept.approved(plan.plan_id, "abd") is None
    kept.withdraw(plan.plan_id)
    assert kept.approved(plan.plan_id, "abc") is None
    kept.approve(plan.plan_id, "abc", "Ben")
    assert kept.approved(plan.plan_id, "abc") == "Ben"
    with pytest.raises(journal.JournalError, match="no plan"):
        kept.approve("none", "abc", "Ann")


def test_samples_come_once_a_minute(kept: journal.Journal, clock: Clock) -> None:
    plan = a_plan(chunks=1)
    kept.begin(plan, some_chunks(1), 7)
    chunk = claimed(kept, plan.plan_id)
    for second in range(0, 180, 20):
        chunk = kept.checkpoint(chunk, "a", (str(second),), replace(a_tally(1), refused_requests=1), LEASE)
        clock.move(20)
    kept.sample(plan.plan_id, exactly=True)
    journal.Journal(kept.engine, clock).sample(plan.plan_id)
    minute = NOW.replace(microsecond=0)
    assert kept.series(plan.plan_id) == [
        (minute, 0, 0.0, 0),
        (minute + timedelta(minutes=1), 3, 4.5, 3),
        (minute + timedelta(minutes=2), 6, 9.0, 6),
        (minute + timedelta(minutes=3), 9, 13.5, 9),
        (NOW + timedelta(minutes=3), 9, 13.5, 9),
    ]


def a_difference(key: str, classed: str = "missing", **changes: object) -> Difference:
    return replace(Difference(key, classed, "7", "", "no item"), **changes)  # type: ignore[arg-type]


def test_a_verification_is_gone_on_with_until_it_ends(kept: journal.Journal) -> None:
    plan = a_plan()
    kept.begin(plan, some_chunks(), 7)
    assert kept.verification(plan.plan_id) is None
    assert kept.differences(plan.plan_id) == []
    first = kept.begin_verification(plan.plan_id, "backfill/r1", "full")
    assert kept.begin_verification(plan.plan_id, "backfill/r1", "full") == first
    both = (a_difference("k1"), a_difference("k2"))
    kept.add_classes(first, Compared("forward", 0, {"equal": 8, "missing": 2}, differences=both, rejected=1))
    kept.add_classes(first, Compared("forward", 1, {"equal": 10}, name="newest", seconds=1.5, note="slow"))
    extra = (a_difference("k9", "extra"),)
    kept.add_classes(first, Compared("reverse", 0, {"equal": 19, "extra": 1}, differences=extra, foreign=4))
    # a part that is repeated replaces what it had kept
    again = Compared(
        "forward", 0, {"equal": 9, "missing": 1}, differences=both[1:], rejected=2, unread=3, looked_again=4
    )
    kept.add_classes(first, again)
    found = kept.verification(plan.plan_id)
    assert found is not None
    assert (found.verification_id, found.mode, found.ended_at, found.verdict) == (first, "full", None, "")
    assert found.counts["forward"] == {**dict.fromkeys(get_args(Class), 0), "equal": 19, "missing": 1}
    assert (found.rejected, found.foreign, found.bound) == (2, 4, None)
    parts = kept.compared(first)
    assert [(p.direction, p.part, p.seen, p.failing) for p in parts] == [
        ("forward", 0, 10, 1), ("forward", 1, 10, 0), ("reverse", 0, 20, 1),
    ]  # fmt: skip
    assert replace(parts[0], counts=again.counts, differences=again.differences) == again
    assert (parts[1].name, parts[1].seconds, parts[1].note) == ("newest", 1.5, "slow")
    assert [d.key for d in kept.differences(plan.plan_id)] == ["k2", "k9"]
    assert kept.differences(plan.plan_id, ["extra"]) == [a_difference("k9", "extra")]
    for _ in range(2):
        kept.end_verification(first, "differences", 0.01)
    assert kept.verification(plan.plan_id) == replace(found, verdict="differences", bound=0.01, ended_at=NOW)
    with pytest.raises(journal.JournalError, match="has ended: differences"):
        kept.end_verification(first, "clean")
    with pytest.raises(journal.JournalError, match="has ended; nothing was kept"):
        kept.add_classes(first, Compared("forward", 2, {"equal": 1}))
    second = kept.begin_verification(plan.plan_id, "backfill/r1", "full")
    assert second != first
    assert kept.differences(plan.plan_id) == []


def test_differences_are_looked_at_again(kept: journal.Journal) -> None:
    plan = a_plan()
    kept.begin(plan, some_chunks(), 7)
    found = kept.begin_verification(plan.plan_id, "r", "full")
    kept.set_differences(found, "forward", 0, [a_difference("k1", "source_newer"), a_difference("k2", "source_newer")])
    kept.set_differences(found, "forward", 0, [a_difference("k1", "source_newer", looks=2)])
    assert [(d.key, d.looks) for d in kept.differences(plan.plan_id)] == [("k1", 2), ("k2", 1)]
    kept.clear_differences(found, ["k1", "k3"])
    assert [d.key for d in kept.differences(plan.plan_id)] == ["k2"]


def test_what_applications_have_counted(kept: journal.Journal) -> None:
    minute = timedelta(minutes=1)
    with kept.engine.begin() as connection:
        for at in range(3):
            row = {
                "spec": "rides", "application": "booking", "instance": "host-1", "counts": {"writes": 3}, "is_last": at == 2,
                "counted_from": (NOW + at * minute).replace(tzinfo=None),
                "counted_to": (NOW + (at + 1) * minute).replace(tzinfo=None),
            }  # fmt: skip
            connection.execute(sa.insert(tables.COUNTER), row)
    first, *others = kept.beats("rides")
    assert first == Beat("booking", "host-1", NOW, NOW + minute, {"writes": 3})
    assert list(kept.beats("rides", NOW + minute)) == others
    assert [beat.is_last for beat in others] == [False, True]
    assert not list(kept.beats("payments"))
    assert kept.forget_beats("rides", NOW + 3 * minute) == 2
    assert list(kept.beats("rides")) == others[1:]
    assert kept.forget_beats("rides", NOW + 4 * minute) == 1  # of a process that has ended nothing stays
    assert not list(kept.beats("rides"))


def test_processes_that_fell_silent_are_found_however_long_ago(kept: journal.Journal) -> None:
    minute = timedelta(minutes=1)
    ends = {"crashed": [False, False], "ended": [False, True], "alive": [False, False, False]}
    with kept.engine.begin() as connection:
        for instance, lasts in ends.items():
            for at, is_last in enumerate(lasts):
                row = {
                    "spec": "rides", "application": "booking", "instance": instance, "counts": {"hits": 1}, "is_last": is_last,
                    "counted_from": (NOW + at * minute).replace(tzinfo=None),
                    "counted_to": (NOW + (at + 1) * minute).replace(tzinfo=None),
                }  # fmt: skip
                connection.execute(sa.insert(tables.COUNTER), row)
    assert kept.unended("rides", NOW + 2 * minute) == [
        Beat("booking", "crashed", NOW + minute, NOW + 2 * minute, {"hits": 1})
    ]
    assert [beat.instance for beat in kept.unended("rides", NOW + 3 * minute)] == ["crashed", "alive"]
    assert kept.unended("rides", NOW) == []
    assert kept.forget_beats("rides", NOW + 9 * minute) == 1 + 2 + 2
    assert [beat.instance for beat in kept.beats("rides")] == ["crashed", "alive"], "they may still serve reads"
    assert kept.forget_beats("rides", NOW + 9 * minute) == 0


def test_reports_of_many_processes_are_read_some_at_a_time(
    kept: journal.Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {
            "spec": "rides", "application": application, "instance": instance, "counts": {"writes": 3}, "is_last": False,
            "counted_from": NOW.replace(tzinfo=None), "counted_to": (NOW + at * timedelta(minutes=1)).replace(tzinfo=None),
        }
        for at in (1, 2, 3) for application in ("booking", "fleet") for instance in ("a", "b", "c")
    ]  # fmt: skip
    with kept.engine.begin() as connection:
        connection.execute(sa.insert(tables.COUNTER), rows)
    wanted = [(row["counted_to"], row["application"], row["instance"]) for row in rows]
    for size in (1, 2, 4, 18, 19):
        monkeypatch.setattr(journal, "_BEATS_AT_ONCE", size)
        found = kept.beats("rides")
        assert [(beat.at.replace(tzinfo=None), beat.application, beat.instance) for beat in found] == wanted
    asked: list[object] = []
    monkeypatch.setattr(journal, "_BEATS_AT_ONCE", 4)
    monkeypatch.setattr(kept, "_all", lambda query, ask=kept._all: asked.append(query) or ask(query))
    next(iter(kept.beats("rides")))
    assert len(asked) == 1


def test_begun_helps() -> None:
    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
    kept, plan = begun(engine, Clock())
    assert kept.open_plan("rides") == plan
