"""Differences of two snapshots, without a server: every reset is recognised and named, and nothing is counted twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.inventory.deltas import Delta, deltas, is_first_sight, resets
from dbops.inventory.model import Instance, Sighting, Snapshot, TableIo, TableRef

T0 = datetime(2026, 5, 4, 3, 0)
STARTED = T0 - timedelta(days=9)
ORDERS = TableRef("shop", "orders")


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def digest(key: str, executions: int, first: datetime = STARTED, **over: Any) -> Sighting:
    values = {"is_digest": True, "digest": key, "first_seen": first, "last_seen": first + timedelta(seconds=1), **over}
    return Sighting(
        "digest", key, f"SELECT `{key}`", executions=executions, counters={"total_ms": executions * 2.0}, **values
    )


def shot(minutes: float, *sightings: Sighting, started: datetime = STARTED, uuid: str = "u1", **over: Any) -> Snapshot:
    values: dict[str, Any] = {
        "event_counts": {}, "event_errors": 0, "digest_lost": 0, "null_row": 0, "table_io": (),
        "read": frozenset(("statements", "prepared", "programs", "table_io", "history")), **over,
    }  # fmt: skip
    return Snapshot(Instance("writer", "8.0.15", uuid, started, False, {}), at(minutes), sightings, **values)


def one(previous: Snapshot | None, current: Snapshot) -> Delta:
    (found,) = deltas(previous, current).items
    return found


def test_first_sight_is_kept_whole_with_the_window_that_the_server_gives_it() -> None:
    found = one(None, shot(0, digest("once", 1)))
    assert (found.executions, found.since, found.until, found.interval_s) == (
        1,
        STARTED,
        STARTED + timedelta(seconds=1),
        None,
    )


@pytest.mark.parametrize(
    ("seconds", "expected"), [(-60, True), (0.9, True), (1.1, False)], ids=["before", "rounded", "after"]
)
def test_another_server_is_new_only_if_it_started_after_the_previous_snapshot_beyond_doubt(
    seconds: float, expected: bool
) -> None:
    """Its start is computed from whole seconds of uptime: what it ran before would be taken for what ran in between."""
    current = shot(15, digest("a", 4), started=at(0) + timedelta(seconds=seconds), uuid="u2")
    assert is_first_sight(shot(0), current) is expected


def test_difference_with_counters_and_interval() -> None:
    found = one(shot(0, digest("a", 3)), shot(15, digest("a", 10, last_seen=at(14))))
    assert (found.executions, dict(found.counters), found.since, found.until) == (7, {"total_ms": 14.0}, at(0), at(14))
    assert found.interval_s == 900


def test_what_did_not_run_is_left_out() -> None:
    assert deltas(shot(0, digest("a", 3)), shot(15, digest("a", 3))).items == ()


def test_a_digest_that_is_new_between_two_snapshots_ran_in_between() -> None:
    found = one(shot(0), shot(15, digest("a", 4, at(3))))
    assert (found.executions, found.since, found.interval_s) == (4, at(3), 900)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ([digest("a", 5)], [digest("a", 2)], "1 counts went down"),
        ([digest("a", 5)], [digest("a", 5, at(1))], "1 FIRST_SEEN moved with counts not lower"),
        ([digest("a", 5)], [digest("a", 9, at(1))], "1 FIRST_SEEN moved with counts not lower"),
        ([digest("a", 5), digest("b", 1)], [digest("a", 5, at(1))], "1 rows vanished, 1 FIRST_SEEN moved"),
        ([digest("a", 5)], [], "1 rows vanished"),
    ],
)
def test_a_truncated_digest_table(before: list[Sighting], after: list[Sighting], reason: str) -> None:
    found = deltas(shot(0, *before), shot(15, *after))
    (reset,) = found.resets
    assert (reset.what, reset.reason.startswith(f"the digest table was truncated: {reason}")) == ("digests", True)
    assert [d.executions for d in found.items] == [s.executions for s in after]


def test_one_witness_resets_every_row_of_the_table() -> None:
    """Row b alone looks as if it went on: 5 -> 7. But rows are truncated together, so all of its 7 are new."""
    found = deltas(shot(0, digest("a", 5), digest("b", 5)), shot(15, digest("a", 1), digest("b", 7)))
    assert {d.sighting.key: d.executions for d in found.items} == {"a": 1, "b": 7}


def test_the_null_row_tells_too() -> None:
    found = deltas(shot(0, null_row=8), shot(15, null_row=3))
    assert [r.what for r in found.resets] == ["digests"]
    assert found.null_row == 3
    assert deltas(shot(0, null_row=8), shot(15, null_row=11)).null_row == 3


def test_restart_resets_everything_although_no_count_is_lower() -> None:
    before = shot(
        0, digest("a", 5), event_counts={"statement/sql/select": 5}, program_counts={"trigger s.t": 2}, null_row=1
    )
    after = shot(
        15,
        digest("a", 5),
        started=at(1),
        event_counts={"statement/sql/select": 5},
        program_counts={"trigger s.t": 2},
        null_row=1,
    )
    found = deltas(before, after)
    assert [r.what for r in found.resets] == ["server"]
    assert "it started at 2026-05-04 03:01:00 UTC" in str(found.resets[0])
    assert [d.executions for d in found.items] == [5]
    assert (found.event_counts, found.program_counts, found.null_row) == (
        {"statement/sql/select": 5},
        {"trigger s.t": 2},
        1,
    )


def test_another_server_behind_the_same_name() -> None:
    (reset,) = resets(shot(0), shot(15, uuid="u2"))
    assert str(reset) == "server: server_uuid is u2, was u1: another server answers"


@pytest.mark.parametrize("shift", [timedelta(seconds=1), timedelta(hours=1), -timedelta(hours=1)])
def test_a_start_that_only_seems_to_move_is_no_restart(shift: timedelta) -> None:
    """Uptime is in whole seconds, and clocks get set; a server that answered at the last snapshot did not start before it."""
    assert resets(shot(0, digest("a", 5)), shot(15, digest("a", 6), started=STARTED + shift)) == ()


def test_a_server_that_was_slow_to_answer_just_after_its_start_has_not_restarted() -> None:
    """Its Uptime was read 20 s after its clock: the start seemed earlier then than it does now."""
    before = shot(0, digest("a", 5), started=at(-40) - timedelta(seconds=20))
    now = shot(15, digest("a", 6), started=at(-40))
    assert resets(before, now) == ()
    assert one(before, now).executions == 1


def test_truncated_event_counters() -> None:
    before = shot(0, event_counts={"statement/sql/select": 50, "statement/sql/insert": 2})
    found = deltas(before, shot(15, event_counts={"statement/sql/select": 3}))
    assert [r.what for r in found.resets] == ["events"]
    assert found.event_counts == {"statement/sql/select": 3}


def test_a_source_that_was_not_read_says_nothing() -> None:
    found = deltas(shot(0, digest("a", 5), event_counts={"statement/sql/select": 5}), shot(15, read=frozenset()))
    assert (found.items, found.resets) == ((), ())


def test_prepared_statements_vanish_and_addresses_are_reused() -> None:
    def prepared(key: str, executions: int) -> Sighting:
        return Sighting("prepared", key, "SELECT ?", executions=executions)

    before = shot(0, prepared("h:7:1", 5), prepared("h:8:1", 9))
    found = deltas(before, shot(15, prepared("h:7:1", 6), prepared("h:9:1", 2)))
    assert {d.sighting.key: d.executions for d in found.items} == {"h:7:1": 1, "h:9:1": 2}
    assert found.resets == ()


def test_logs_are_portions_not_totals() -> None:
    entry = Sighting("slow_log", "f", "SELECT 1", executions=4, first_seen=at(1), last_seen=at(2))
    found = one(shot(0, entry), shot(15, entry))
    assert (found.executions, found.since, found.until) == (4, at(1), at(2))


def test_text_only_sources_are_told_when_new_or_seen_again() -> None:
    sample = Sighting("sample", "s", "SELECT 1", last_seen=at(1))
    assert one(None, shot(2, sample)).executions is None
    assert deltas(shot(2, sample), shot(15, sample)).items == ()
    assert one(shot(2, sample), shot(15, replace(sample, last_seen=at(9)))).until == at(9)


def test_table_io() -> None:
    def io(fetched: int, inserted: int, name: str = "orders") -> TableIo:
        return TableIo(TableRef("shop", name), None, fetched, inserted, 0, 0)

    (first,) = deltas(None, shot(0, table_io=(io(100, 3),))).table_io
    assert (first.fetched, first.inserted, first.since) == (100, 3, STARTED)
    (moved,) = deltas(shot(0, table_io=(io(100, 3),)), shot(15, table_io=(io(140, 3),))).table_io
    assert (moved.fetched, moved.inserted, moved.since, moved.now.fetched) == (40, 0, at(0), 140)
    assert deltas(shot(0, table_io=(io(100, 3),)), shot(15, table_io=(io(100, 3),))).table_io == ()
    (restarted,) = deltas(shot(0, table_io=(io(100, 3),)), shot(15, table_io=(io(100, 1),))).table_io
    assert (restarted.fetched, restarted.inserted) == (100, 1)
    (renamed,) = deltas(shot(0, table_io=(io(100, 3),)), shot(15, table_io=(io(2, 0, "orders_2"),))).table_io
    assert (renamed.now.table.table, renamed.fetched) == ("orders_2", 2)
    (unused,) = deltas(None, shot(0, table_io=(io(0, 0),))).table_io
    assert (unused.fetched, unused.inserted) == (0, 0)


class Server:
    """What a digest table does: counts, remembers the first time, and forgets everything at once."""

    def __init__(self) -> None:
        self.started = STARTED
        self.rows: dict[str, tuple[int, datetime]] = {}

    def run(self, key: str, times: int, moment: datetime) -> None:
        count, first = self.rows.get(key, (0, moment))
        self.rows[key] = (count + times, first)

    def snapshot(self, minutes: float) -> Snapshot:
        return shot(minutes, *(digest(key, *row) for key, row in self.rows.items()), started=self.started)


_RUN = st.tuples(st.sampled_from("ab"), st.integers(1, 3))
_STEP = st.one_of(_RUN, st.sampled_from(["truncate", "restart"]))


@given(st.lists(st.lists(_STEP, max_size=5), min_size=1, max_size=8))
def test_sums_are_what_the_server_still_showed(intervals: list[list[Any]]) -> None:
    """Whatever happens between snapshots, what ran after the last reset before a snapshot is counted, once."""
    server, previous, told, truth = Server(), None, 0, 0
    for number, steps in enumerate(intervals):
        shown = 0
        for second, step in enumerate(steps):
            moment = at(number * 15 + 1) + timedelta(seconds=second * 5)
            if isinstance(step, tuple):
                server.run(*step, moment)
                shown += step[1]
            else:
                server.rows, shown = {}, 0
                server.started = moment if step == "restart" else server.started
        truth += shown
        server.run("our own poll", 1, at(number * 15 + 14))
        current = server.snapshot(number * 15 + 15)
        found = deltas(previous, current)
        told += sum(d.executions or 0 for d in found.items if d.sighting.key != "our own poll")
        wanted = {step for step in steps if isinstance(step, str)} if previous else set()
        assert bool(found.resets) == bool(wanted)
        previous = current
    assert told == truth
