"""The pace: never faster than the rate over any interval, beyond a grant and what may be held; and not much slower either."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dbops.backfill import pacing
from dbops.backfill.brake import Held
from dbops.backfill.pacing import FLOOR, GRANT_S, HOLD_S, LIMIT_HOLD_S, RECOVERY, Bucket, State
from dbops.backfill.target import Pressure
from tests.backfill.journal_kit import NOW, Clock
from tests.backfill.pacing_kit import Work, excess, memory_engine, played

TABLE = Pressure("table", "TableWriteProvisionedThroughputExceeded", "rides")
THEN = NOW.replace(tzinfo=None)


@pytest.fixture(scope="module")
def engine() -> sa.Engine:
    return memory_engine()


def spending(steps: list[tuple[float, float]], eases: bool = False) -> Work:
    """Pauses and units."""

    def work(bucket: Bucket, wait, note) -> None:
        for number, (pause, units) in enumerate(steps):
            wait(pause)
            if eases and number % 5 == 4:
                bucket.eased(TABLE, units)
            bucket.spend(units)
            note(units)

    return work


def hungry(until: float, units: float) -> Work:
    def work(bucket: Bucket, wait, note) -> None:
        while bucket._monotonic() < until:
            bucket.spend(units)
            note(units)

    return work


steps = st.lists(
    st.tuples(st.sampled_from([0.0, 0.001, 0.2, 0.9, 1.1, 7.0]), st.integers(1, 2_000)), min_size=1, max_size=25
)


HOARDERS = [[(0.0, 1), (7.0 - GRANT_S * number, 160)] for number in range(6)]
"""More tasks than was said, which all come back at once with what is left of their grants."""


@settings(max_examples=60, deadline=None)
@given(
    st.lists(steps, min_size=1, max_size=5), st.sampled_from([10.0, 333.0, 5_000.0]), st.booleans(), st.integers(1, 300)
)
@example(HOARDERS, 333.0, False, 1)
def test_the_rate_holds_over_any_interval(engine, works, rate, eases, tasks) -> None:
    spent = played(engine, [rate] * len(works), [spending(each, eases) for each in works], tasks)
    assert len(spent) == sum(map(len, works))
    largest = max(rate * GRANT_S, *(units for each in works for _, units in each))
    assert excess(spent, rate) <= rate * HOLD_S + largest + 1e-3 * rate


@settings(max_examples=20, deadline=None)
@given(steps, steps, st.floats(1.0, 500.0), st.floats(1.0, 500.0))
def test_of_two_limits_the_lower_one_holds_while_both_write(engine, one, other, first, second) -> None:
    steps = [(min(pause, 1.0), units) for pause, units in one], [(min(pause, 1.0), units) for pause, units in other]
    spent = played(engine, [first, second], [spending(each) for each in steps])
    largest = max(500 * GRANT_S, *(units for each in steps for _, units in each))
    assert excess(spent, max(first, second)) <= max(first, second) * (HOLD_S + 1e-3) + largest


@pytest.mark.parametrize(
    ("rate", "tasks", "need"), [(500, 4, 25), (500, 16, 25), (40_000, 8, 75), (1_000, 1, 7), (50, 4, 25)]
)
def test_little_of_the_rate_is_lost(engine, rate, tasks, need) -> None:
    spent = played(engine, [rate] * tasks, [hungry(20, need)] * tasks)
    total = sum(units for at, units in spent if at <= 20)
    assert 0.93 * rate * 20 <= total <= rate * (20 + HOLD_S) + max(rate * GRANT_S, need)


def test_units_that_are_held_lapse(engine) -> None:
    """A task that has a grant and goes away does not come back with it."""
    work: Work = spending([(0, 1), (0.5, 1), (HOLD_S, 1)])
    grants = []

    def look(bucket: Bucket, wait, note) -> None:
        take = bucket._draw

        def draw(units: float) -> None:
            take(units)
            grants.append(bucket._monotonic())

        bucket._draw = draw
        work(bucket, wait, note)

    played(engine, [100], [look])
    assert len(grants) == 2


def test_idle_time_is_not_saved_up(engine) -> None:
    spent = played(engine, [100], [spending([(0, 10), (1_000, 50), (0, 50), (0, 50)])])
    assert excess(spent[1:], 100) <= 100 * HOLD_S + 50
    assert spent[3][0] - spent[1][0] >= 0.49


def test_a_task_that_dies_costs_its_own_stretch(engine) -> None:
    def dies(bucket: Bucket, wait, note) -> None:
        bucket._change(lambda state, now: bucket._granted(state, now, 50))

    spent = played(engine, [100, 100], [dies, hungry(10, 10)])
    assert sum(units for _, units in spent) >= 100 * 9


def bucket(engine: sa.Engine, clock: Clock, limit: float = 100, **more) -> Bucket:
    return Bucket(engine, f"test:{id(clock)}", limit, clock=clock, **more)


def test_a_store_that_turns_writes_away_halves_the_rate_once_a_second(engine) -> None:
    clock = Clock()
    one, other = bucket(engine, clock), bucket(engine, clock)
    one.spend(1)
    assert one.rate == 100
    for each in (one, other, one):
        each.eased(TABLE, 25)
    state, now = one.state()
    assert (state.rate(now), state.easings) == (50, 1)
    clock.move(10)
    other.spend(1)
    assert other.rate == 60  # 1 % of the limit a second
    assert other.state()[0].refused_units + one._refused_units == 75
    third = bucket(engine, clock)
    third.eased(TABLE, 0)
    assert third.state()[0].rate(now + timedelta(seconds=10)) == 30


def test_the_rate_never_falls_below_its_floor_and_comes_back() -> None:
    state, now = State(1_000, THEN, THEN), THEN
    for _ in range(30):
        state, now = state.halved(now), now + timedelta(seconds=1)
    assert FLOOR * 1_000 <= state.rate(now) <= (FLOOR + 2 * RECOVERY) * 1_000
    assert state.rate(now + timedelta(seconds=1 / RECOVERY)) == 1_000


def test_a_hot_range_of_keys_slows_nobody_else(engine) -> None:
    clock = Clock()
    one = bucket(engine, clock)
    one.spend(1)
    one.eased(Pressure("key_range", "TableWriteKeyRangeThroughputExceeded"), 25)
    state, now = one.state()
    assert (state.rate(now), state.easings) == (100, 0)


def test_a_lower_limit_ends_when_nobody_asks_for_it(engine) -> None:
    clock = Clock()
    high, low = bucket(engine, clock), bucket(engine, clock, 10)
    high.spend(1)
    low.spend(1)
    clock.move(30)
    high.spend(60)
    assert high.rate == 10
    clock.move(LIMIT_HOLD_S)
    high.spend(60)
    assert high.rate == 100


def test_what_would_take_too_long_is_refused_and_costs_nothing(engine) -> None:
    clock = Clock()
    one = bucket(engine, clock, max_wait_s=5, wait=lambda seconds: False)
    one.spend(1_000)
    before = one.state()
    with pytest.raises(Held, match=r"40 write units would have to wait 10 s at 100 units/s .* max_wait_s is 5") as held:
        one.spend(40)
    assert held.value.by == "limit"
    assert one.state() == before


def test_reads_and_writes_of_a_store_have_each_their_own_pace(engine) -> None:
    clock = Clock()
    writes, reads = (
        bucket(engine, clock),
        bucket(engine, clock, 50, kind="read", max_wait_s=5, wait=lambda seconds: False),
    )
    writes.spend(1_000)
    reads.spend(400)
    assert (writes.rate, reads.rate) == (100, 50)
    reads.eased(TABLE, 0)
    with pytest.raises(Held, match=r"9 read units would have to wait 8 s .*; raise limits.read_units_per_s"):
        reads.spend(9)
    assert writes.state()[0].easings == 0


def test_a_task_that_is_to_stop_does_not_wait(engine) -> None:
    clock, stop = Clock(), threading.Event()
    one = bucket(engine, clock, wait=stop.wait)
    one.spend(1_000)
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(Held, match="the task is to stop; 40 write units were not spent") as held:
        one.spend(40)
    assert held.value.by == "stop"
    with pytest.raises(Held, match="to stop"):
        one.spend(40)


@pytest.mark.parametrize("units", [-1, float("nan"), float("inf")])
def test_units_are_numbers(engine, units) -> None:
    with pytest.raises(ValueError, match="is no number of write units"):
        bucket(engine, Clock()).spend(units)
    with pytest.raises(ValueError, match="both have to be above 0"):
        bucket(engine, Clock(), 0)


def test_the_row_says_what_was_granted(engine) -> None:
    clock = Clock()
    one = bucket(engine, clock, tasks=2)
    one.spend(5)
    state, _ = one.state()
    assert (state.limit, state.granted_units, state.free_at) == (100, 25, THEN + timedelta(seconds=0.25))
    assert pacing.BUCKET.name == "backfill_bucket"
