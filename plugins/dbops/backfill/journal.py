"""The journal of backfills in the store (tables ``backfill_*``): plans, chunks with their leases, what became of the rows, verifications.

A killed run goes on from it, and any number of workers use it at once. A chunk belongs to the worker that claimed it last. Each claim
counts up ``attempt``, each checkpoint counts up ``checkpoints``, and progress is kept only on top of the counts that its writer knows: a
worker that comes back after its lease was taken keeps nothing, and a checkpoint whose acknowledgement was lost can be repeated.

What touches one row is one statement that commits by itself: a worker whose host vanishes leaves no lock behind. What touches several is
one transaction. Both are repeated after a deadlock and after a lost connection. Times are those of the database, because the clocks of
workers differ; they are kept as naive UTC and given back with UTC.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import sqlalchemy as sa

from dbops import keys, store
from dbops.backfill import tables
from dbops.backfill.records import (
    CLOSED,
    Beat,
    Chunk,
    ChunkState,
    Class,
    Compared,
    Difference,
    Direction,
    Event,
    Plan,
    PlannedChunk,
    PlanState,
    Rejected,
    Tally,
    Verification,
)
from dbops.backfill.tables import (
    APPROVAL,
    CHUNK,
    COUNTER,
    DIFFERENCE,
    EVENT,
    PART,
    PAUSE,
    PLAN,
    REJECT,
    SAMPLE,
    VERIFICATION,
    aware_or_none,
)
from dbops.keys import Key
from dbops.store import aware, kept_text, naive

T = TypeVar("T")
Verdict = Literal["clean", "differences", "unfinished"]
MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "dbops_backfill_version"
ALL_SPECS = "*"
"""In place of a spec: a pause of all backfills."""
COPYING: tuple[PlanState, ...] = ("planned", "copying")
"""Plans of which chunks are copied."""
_ALL_DONE: tuple[PlanState, ...] = ("copied", "verified")
"""Plans of which no chunk is left to copy."""
_ANEW: dict[str, Any] = {**dict.fromkeys((*tables.OUTCOMES.values(), *tables.DIGEST), 0), "reached_key": None}
"""A chunk that is copied once more."""
_BEATS_AT_ONCE = 5_000
_AT_ONCE = 16  # candidates of a claim; of more workers than that, some look twice
_ROUNDS = 200


class JournalError(RuntimeError):
    """The journal refuses what is asked for: what it holds does not allow it. Nothing was changed."""


class PlanExists(JournalError):
    """Another plan of the spec is open; ``plan_id`` names it."""

    def __init__(self, spec: str, plan_id: str) -> None:
        super().__init__(f"spec {spec} has the open plan {plan_id}; go on with it, or abandon it first")
        self.plan_id = plan_id


class LeaseLost(JournalError):
    """Somebody else has the chunk, or nobody may work on it any more. What was written to the store stays, and is right there."""


class Journal:
    """Reads and writes the journal. Instances are cheap, and safe to use from several threads; the engine pools the connections.

    Args:
        engine: of the store
        clock: the time, in tests; None: the database's
    """

    def __init__(self, engine: sa.Engine, clock: Callable[[], datetime] | None = None) -> None:
        self.engine, self.clock = engine, clock
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._sampled: dict[str, datetime] = {}

    @classmethod
    def open(cls, engine: sa.Engine, clock: Callable[[], datetime] | None = None) -> Journal:
        """The journal with its tables made or upgraded; one query when they are current."""
        store.migrate(engine, MIGRATIONS, VERSION_TABLE)
        return cls(engine, clock)

    # Plans --------------------------------------------------------------------------------------------------------------

    def begin(self, plan: Plan, chunks: Iterable[PlannedChunk], shuffle_seed: int) -> None:
        """Keep a plan with its chunks, whole or not at all.

        Args:
            plan: as made
            chunks: in key order, each beginning where the one before ends
            shuffle_seed: gives the order in which chunks are taken: cold ones first, shuffled, because rows in key order would
                load one partition of the store after the other

        Raises:
            PlanExists: another plan of the spec is open
            JournalError: the chunks are not the whole plan
        """
        planned = list(chunks)
        _check_chunks(plan, planned)
        rows = [tables.planned_row(plan.plan_id, each, at) for each, at in _positions(planned, shuffle_seed)]

        def keep(connection: sa.Connection) -> None:
            connection.execute(sa.insert(PLAN), tables.plan_row(plan, shuffle_seed))
            for start in range(0, len(rows), tables.INSERT_ROWS):
                connection.execute(sa.insert(CHUNK), rows[start : start + tables.INSERT_ROWS])

        try:
            self._transaction(keep)
        except sa.exc.IntegrityError as error:
            if not store.is_duplicate(error):
                raise
            self._refuse_second(plan, error)

    def _refuse_second(self, plan: Plan, error: Exception) -> None:
        found = self.open_plan(plan.spec)
        if found is None:
            raise JournalError(f"plan {plan.plan_id} is in the journal already; make another plan_id") from error
        if found.plan_id != plan.plan_id or found.rule_digest != plan.rule_digest:
            raise PlanExists(plan.spec, found.plan_id) from error
        # the acknowledgement of the first try was lost

    def open_plan(self, spec: str) -> Plan | None:
        """The plan of the spec that is neither verified, rolled back nor abandoned."""
        found = self._all(sa.select(PLAN).where(PLAN.c.open_spec == spec))
        return tables.read_plan(found[0]) if found else None

    def plan(self, plan_id: str) -> Plan:
        """A plan. Raises JournalError when there is none of this id."""
        found = self._all(sa.select(PLAN).where(PLAN.c.plan_id == plan_id))
        if not found:
            raise JournalError(
                f"the journal has no plan {plan_id!r}; see SELECT plan_id, spec, state FROM backfill_plan"
            )
        return tables.read_plan(found[0])

    def plans(self, spec: str, limit: int = 30) -> list[Plan]:
        """The newest plans of a spec, newest first."""
        query = sa.select(PLAN).where(PLAN.c.spec == spec).order_by(PLAN.c.made_at.desc(), PLAN.c.plan_id.desc())
        return [tables.read_plan(row) for row in self._all(query.limit(limit))]

    def set_state(
        self, plan_id: str, state: PlanState, *, expected: Collection[PlanState], run: str = "", reason: str = ""
    ) -> None:
        """Change the state of a plan, and note it as an event.

        Args:
            plan_id: of the plan
            state: the new one; ``copied`` and ``rolled_back`` need every chunk to be so
            expected: states that it may be in now; give the new one, too, where a repeated call is no error
            run: dag_id/run_id
            reason: why, for the reader of the events

        Raises:
            JournalError: it is in another state, or a chunk is not so far
            PlanExists: it would be open again, and another one is
        """
        found = self.plan(plan_id)
        unfinished = sa.select(CHUNK.c.chunk_no).where(CHUNK.c.plan_id == plan_id, CHUNK.c.state.in_(_before(state)))
        mine = (PLAN.c.plan_id == plan_id, PLAN.c.state.in_(expected), ~sa.exists(unfinished))

        def change(connection: sa.Connection) -> bool:
            now = self._now(connection)
            is_closed = state in CLOSED
            values = {"state": state, "open_spec": None if is_closed else found.spec}
            closed_at = sa.func.coalesce(PLAN.c.closed_at, now) if is_closed else None
            done = connection.execute(sa.update(PLAN).where(*mine).values(**values, closed_at=closed_at))
            if not done.rowcount:
                return False
            said = f"{found.state} -> {state}{f': {reason}' if reason else ''}"
            connection.execute(sa.insert(EVENT), tables.event_row(plan_id, Event("state", said, run=run), now))
            return True

        try:
            if self._transaction(change):
                return
        except sa.exc.IntegrityError as error:
            other = self.open_plan(found.spec)
            raise PlanExists(found.spec, other.plan_id if other else "?") from error
        self._refuse_state(plan_id, state, expected)

    def _refuse_state(self, plan_id: str, state: PlanState, expected: Collection[PlanState]) -> None:
        now = self.plan(plan_id).state
        if now not in expected:
            raise JournalError(
                f"plan {plan_id} is {now}, not {' or '.join(sorted(expected))}: it cannot become {state}"
            )
        left = sum(self.counts(plan_id)[each] for each in _before(state))
        raise JournalError(f"plan {plan_id} cannot become {state}: {left} chunks are not so far")

    # Chunks -------------------------------------------------------------------------------------------------------------

    def claim(self, plan_id: str, owner: str, lease_s: float, span: tuple[int, int] | None = None) -> Chunk | None:
        """Take the next chunk to copy: cold ones first, then those of the own span, then by position.

        Args:
            plan_id: of the plan
            owner: names the worker in messages
            lease_s: seconds until somebody else may take it, unless it is renewed by :meth:`checkpoint` or :meth:`beat`
            span: own positions [first, end): workers that begin elsewhere do not meet

        Returns:
            The chunk, as far as it was copied; None when no planned chunk is without a live lease (see :meth:`until_free`), and when
            another worker has seen the copy to its end.

        Raises:
            JournalError: the plan is not being copied
        """
        state = self.plan(plan_id).state
        if state in _ALL_DONE:
            return None
        if state not in COPYING:
            raise JournalError(f"plan {plan_id} is {state}: its chunks are not copied")
        return self._claim(plan_id, owner, lease_s, span, ("planned",), _plan_is(plan_id, COPYING))

    def claim_roll_back(
        self, plan_id: str, owner: str, lease_s: float, span: tuple[int, int] | None = None
    ) -> Chunk | None:
        """Take the next chunk whose items are to be removed, copied or not, as :meth:`claim` does.

        Raises:
            JournalError: the plan is open, so its chunks are still being copied: abandon it first
        """
        state = self.plan(plan_id).state
        if state not in CLOSED:
            raise JournalError(f"plan {plan_id} is {state}: abandon it before it is rolled back")
        return self._claim(plan_id, owner, lease_s, span, ("planned", "done"), _plan_is(plan_id, sorted(CLOSED)))

    def _claim(
        self, plan_id: str, owner: str, lease_s: float, span: tuple[int, int] | None, states: tuple[ChunkState, ...],
        while_: sa.ColumnElement[bool],
    ) -> Chunk | None:  # fmt: skip
        for _ in range(_ROUNDS):
            now = self._time()
            candidates = self._candidates(plan_id, span, states, now)
            if not candidates:
                return None
            until = now + timedelta(seconds=lease_s)
            values = {"owner": owner, "claimed_at": now, "leased_until": until, "attempt": CHUNK.c.attempt + 1}
            for each in candidates:
                # As it was read: the owner before may have kept progress meanwhile, without renewing its claim.
                as_read = (*_of(each), CHUNK.c.state == each.state, _is_free(now), while_)
                if self._change(sa.update(CHUNK).where(*as_read).values(**values)):
                    return replace(each, owner=owner, leased_until=aware(until), attempt=each.attempt + 1)
        raise JournalError(f"plan {plan_id}: chunks change hands faster than they can be claimed; start fewer tasks")

    def _candidates(
        self, plan_id: str, span: tuple[int, int] | None, states: tuple[ChunkState, ...], now: datetime
    ) -> list[Chunk]:
        """A few chunks that are free, the best one first."""
        first, end = span or (0, 0)
        own = (CHUNK.c.position >= first, CHUNK.c.position < end)
        found: dict[int, Chunk] = {}
        for state in states:  # one after the other, so that the index gives the order
            free = sa.select(CHUNK).where(CHUNK.c.plan_id == plan_id, CHUNK.c.state == state, _is_free(now))
            for query in (free, *([free.where(*own)] if span else [])):
                for row in self._all(query.order_by(CHUNK.c.position).limit(_AT_ONCE)):
                    found[row.chunk_no] = tables.read_chunk(row)
        return sorted(
            found.values(), key=lambda each: (not each.is_cold, not first <= each.position < end, each.position)
        )

    def checkpoint(self, chunk: Chunk, owner: str, reached: Key, tally: Tally, lease_s: float) -> Chunk:
        """Keep how far a chunk is copied, after the store has acknowledged it, and renew the lease.

        Args:
            chunk: as the last claim or checkpoint gave it back
            owner: who claimed it
            reached: rows up to this key are done
            tally: what came since the last checkpoint
            lease_s: seconds from now

        Raises:
            LeaseLost: somebody else has it, or the plan is closed
        """
        now = self._time()
        self._sample_each_minute(chunk.plan_id, now)
        until = now + timedelta(seconds=lease_s)
        values = {"reached_key": keys.dump(reached), "leased_until": until}
        return self._progress(chunk, owner, values, chunk.tally + tally, "planned")

    def finish(self, chunk: Chunk, owner: str, tally: Tally) -> Chunk:
        """The chunk is copied. `tally` is what came since the last checkpoint.

        Raises:
            LeaseLost: somebody else has it, or the plan is closed
        """
        now = self._time()
        self._sample_each_minute(chunk.plan_id, now)
        values = {"reached_key": keys.dump(chunk.high), "leased_until": None, "done_at": now, "error": ""}
        return self._progress(chunk, owner, values, chunk.tally + tally, "done")

    def _progress(self, chunk: Chunk, owner: str, values: dict[str, Any], tally: Tally, state: ChunkState) -> Chunk:
        changes = {**values, **tables.tally_row(tally), "state": state, "checkpoints": chunk.checkpoints + 1}
        mine = (*_of(chunk), CHUNK.c.owner == owner, CHUNK.c.state == "planned", _plan_is(chunk.plan_id, COPYING))
        if not self._change(sa.update(CHUNK).where(*mine).values(**changes)):
            self._refuse_lost(chunk, owner, reached=values["reached_key"], state=state)
        until = values["leased_until"]
        return replace(
            chunk, reached=keys.parse(values["reached_key"]), leased_until=aware(until) if until else None, tally=tally,
            state=state, checkpoints=chunk.checkpoints + 1, done_at=aware_or_none(values.get("done_at")),
            error=values.get("error", chunk.error),
        )  # fmt: skip

    def beat(self, chunk: Chunk, owner: str, lease_s: float) -> None:
        """Renew the lease without progress, while a page takes long.

        Raises:
            LeaseLost: somebody else has it, or it is done
        """
        until = self._time() + timedelta(seconds=lease_s)
        mine = (*_of(chunk, with_checkpoints=False), CHUNK.c.owner == owner, CHUNK.c.leased_until.is_not(None))
        if not self._change(sa.update(CHUNK).where(*mine).values(leased_until=until)):
            self._refuse_lost(chunk, owner)

    def release(self, chunk: Chunk, owner: str, error: str = "", *, again: bool = False) -> None:
        """Give a chunk back with what it has reached; nothing happens when somebody else has it.

        Args:
            chunk: as claimed
            owner: who claimed it
            error: why, if it is not just a pause
            again: what it has reached is forgotten, and its rows are counted anew
        """
        mine = (*_of(chunk, with_checkpoints=False), CHUNK.c.owner == owner, CHUNK.c.leased_until.is_not(None))
        values: dict[str, Any] = {"owner": None, "leased_until": None, "error": kept_text(error)}
        if again:
            values |= {**_ANEW, "checkpoints": CHUNK.c.checkpoints + 1}
        self._change(sa.update(CHUNK).where(*mine).values(**values))

    def rolled_back(self, chunk: Chunk, owner: str, removed: int, kept: int) -> Chunk:
        """The items of a chunk are removed. A killed attempt is repeated, and what it had removed is not counted then.

        Args:
            chunk: from :meth:`claim_roll_back`
            owner: who claimed it
            removed: items taken out
            kept: items left, because somebody has changed them since

        Raises:
            LeaseLost: somebody else has it
        """
        changes = {
            "state": "rolled_back", "leased_until": None, "rows_removed": removed, "rows_kept": kept, "error": "",
            "checkpoints": chunk.checkpoints + 1,
        }  # fmt: skip
        mine = (*_of(chunk), CHUNK.c.owner == owner, CHUNK.c.state == chunk.state)
        if not self._change(sa.update(CHUNK).where(*mine).values(**changes)):
            self._refuse_lost(chunk, owner, reached=keys.dump(chunk.reached), state="rolled_back")
        return replace(
            chunk, state="rolled_back", leased_until=None, removed=removed, kept=kept, error="",
            checkpoints=chunk.checkpoints + 1,
        )  # fmt: skip

    def _refuse_lost(
        self, chunk: Chunk, owner: str, *, reached: str | None = None, state: ChunkState | None = None
    ) -> None:
        """Say who has the chunk; or nothing, when this very change is there: its acknowledgement was lost."""
        row = self._all(sa.select(CHUNK).where(CHUNK.c.plan_id == chunk.plan_id, CHUNK.c.chunk_no == chunk.number))
        found = tables.read_chunk(row[0]) if row else None
        what = f"chunk {chunk.number} of plan {chunk.plan_id}, attempt {chunk.attempt} of {owner}"
        if found is None:
            raise LeaseLost(f"{what}: the journal has no such chunk")
        as_changed = (owner, chunk.attempt, chunk.checkpoints + 1, reached, state)
        if (found.owner, found.attempt, found.checkpoints, keys.dump(found.reached), found.state) == as_changed:
            return
        plan = self.plan(chunk.plan_id)
        if found.attempt != chunk.attempt:
            reason = f"attempt {found.attempt} ({found.owner or 'given back'}) has taken it"
        elif found.owner != owner:
            reason = f"it belongs to {found.owner or 'nobody'}"
        elif found.state != chunk.state or found.leased_until is None:
            reason = f"it is {found.state} and nobody's"
        elif plan.state not in COPYING:
            reason = f"the plan is {plan.state}"
        else:
            reason = f"progress was kept {found.checkpoints} times, this worker knows of {chunk.checkpoints}"
        raise LeaseLost(f"{what}: {reason}. Nothing was kept; what it wrote to the store stays")

    def reopen(self, plan_id: str, numbers: Collection[int]) -> None:
        """Have chunks copied once more from their begin: a verification wants them again.

        Their rows are counted anew, and their rejects forgotten; units, requests and seconds go on. A plan that was copied is being
        copied again.

        Raises:
            JournalError: the plan is closed, or one of them is not done
        """
        wanted = sorted(set(numbers))

        def again(connection: sa.Connection) -> None:
            _copy_again(connection, plan_id)
            for start in range(0, len(wanted), tables.INSERT_ROWS):
                some = wanted[start : start + tables.INSERT_ROWS]
                if _from_begin(connection, plan_id, some, CHUNK.c.state == "done") != len(some):
                    raise JournalError(f"plan {plan_id}: not all of the chunks {some} are done; nothing was reopened")
            _say_reopened(connection, plan_id, wanted, self._now(connection))

        self._transaction(again)

    def reopen_rejected(self, plan_id: str) -> list[int]:
        """Have chunks with rejects copied once more from their begin, unless somebody works on them: rows or spec were corrected.

        Returns:
            their numbers

        Raises:
            JournalError: the plan is closed
        """

        def again(connection: sa.Connection) -> list[int]:
            _copy_again(connection, plan_id)
            query = sa.select(REJECT.c.chunk_no).where(REJECT.c.plan_id == plan_id).distinct()
            now = self._now(connection)
            done = [
                number
                for number in sorted(connection.execute(query).scalars())
                if _from_begin(connection, plan_id, [number], CHUNK.c.state.in_(("planned", "done")), _is_free(now))
            ]
            if done:
                _say_reopened(connection, plan_id, done, now)
            return done

        return self._transaction(again)

    def counts(self, plan_id: str) -> dict[str, int]:
        """State of a chunk -> how many; all states are there. ``leased`` counts live leases of chunks in any state."""
        query = sa.select(CHUNK.c.state, sa.func.count()).where(CHUNK.c.plan_id == plan_id).group_by(CHUNK.c.state)
        found = dict.fromkeys(get_args(ChunkState), 0) | {str(state): int(n) for state, n in self._all(query)}
        return {**found, "leased": self.live_leases(plan_id)}

    def tally(self, plan_id: str) -> Tally:
        """What became of all rows of a plan so far."""
        columns = [sa.func.sum(CHUNK.c[name]).label(name) for name in (*tables.TALLY.values(), *tables.DIGEST)]
        (row,) = self._all(sa.select(*columns).where(CHUNK.c.plan_id == plan_id))
        return tables.read_tally(row)

    def chunks(self, plan_id: str, states: Collection[ChunkState] | None = None) -> list[Chunk]:
        """Chunks in key order, of some states or of all."""
        query = sa.select(CHUNK).where(CHUNK.c.plan_id == plan_id).order_by(CHUNK.c.chunk_no)
        if states is not None:
            query = query.where(CHUNK.c.state.in_(states))
        return [tables.read_chunk(row) for row in self._all(query)]

    def live_leases(self, plan_id: str) -> int:
        """Chunks that somebody works on."""
        live = (CHUNK.c.plan_id == plan_id, CHUNK.c.leased_until > self._time())
        return int(self._one(sa.select(sa.func.count()).select_from(CHUNK).where(*live)))

    def until_free(self, plan_id: str, states: Collection[str] = ("planned",)) -> float | None:
        """Seconds until a planned chunk, or one of these states, can be claimed at the latest; None when there is none."""
        until = CHUNK.c.leased_until
        planned = (CHUNK.c.plan_id == plan_id, CHUNK.c.state.in_(states))
        ((all_of_them, with_lease, earliest),) = self._all(
            sa.select(sa.func.count(), sa.func.count(until), sa.func.min(until)).where(*planned)
        )
        if not all_of_them:
            return None
        return 0.0 if with_lease < all_of_them else max(0.0, (earliest - self._time()).total_seconds())

    # Progress over time -------------------------------------------------------------------------------------------------

    def sample(self, plan_id: str, *, exactly: bool = False) -> None:
        """Keep how far the plan is, for charts: once a minute, unless it is asked for exactly now."""
        now = self._time()
        at = now if exactly else now.replace(second=0, microsecond=0)
        self._sampled[plan_id] = now.replace(second=0, microsecond=0)
        known = sa.select(SAMPLE.c.plan_id).where(SAMPLE.c.plan_id == plan_id, SAMPLE.c.sampled_at == at)
        if self._all(known):
            return
        done = self.tally(plan_id)
        figures = dict(zip(tables.SUMS, (done.read, done.units, done.refused_requests), strict=True))
        self._enter(SAMPLE, {"plan_id": plan_id, "sampled_at": at, **figures})

    def _sample_each_minute(self, plan_id: str, now: datetime) -> None:
        if self._sampled.get(plan_id) != now.replace(second=0, microsecond=0):
            self.sample(plan_id)

    def series(self, plan_id: str) -> list[tuple[datetime, int, float, int]]:
        """(when, rows done, write units, requests turned away) since the begin, oldest first."""
        query = sa.select(SAMPLE).where(SAMPLE.c.plan_id == plan_id).order_by(SAMPLE.c.sampled_at)
        return [
            (aware(row.sampled_at), int(row.rows_done), float(row.write_units), int(row.refused_requests))
            for row in self._all(query)
        ]

    # Rows that cannot be items ------------------------------------------------------------------------------------------

    def reject(self, plan_id: str, chunk_number: int, rejected: Sequence[Rejected]) -> None:
        """Keep rows that cannot be items. The same row of a chunk is kept once, with the reason that came last."""
        if not rejected:
            return

        def keep(connection: sa.Connection) -> None:
            now = self._now(connection)
            rows = [
                {
                    "plan_id": plan_id, "chunk_no": chunk_number, "key_hash": tables.key_hash(text := keys.dump(each.key) or ""),
                    "row_key": text, "reason": kept_text(each.reason), "noted_at": now,
                }
                for each in rejected
            ]  # fmt: skip
            tables.upsert(connection, REJECT, ("plan_id", "chunk_no", "key_hash"), rows)

        self._transaction(keep)

    def rejects(self, plan_id: str) -> list[Rejected]:
        """Rows that cannot be items, by chunk."""
        query = sa.select(REJECT).where(REJECT.c.plan_id == plan_id)
        rows = self._all(query.order_by(REJECT.c.chunk_no, REJECT.c.key_hash))
        return [Rejected(keys.parse(row.row_key) or (), row.reason) for row in rows]

    def reject_count(self, plan_id: str) -> int:
        """How many rows cannot be items."""
        return int(self._one(sa.select(sa.func.count()).select_from(REJECT).where(REJECT.c.plan_id == plan_id)))

    def clear_rejects(self, plan_id: str, chunk_number: int) -> None:
        """Forget the rejects of a chunk, before it is read from its begin."""
        mine = (REJECT.c.plan_id == plan_id, REJECT.c.chunk_no == chunk_number)
        self._change(sa.delete(REJECT).where(*mine))

    # Events, pauses, approvals ------------------------------------------------------------------------------------------

    def note(self, plan_id: str, event: Event) -> None:
        """Keep something that a person should know."""
        self._change(sa.insert(EVENT).values(**tables.event_row(plan_id, event, self._time())))

    def events(self, plan_id: str) -> list[Event]:
        """All events of a plan in the order in which they were noted."""
        query = sa.select(EVENT).where(EVENT.c.plan_id == plan_id).order_by(EVENT.c.event_id)
        return [
            Event(row.kind, row.reason, float(row.seconds), int(row.times), aware(row.noted_at), row.run)
            for row in self._all(query)
        ]

    def pause(self, spec: str, reason: str, who: str) -> None:
        """Hold a spec, or :data:`ALL_SPECS`: every worker ends with a checkpoint at its next page. A second pause replaces the first."""
        row = {"spec": spec, "reason": kept_text(reason), "paused_by": who[:300]}
        self._transaction(
            lambda connection: tables.upsert(
                connection, PAUSE, ("spec",), [{**row, "paused_at": self._now(connection)}]
            )
        )

    def unpause(self, spec: str) -> None:
        """Let a spec go on; nothing happens when it is not held."""
        self._change(sa.delete(PAUSE).where(PAUSE.c.spec == spec))

    def paused(self, spec: str) -> str | None:
        """Why, by whom and since when the spec, or all of them, are held; None when it may go on."""
        held = self._all(sa.select(PAUSE).where(PAUSE.c.spec.in_((spec, ALL_SPECS))).order_by(PAUSE.c.paused_at))
        if not held:
            return None
        one = held[0]
        return f"paused by {one.paused_by} at {one.paused_at:%Y-%m-%d %H:%M:%S} UTC: {one.reason}"

    def approve(self, plan_id: str, digest: str, who: str) -> None:
        """Keep that somebody has approved what the digest stands for."""
        self.plan(plan_id)
        row = {"plan_id": plan_id, "digest": digest, "approved_by": who[:300], "withdrawn_at": None}
        self._transaction(
            lambda connection: tables.upsert(
                connection, APPROVAL, ("plan_id", "digest"), [{**row, "approved_at": self._now(connection)}]
            )
        )

    def approved(self, plan_id: str, digest: str) -> str | None:
        """Who has approved it; None when nobody has, or the approval was withdrawn."""
        mine = (
            APPROVAL.c.plan_id == plan_id,
            APPROVAL.c.digest == digest,
            APPROVAL.c.withdrawn_at.is_(None),
        )
        found = self._all(sa.select(APPROVAL.c.approved_by).where(*mine))
        return str(found[0].approved_by) if found else None

    def withdraw(self, plan_id: str) -> None:
        """All approvals of a plan hold no more."""
        mine = (APPROVAL.c.plan_id == plan_id, APPROVAL.c.withdrawn_at.is_(None))
        self._change(sa.update(APPROVAL).where(*mine).values(withdrawn_at=self._time()))

    # Verifications ------------------------------------------------------------------------------------------------------

    def begin_verification(self, plan_id: str, run: str, mode: str) -> int:
        """Id of the verification of this run and mode that goes on, or of a new one: a repeated task goes on with its own."""
        self.plan(plan_id)
        row = {"plan_id": plan_id, "run": run, "mode": mode, "is_open": True}
        mine = [VERIFICATION.c[name] == value for name, value in row.items()]
        query = sa.select(VERIFICATION.c.verification_id).where(*mine)
        if not (found := self._all(query)):
            self._enter(VERIFICATION, {**row, "began_at": self._time(), "verdict": ""})
            found = self._all(query)
        if not found:
            raise JournalError(f"the {mode} verification of plan {plan_id} by {run} was ended as it began; repeat it")
        return int(found[0].verification_id)

    def add_classes(self, verification_id: int, found: Compared) -> None:
        """Keep what a part came to. A part that is done once more replaces what it had kept, its differences too.

        Raises:
            JournalError: the verification has ended: a worker comes too late
        """
        mine = (
            DIFFERENCE.c.verification_id == verification_id, DIFFERENCE.c.direction == found.direction,
            DIFFERENCE.c.part == found.part,
        )  # fmt: skip

        def keep(connection: sa.Connection) -> None:
            self._still_open(connection, verification_id)
            now = self._now(connection)
            row = tables.part_row(verification_id, found, now)
            tables.upsert(connection, PART, ("verification_id", "direction", "part"), [row])
            connection.execute(sa.delete(DIFFERENCE).where(*mine))
            tables.put_differences(connection, verification_id, found.direction, found.part, found.differences, now)

        self._transaction(keep)

    def compared(self, verification_id: int) -> list[Compared]:
        """The parts that have ended, without their differences, by direction and number."""
        query = sa.select(PART).where(PART.c.verification_id == verification_id)
        return [tables.read_part(row) for row in self._all(query.order_by(PART.c.direction, PART.c.part))]

    def set_differences(
        self, verification_id: int, direction: Direction, part: int, differences: Sequence[Difference]
    ) -> None:
        """Keep differences beside those that are there, before their part has ended; of a key what came last.

        Raises:
            JournalError: the verification has ended
        """

        def keep(connection: sa.Connection) -> None:
            self._still_open(connection, verification_id)
            tables.put_differences(connection, verification_id, direction, part, differences, self._now(connection))

        self._transaction(keep)

    def clear_differences(self, verification_id: int, keys_of_items: Collection[str]) -> None:
        """Forget differences that have vanished or were repaired, by the key of the item."""
        gone = [tables.key_hash(each) for each in keys_of_items]
        mine = (DIFFERENCE.c.verification_id == verification_id, DIFFERENCE.c.key_hash.in_(gone))
        self._change(sa.delete(DIFFERENCE).where(*mine))

    def differences(
        self, plan_id: str, classes: Collection[Class] | None = None, run: str | None = None
    ) -> list[Difference]:
        """Differences of the newest verification of a plan, or of the newest by a run, by key; of some classes or of all.

        One that both directions have found comes once.
        """
        newest = sa.select(sa.func.max(VERIFICATION.c.verification_id)).where(*_verifications(plan_id, run))
        query = sa.select(DIFFERENCE).where(DIFFERENCE.c.verification_id == newest.scalar_subquery())
        if classes is not None:
            query = query.where(DIFFERENCE.c["class"].in_(classes))
        found = [
            Difference(
                row.item_key, row._mapping["class"], row.source_version, row.target_version, row.detail, int(row.looks)
            )
            for row in self._all(query)
        ]
        once = {(each.key, each.classed): each for each in found}
        return sorted(once.values(), key=lambda each: each.key)

    def end_verification(self, verification_id: int, verdict: Verdict, bound: float | None = None) -> None:
        """The verification has ended; a repeated call changes nothing.

        Args:
            verification_id: from :meth:`begin_verification`
            verdict: what it came to
            bound: of a sample: with 95 % confidence no larger share of the rows is wrong

        Raises:
            JournalError: it has ended with another verdict
        """
        values = {"verdict": verdict, "bound": bound, "ended_at": self._time(), "is_open": None}
        mine = (VERIFICATION.c.verification_id == verification_id, VERIFICATION.c.ended_at.is_(None))
        if self._change(sa.update(VERIFICATION).where(*mine).values(**values)):
            return
        query = sa.select(VERIFICATION.c.verdict).where(VERIFICATION.c.verification_id == verification_id)
        found = self._all(query)
        if not found or found[0].verdict != verdict:
            has = f"has ended: {found[0].verdict}" if found else "is not in the journal"
            raise JournalError(f"verification {verification_id} {has}")

    def verification(self, plan_id: str, run: str | None = None) -> Verification | None:
        """The newest verification of a plan, or the newest by a run, ended or not, with the sums of the parts that have."""
        query = sa.select(VERIFICATION).where(*_verifications(plan_id, run))
        found = self._all(query.order_by(VERIFICATION.c.verification_id.desc()).limit(1))
        if not found:
            return None
        one = found[0]
        parts = self.compared(one.verification_id)
        sums: dict[Direction, Counter[Class]] = {}
        for part in parts:
            sums.setdefault(part.direction, Counter()).update(part.counts)
        return Verification(
            int(one.verification_id), one.plan_id, one.run, one.mode, aware(one.began_at), aware_or_none(one.ended_at),
            one.verdict, {direction: dict(counts) for direction, counts in sums.items()},
            rejected=sum(part.rejected for part in parts), foreign=sum(part.foreign for part in parts),
            bound=None if one.bound is None else float(one.bound),
        )  # fmt: skip

    def _still_open(self, connection: sa.Connection, verification_id: int) -> None:
        query = sa.select(VERIFICATION.c.ended_at).where(VERIFICATION.c.verification_id == verification_id)
        found = connection.execute(query.with_for_update(read=True)).one_or_none()
        if found is None or found.ended_at is not None:
            has = "is not in the journal" if found is None else "has ended"
            raise JournalError(f"verification {verification_id} {has}; nothing was kept")

    # What applications report -------------------------------------------------------------------------------------------

    def beats(self, spec: str, since: datetime | None = None) -> Iterator[Beat]:
        """What applications have counted for the spec, oldest first; after a moment, if one is given.

        There is one a minute of each process, so some are read at a time.
        """
        order = (COUNTER.c.counted_to, COUNTER.c.application, COUNTER.c.instance)
        query = sa.select(COUNTER).where(COUNTER.c.spec == spec).order_by(*order).limit(_BEATS_AT_ONCE)
        after = COUNTER.c.counted_to > naive(since) if since is not None else sa.true()
        while found := self._all(query.where(after)):
            for row in found:
                yield _beat(row)
            at, application, instance = (found[-1]._mapping[each.name] for each in order)
            # The first condition alone gives MySQL a range of the index.
            after = sa.and_(
                COUNTER.c.counted_to >= at,
                sa.or_(
                    COUNTER.c.counted_to > at,
                    COUNTER.c.application > application,
                    sa.and_(COUNTER.c.application == application, COUNTER.c.instance > instance),
                ),
            )

    def unended(self, spec: str, before: datetime) -> list[Beat]:
        """The last report of each process that reports no more since a moment, and has not said that it ends; oldest first."""
        later = COUNTER.alias("later")
        same = [later.c[name] == COUNTER.c[name] for name in ("spec", "application", "instance")]
        newer = sa.exists(sa.select(later.c.spec).where(*same, later.c.counted_to > COUNTER.c.counted_to))
        mine = (COUNTER.c.spec == spec, COUNTER.c.counted_to <= naive(before), COUNTER.c.is_last.is_(False), ~newer)
        return [_beat(row) for row in self._all(sa.select(COUNTER).where(*mine).order_by(COUNTER.c.counted_to))]

    def forget_beats(self, spec: str, before: datetime) -> int:
        """Delete what was counted before a moment; how many reports that were.

        The last report of a process that has not said that it ends stays: see `unended`.
        """
        at, who = naive(before), (COUNTER.c.application, COUNTER.c.instance)
        newest, has_ended = sa.func.max(COUNTER.c.counted_to), sa.func.max(COUNTER.c.is_last)
        old = sa.select(*who, newest.label("newest"), has_ended.label("has_ended")).where(COUNTER.c.spec == spec)
        gone = 0
        for row in self._all(old.group_by(*who).having(sa.func.min(COUNTER.c.counted_to) < at)):
            until = at if row.has_ended else min(at, row.newest)
            of_process = (COUNTER.c.application == row.application, COUNTER.c.instance == row.instance)
            mine = (COUNTER.c.spec == spec, *of_process, COUNTER.c.counted_to < until)
            gone += self._change(sa.delete(COUNTER).where(*mine))
        return gone

    # How it is kept -----------------------------------------------------------------------------------------------------

    def _now(self, connection: sa.Connection) -> datetime:
        """Naive UTC."""
        if self.clock is not None:
            return naive(self.clock())
        if connection.dialect.name != "mysql":
            return naive(datetime.now(UTC))
        now: datetime = connection.execute(sa.text("SELECT UTC_TIMESTAMP(6)")).scalar_one()
        return now

    def _time(self) -> datetime:
        """As `_now`, on a connection of its own."""
        if self.clock is not None or self.engine.dialect.name != "mysql":
            return naive((self.clock or _utcnow)())
        return tables.repeat(lambda: self._read(self._now))

    def _read(self, work: Callable[[sa.Connection], T]) -> T:
        with self._single.connect() as connection:
            return work(connection)

    def _change(self, statement: Any) -> int:
        """Rows that a statement found, which commits by itself."""
        return tables.repeat(lambda: self._read(lambda connection: int(connection.execute(statement).rowcount)))

    def _enter(self, table: sa.TableClause, values: Mapping[str, Any]) -> bool:
        """Insert a row; False when there is one of its key."""
        try:
            self._change(sa.insert(table).values(**values))
        except sa.exc.IntegrityError as error:
            if store.is_duplicate(error):
                return False
            raise
        return True

    def _transaction(self, work: Callable[[sa.Connection], T]) -> T:
        def attempt() -> T:
            with self.engine.begin() as connection:
                return work(connection)

        return tables.repeat(attempt)

    def _all(self, query: Any) -> Sequence[Any]:
        return tables.repeat(lambda: self._read(lambda connection: connection.execute(query).all()))

    def _one(self, query: Any) -> Any:
        (row,) = self._all(query)
        return row[0]


def _utcnow() -> datetime:
    return datetime.now(UTC)


def _check_chunks(plan: Plan, chunks: Sequence[PlannedChunk]) -> None:
    if plan.chunks != len(chunks):
        raise JournalError(f"plan {plan.plan_id}: {len(chunks)} chunks are given, the plan says {plan.chunks}")
    low: Key | None = None
    for number, each in enumerate(chunks):
        if each.number != number or each.low != low:
            raise JournalError(
                f"plan {plan.plan_id}: chunk {each.number} begins at {each.low}; number {number} that begins at {low} was expected"
            )
        low = each.high


def _positions(chunks: Sequence[PlannedChunk], seed: int) -> Iterable[tuple[PlannedChunk, int]]:
    shuffled = list(chunks)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - no secret
    shuffled.sort(key=lambda each: not each.is_cold)
    return ((each, position) for position, each in enumerate(shuffled))


def _of(chunk: Chunk, *, with_checkpoints: bool = True) -> tuple[sa.ColumnElement[bool], ...]:
    """The row, if nobody has changed it since it was read."""
    mine = (
        CHUNK.c.plan_id == chunk.plan_id,
        CHUNK.c.chunk_no == chunk.number,
        CHUNK.c.attempt == chunk.attempt,
    )
    return (*mine, CHUNK.c.checkpoints == chunk.checkpoints) if with_checkpoints else mine


def _is_free(now: datetime) -> sa.ColumnElement[bool]:
    return sa.or_(CHUNK.c.leased_until.is_(None), CHUNK.c.leased_until <= now)


def _plan_is(plan_id: str, states: Collection[str]) -> sa.ColumnElement[bool]:
    return sa.exists(sa.select(PLAN.c.plan_id).where(PLAN.c.plan_id == plan_id, PLAN.c.state.in_(states)))


def _copy_again(connection: sa.Connection, plan_id: str) -> None:
    mine = (PLAN.c.plan_id == plan_id, PLAN.c.state.in_(("planned", "copying", "copied")))
    # MySQL counts changed rows: the state may be that already.
    if connection.execute(sa.select(PLAN.c.plan_id).where(*mine).with_for_update()).one_or_none() is None:
        raise JournalError(f"plan {plan_id} is closed: its chunks are not copied again")
    connection.execute(sa.update(PLAN).where(*mine).values(state="copying"))


def _from_begin(connection: sa.Connection, plan_id: str, numbers: Sequence[int], *those: sa.ColumnElement[bool]) -> int:
    """Let those of the chunks begin anew; how many they are."""
    changes = {
        **_ANEW, "done_at": None, "owner": None, "leased_until": None, "state": "planned", "checkpoints": CHUNK.c.checkpoints + 1,
    }  # fmt: skip
    mine = (CHUNK.c.plan_id == plan_id, CHUNK.c.chunk_no.in_(numbers), *those)
    count = int(connection.execute(sa.update(CHUNK).where(*mine).values(**changes)).rowcount)
    if count:
        gone = (REJECT.c.plan_id == plan_id, REJECT.c.chunk_no.in_(numbers))
        connection.execute(sa.delete(REJECT).where(*gone))
    return count


def _say_reopened(connection: sa.Connection, plan_id: str, numbers: Sequence[int], now: datetime) -> None:
    said = Event("reopened", f"chunks to be copied once more: {', '.join(map(str, numbers))}", count=len(numbers))
    connection.execute(sa.insert(EVENT), tables.event_row(plan_id, said, now))


def _beat(row: Any) -> Beat:
    counted = aware(row.counted_from), aware(row.counted_to)
    return Beat(row.application, row.instance, *counted, dict(row.counts), bool(row.is_last))


def _verifications(plan_id: str, run: str | None) -> tuple[sa.ColumnElement[bool], ...]:
    mine = (VERIFICATION.c.plan_id == plan_id,)
    return mine if run is None else (*mine, VERIFICATION.c.run == run)


def _before(state: PlanState) -> tuple[ChunkState, ...]:
    """States that no chunk of such a plan may have."""
    return {"copied": ("planned",), "rolled_back": ("planned", "done")}.get(state, ())  # type: ignore[return-value]
