"""The pace of all writers, or all readers, of a store: one rate, however many tasks, runs and specs use it.

It is kept in a row of the store's table ``backfill_bucket``, one a resource, as a rate limiter of the kind GCRA (generic cell rate
algorithm, ITU-T I.371): the row says until when all time is granted. A task takes a grant of some write units by moving that moment on by
as long as they take at the rate, waits until its stretch of time begins, and lets its threads spend the units. So stretches never overlap,
idle time is not saved up, and a dead task costs no more than the stretch that it had.

Over any interval of t seconds at most ``rate * (t + HOLD_S)`` units are spent, and one grant: units that are not spent within
:data:`HOLD_S` after their stretch has begun lapse. Time is that of the database. A change is a single statement that commits by itself,
under the condition that the row is as it was read, so that a worker whose host vanishes holds no lock.

When the store turns writes away the rate is halved, at most once a second, down to 1 % of the limit; then it rises again by 1 % of the
limit a second (additive increase, multiplicative decrease).
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Literal

import sqlalchemy as sa

from dbops.backfill.brake import Held
from dbops.backfill.tables import BUCKET, repeat
from dbops.backfill.target import Pressure
from dbops.store import is_duplicate, naive

GRANT_S = 0.5
"""Seconds of the whole rate that the grants of all tasks together are worth."""
SMALLEST_GRANT_S = 0.01
"""Seconds of the whole rate that a grant is worth at least, however many tasks there are: a hundred changes of the row a second."""
HOLD_S = 1.0
"""Seconds for which units can be spent, from the begin of their stretch of time."""
LIMIT_HOLD_S = 60.0
"""So long after its last grant the limit of a task holds for those with a higher one."""
EASE_EVERY_S = 1.0
"""Seconds between two halvings: many threads tell of one and the same congestion."""
FLOOR = 0.01
"""Of the limit, below which the rate does not fall."""
RECOVERY = 0.01
"""Of the limit, by which the rate rises in a second."""
_TRIES = 200
_LIMITS = {"write": "limits.units_per_s", "read": "limits.read_units_per_s"}


class BucketError(RuntimeError):
    """The row of the pace could not be changed, because it is changed all the time."""


@dataclass(frozen=True)
class State:
    """A row of ``backfill_bucket``. Times are naive UTC of the database."""

    limit: float
    """Units a second, the lowest of those who write now."""
    limit_until: datetime
    free_at: datetime
    """All time before is granted."""
    eased: float = 0.0
    """Units a second right after `eased_at`."""
    eased_at: datetime | None = None
    granted_units: float = 0.0
    refused_units: float = 0.0
    easings: int = 0

    def rate(self, now: datetime) -> float:
        """Units a second."""
        if self.eased_at is None:
            return self.limit
        seconds = max(0.0, (now - self.eased_at).total_seconds())
        return min(self.limit, max(self.eased, FLOOR * self.limit) + RECOVERY * self.limit * seconds)

    def limited(self, now: datetime, limit: float) -> State:
        """With the limit of a task that writes now: the lowest one holds, as long as somebody asks for it."""
        if limit > self.limit and self.limit_until > now:
            return self
        return replace(self, limit=limit, limit_until=now + timedelta(seconds=LIMIT_HOLD_S))

    def granted(self, now: datetime, units: float, worth_s: float) -> tuple[State, Grant]:
        """Grant so many units, or those of so many seconds if that is more."""
        rate = self.rate(now)
        units = max(units, rate * worth_s)
        begin = max(self.free_at, now)
        end = begin + timedelta(microseconds=math.ceil(units / rate * 1e6))
        state = replace(self, free_at=end, granted_units=self.granted_units + units)
        return state, Grant(units, (begin - now).total_seconds(), rate)

    def halved(self, now: datetime) -> State:
        """With half the rate, if it was not halved just before."""
        if self.eased_at is not None and (now - self.eased_at).total_seconds() < EASE_EVERY_S:
            return self
        return replace(self, eased=max(self.rate(now) / 2, FLOOR * self.limit), eased_at=now, easings=self.easings + 1)


@dataclass(frozen=True)
class Grant:
    """Units that may be spent after some seconds."""

    units: float
    wait_s: float
    rate: float
    """Units a second, by which it was made."""


@dataclass
class _Lot:
    left: float
    lapses_at: float  # monotonic


class Bucket:
    """The pace of one task, which it shares with all others of the resource (`target.Pace`). Safe to use from several threads.

    Args:
        engine: of the store, with the tables of the journal
        resource: what is written, as `spec.DynamoTarget.resource` names it
        limit: units a second over all tasks; the lowest limit of those who ask at the moment holds for all
        kind: which units these are; reads and writes of one resource do not share a pace
        tasks: how many tasks ask; a grant is the smaller, the more there are
        max_wait_s: a grant that would have to be waited for longer is refused
        wait: waits so many seconds, and says whether the task is to stop; `threading.Event.wait`
        monotonic: clock of this process, seconds
        clock: the time, in tests; None: the database's
    """

    def __init__(
        self,
        engine: sa.Engine,
        resource: str,
        limit: float,
        *,
        kind: Literal["write", "read"] = "write",
        tasks: int = 1,
        max_wait_s: float = 900.0,
        wait: Callable[[float], bool] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        if not (limit > 0 and tasks > 0):
            raise ValueError(f"limit={limit!r}, tasks={tasks!r}: both have to be above 0")
        self.resource, self.limit, self.kind = resource if kind == "write" else f"{kind}:{resource}", limit, kind
        self.rate = limit
        """Units a second, as it was at the last grant."""
        self.waited_s = 0.0
        """What the threads have waited for grants, as one."""
        self._worth_s = max(GRANT_S / tasks, SMALLEST_GRANT_S)
        self._max_wait_s = max_wait_s
        self._wait = wait or threading.Event().wait
        self._monotonic, self._clock = monotonic, clock
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._spending, self._telling = threading.Lock(), threading.Lock()
        self._lots: deque[_Lot] = deque()
        self._refused_units = 0.0
        self._told_at = float("-inf")

    def spend(self, units: float) -> None:
        """Return when so many units may be spent.

        Raises:
            Held: that would take too long, or the task is to stop; nothing is spent
        """
        if not (units >= 0 and math.isfinite(units)):
            raise ValueError(f"units={units!r} is no number of {self.kind} units")
        with self._spending:
            while not self._take(units):
                self._draw(units)

    def eased(self, pressure: Pressure, refused_units: float) -> None:
        """The store turned requests away: halve the rate of all tasks.

        A hot range of keys is no reason to slow the others down; the caller goes slower there itself.
        """
        with self._telling:
            self._refused_units += refused_units
            if pressure.kind == "key_range" or self._monotonic() - self._told_at < EASE_EVERY_S / 2:
                return
            self._told_at = self._monotonic()
        self._change(lambda state, now: (state.halved(now), None))

    def state(self) -> tuple[State, datetime] | None:
        """The row as it is, and the time of the database; None before the first grant."""
        found = self._read()
        return None if found is None else (found[0], found[2])

    def _take(self, units: float) -> bool:
        now = self._monotonic()
        while self._lots and (self._lots[0].lapses_at <= now or not self._lots[0].left):
            self._lots.popleft()
        if sum(lot.left for lot in self._lots) < units:
            return False
        for lot in self._lots:  # the oldest first
            part = min(lot.left, units)
            lot.left -= part
            units -= part
        return True

    def _draw(self, units: float) -> None:
        """Get a grant, and wait until it begins."""
        if self._wait(0):
            raise self._stopped(units)
        grant, read_at = self._change(lambda state, now: self._granted(state, now, units))
        assert grant is not None  # noqa: S101 - _granted gives one
        self.rate = grant.rate
        began, due = self._monotonic(), read_at + grant.wait_s
        try:
            while (left := due - self._monotonic()) > 0:
                if self._wait(left):
                    raise self._stopped(units)
        finally:
            self.waited_s += self._monotonic() - began
        self._lots.append(_Lot(grant.units, due + HOLD_S))

    def _stopped(self, units: float) -> Held:
        return Held("stop", f"{self.resource}: the task is to stop; {units:g} {self.kind} units were not spent")

    def _granted(self, state: State, now: datetime, units: float) -> tuple[State, Grant]:
        state, grant = state.limited(now, self.limit).granted(now, units, self._worth_s)
        if grant.wait_s > self._max_wait_s:
            raise Held(
                "limit", f"{self.resource}: {units:g} {self.kind} units would have to wait {grant.wait_s:.0f} s at {grant.rate:g} units/s"
                f" (limit {state.limit:g}), max_wait_s is {self._max_wait_s:g}; raise {_LIMITS[self.kind]} or start fewer tasks"
            )  # fmt: skip
        return state, grant

    # The row ------------------------------------------------------------------------------------------------------------

    def _change(self, work: Callable[[State, datetime], tuple[State, Grant | None]]) -> tuple[Grant | None, float]:
        """Change the row under the condition that nobody else has; and the monotonic time at which it was read."""
        with self._telling:
            refused, self._refused_units = self._refused_units, 0.0
        for _ in range(_TRIES):
            found = repeat(self._read)
            read_at = self._monotonic()
            if found is None:
                repeat(self._enter)
                continue
            state, revision, now = found
            changed, grant = work(state, now)
            changed = replace(changed, refused_units=state.refused_units + refused)
            if changed == state or repeat(partial(self._put, changed, revision)):
                return grant, read_at
            time.sleep(random.uniform(0, 0.005))  # noqa: S311 - no secret
        raise BucketError(f"{self.resource}: {_TRIES} others were faster; start fewer tasks")

    def _read(self) -> tuple[State, int, datetime] | None:
        uses_server = self._clock is None and self._engine.dialect.name == "mysql"
        time_of_server = [sa.func.utc_timestamp(6).label("now")] if uses_server else []
        query = sa.select(BUCKET, *time_of_server).where(BUCKET.c.resource == self.resource)
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        now = row.now if uses_server else self._now()
        state = State(
            float(row.limit_units_per_s), row.limit_until, row.free_at, float(row.eased_units_per_s), row.eased_at,
            float(row.granted_units), float(row.refused_units), int(row.easings),
        )  # fmt: skip
        return state, int(row.revision), now

    def _now(self) -> datetime:
        return naive(self._clock() if self._clock else datetime.now(UTC))

    def _enter(self) -> None:
        """A new row, in which all time up to the epoch is granted: the first grant begins at once."""
        long_ago = datetime(1970, 1, 2)
        row = {"resource": self.resource, "limit_units_per_s": self.limit, "limit_until": long_ago, "free_at": long_ago}
        try:
            with self._engine.connect() as connection:
                connection.execute(sa.insert(BUCKET).values(**row))
        except sa.exc.IntegrityError as error:  # another task was faster
            if not is_duplicate(error):
                raise

    def _put(self, state: State, revision: int) -> bool:
        values = {
            "limit_units_per_s": state.limit, "limit_until": state.limit_until, "free_at": state.free_at,
            "eased_units_per_s": state.eased, "eased_at": state.eased_at, "granted_units": state.granted_units,
            "refused_units": state.refused_units, "easings": state.easings, "revision": revision + 1,
        }  # fmt: skip
        mine = (BUCKET.c.resource == self.resource, BUCKET.c.revision == revision)
        with self._engine.connect() as connection:
            return connection.execute(sa.update(BUCKET).where(*mine).values(**values)).rowcount == 1
