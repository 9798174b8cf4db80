"""Leases under any history of workers that claim, come back, repeat and die: rows are counted once, and only their owner counts them."""

from __future__ import annotations

from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from dbops.backfill import journal
from dbops.backfill.records import Chunk, Rejected, Tally
from dbops.keyvalue.items import Digest
from tests.backfill.journal_kit import Clock, a_plan, some_chunks
from tests.backfill.pacing_kit import memory_engine

ENGINE: list[sa.Engine] = []
CHUNKS = 3


def tally_of(low: int, high: int) -> Tally:
    """Of the rows whose keys are above `low`, up to `high`."""
    numbers = range(low + 1, high + 1)
    return Tally(
        read=len(numbers),
        written=len(numbers),
        units=float(len(numbers)),
        digest=Digest.of(7**n % 2**64 for n in numbers),
    )


@dataclass(frozen=True)
class Held:
    """A chunk as a worker knows it; it may have been taken from it long ago."""

    worker: str
    chunk: Chunk

    @property
    def begin(self) -> int:
        return int(self.chunk.begin[0]) if self.chunk.begin else 0


class Leases(RuleBasedStateMachine):
    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        if not ENGINE:
            ENGINE.append(memory_engine())
        with ENGINE[0].begin() as connection:
            for table in ("plan", "chunk", "event", "reject", "sample"):
                connection.execute(sa.text(f"DELETE FROM backfill_{table}"))
        self.clock = Clock()
        self.journal = journal.Journal(ENGINE[0], self.clock)
        self.plan = a_plan(chunks=CHUNKS)
        self.journal.begin(self.plan, some_chunks(CHUNKS), 7)
        self.current: dict[int, tuple[int, int, str | None]] = dict.fromkeys(range(CHUNKS), (0, 0, None))
        """Chunk -> attempt, checkpoints and worker of its owner."""
        self.done: set[int] = set()

    def _owns(self, one: Held) -> bool:
        return self.current[one.chunk.number] == (one.chunk.attempt, one.chunk.checkpoints, one.worker)

    def _row(self, number: int) -> Chunk:
        return self.journal.chunks(self.plan.plan_id)[number]

    def _keep(self, one: Held, chunk: Chunk) -> Held:
        self.current[chunk.number] = (chunk.attempt, chunk.checkpoints, one.worker)
        return Held(one.worker, chunk)

    @rule(target=held, worker=st.sampled_from("abc"), span=st.sampled_from([None, (0, 1), (1, 3)]))
    def claim(self, worker: str, span: tuple[int, int] | None) -> object:
        now = self.clock.now
        free = {
            each.number
            for each in self.journal.chunks(self.plan.plan_id, ["planned"])
            if each.leased_until is None or each.leased_until <= now
        }
        chunk = self.journal.claim(self.plan.plan_id, worker, 10, span)
        assert (chunk.number in free) if chunk else not free
        if chunk is None:
            return multiple()
        attempt, checkpoints, _ = self.current[chunk.number]
        assert (chunk.attempt, chunk.checkpoints) == (attempt + 1, checkpoints)
        return self._keep(Held(worker, chunk), chunk)

    @rule(target=held, one=held, rows=st.integers(0, 4))
    def checkpoint(self, one: Held, rows: int) -> object:
        reached = min(one.begin + rows, int(one.chunk.high[0]))
        owns, before = self._owns(one), self._row(one.chunk.number)
        try:
            chunk = self.journal.checkpoint(one.chunk, one.worker, (str(reached),), tally_of(one.begin, reached), 10)
        except journal.LeaseLost:
            assert not owns or one.chunk.number in self.done
            assert self._row(one.chunk.number) == before
            return multiple()
        if owns:
            return self._keep(one, chunk)
        # its owner may repeat what was kept already
        assert self._row(chunk.number) == before
        assert (before.owner, before.attempt, before.reached) == (one.worker, one.chunk.attempt, (str(reached),))
        return multiple()

    @rule(one=held)
    def finish(self, one: Held) -> None:
        owns, number = self._owns(one), one.chunk.number
        before = self._row(number)
        try:
            chunk = self.journal.finish(one.chunk, one.worker, tally_of(one.begin, int(one.chunk.high[0])))
        except journal.LeaseLost:
            assert not owns or number in self.done
            assert self._row(number) == before
            return
        if owns:
            self._keep(one, chunk)
            self.done.add(number)
        else:
            assert self._row(number) == before
            assert (before.owner, before.attempt, before.state) == (one.worker, one.chunk.attempt, "done")

    @rule(one=held)
    def beat(self, one: Held) -> None:
        attempt, _, owner = self.current[one.chunk.number]
        owns = (attempt, owner) == (one.chunk.attempt, one.worker) and one.chunk.number not in self.done
        if owns:
            self.journal.beat(one.chunk, one.worker, 10)
        else:
            with pytest.raises(journal.LeaseLost):
                self.journal.beat(one.chunk, one.worker, 10)

    @rule(one=consumes(held))
    def release(self, one: Held) -> None:
        attempt, checkpoints, owner = self.current[one.chunk.number]
        self.journal.release(one.chunk, one.worker, "paused")
        if (attempt, owner) == (one.chunk.attempt, one.worker) and one.chunk.number not in self.done:
            self.current[one.chunk.number] = (attempt, checkpoints, None)

    @rule(seconds=st.sampled_from([1, 9, 10, 11]))
    def time_passes(self, seconds: int) -> None:
        self.clock.move(seconds)

    @rule(number=st.integers(0, CHUNKS - 1))
    def copy_again(self, number: int) -> None:
        self.journal.reject(self.plan.plan_id, number, [Rejected(("1",), "too large")])
        if number in self.done:
            self.journal.reopen(self.plan.plan_id, [number])
            attempt, checkpoints, _ = self.current[number]
            self.current[number] = (attempt, checkpoints + 1, None)
            self.done.discard(number)
        else:
            with pytest.raises(journal.JournalError, match="not all of the chunks"):
                self.journal.reopen(self.plan.plan_id, [number])

    @invariant()
    def rows_are_counted_once(self) -> None:
        for chunk in self.journal.chunks(self.plan.plan_id):
            low = int(chunk.low[0]) if chunk.low else 0
            reached = int(chunk.reached[0]) if chunk.reached else low
            kept = tally_of(low, reached)
            assert (chunk.tally.read, chunk.tally.written, chunk.tally.digest) == (kept.read, kept.written, kept.digest)
            assert (chunk.state == "done") == (chunk.number in self.done)
            assert chunk.state != "done" or (chunk.reached == chunk.high and chunk.leased_until is None)


Leases.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLeases = Leases.TestCase
