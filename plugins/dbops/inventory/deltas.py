"""What happened between two snapshots of an instance: cumulative counters become differences, resets are recognised and named.

The rule for a counter that only grows until something empties it: no earlier value, or a reset in between -> its full value, else the
difference. So a statement that ran once, before the first snapshot or between a TRUNCATE and the next one, is kept with the window that
the server gives it. What ran after one snapshot and was discarded before the next is gone for everybody; :mod:`coverage` says how much.

Three tests find a reset, because counts alone can be equal again by chance: a count that went down, a FIRST_SEEN that moved, a server
that started later. A fourth is free: nothing is ever evicted from the digest table, so a row that vanished was truncated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from dbops.inventory.model import Sighting, Snapshot, TableIo, TableRef

What = Literal["server", "digests", "events"]
LOGS = ("slow_log", "general_log")
"""Sources whose executions are those of a portion of a log: they are never cumulative."""
IO = ("fetched", "inserted", "updated", "deleted")
# Uptime has whole seconds, cut off: a server started up to one of them before what is computed from it, and that moves by as much.
UPTIME_STEP = timedelta(seconds=1)
START_JITTER = 2 * UPTIME_STEP
# Between the server's clock, which says when it started, and ours, which says when a snapshot was taken: a snapshot refuses more than a
# minute. Uptime may be read a while after the clock, which moves the start back: more tolerance would take the next for a restart.
CLOCK_SKEW = timedelta(minutes=2)


@dataclass(frozen=True)
class Reset:
    """Something that emptied counters between two snapshots: of all of the server, of the digest table or of the event counters."""

    what: What
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


@dataclass(frozen=True)
class Delta:
    """What one sighting adds."""

    sighting: Sighting
    executions: int | None
    """Since the previous snapshot (or the reset, or ever); None where the source shows text only."""
    counters: Mapping[str, float] = field(default_factory=dict)
    since: datetime | None = None
    """The executions lie in [since, until]; None = nobody knows when the first was."""
    until: datetime | None = None
    interval_s: float | None = None
    """Length of the interval in which they lie, for a rate; None at the first snapshot of a server: a sum is not a rate."""


@dataclass(frozen=True)
class IoDelta:
    """Rows that were read and written since `since`; `now` has the cumulative counters."""

    now: TableIo
    fetched: int
    inserted: int
    updated: int
    deleted: int
    since: datetime


@dataclass(frozen=True)
class Deltas:
    """Everything between two snapshots, without what did not change."""

    items: tuple[Delta, ...]
    table_io: tuple[IoDelta, ...]
    event_counts: Mapping[str, int]
    program_counts: Mapping[str, int]
    program_statements: Mapping[str, int]
    null_row: int
    resets: tuple[Reset, ...]

    def was_reset(self, *what: What) -> bool:
        """Whether any of these was emptied in between."""
        return any(reset.what in what for reset in self.resets)


def is_first_sight(previous: Snapshot | None, current: Snapshot) -> bool:
    """Whether the counters began before anybody looked: no interval between two snapshots has what they show.

    So it is with the first snapshot of an instance, and with another server that answers under its name and has run for longer,
    or may have.
    """
    if previous is None:
        return True
    other = current.instance.server_uuid != previous.instance.server_uuid
    return other and current.instance.started_at - UPTIME_STEP < previous.taken_at


def deltas(previous: Snapshot | None, current: Snapshot) -> Deltas:
    """Compare two snapshots of one instance.

    Args:
        previous: the last one before `current`, None when there is none. Its digests are those of the digest table as it was then
        current: a source that it could not read gives no difference, and no reset
    """
    found = resets(previous, current)
    restarted = any(reset.what == "server" for reset in found)
    digests_kept = previous is not None and not any(reset.what in ("server", "digests") for reset in found)
    events_kept = previous is not None and not any(reset.what in ("server", "events") for reset in found)
    old = None if previous is None or restarted else previous
    return Deltas(
        items=tuple(_items(previous, current, digests_kept=digests_kept, restarted=restarted)),
        table_io=tuple(_table_io(old, current)),
        event_counts=_moved(previous.event_counts if previous and events_kept else {}, current.event_counts),
        program_counts=_moved(old.program_counts if old else {}, current.program_counts),
        program_statements=_moved(old.program_statements if old else {}, current.program_statements),
        null_row=current.null_row - (previous.null_row if previous and digests_kept else 0),
        resets=found,
    )


def resets(previous: Snapshot | None, current: Snapshot) -> tuple[Reset, ...]:
    """What was emptied between the two; a restart empties everything and is named alone."""
    if previous is None:
        return ()
    before, now = previous.instance, current.instance
    if now.server_uuid != before.server_uuid:
        return (Reset("server", f"server_uuid is {now.server_uuid}, was {before.server_uuid}: another server answers"),)
    later = now.started_at > before.started_at + START_JITTER
    # A clock that was set moves the computed start too, but not beyond the moment at which the server last answered.
    if later and now.started_at > previous.taken_at - CLOCK_SKEW:
        return (Reset("server", f"it started at {now.started_at:%Y-%m-%d %H:%M:%S} UTC, after the previous snapshot"),)
    if "statements" not in current.read:
        return ()
    found = []
    if reason := _digests_emptied(previous, current):
        found.append(Reset("digests", reason))
    down = [name for name, count in previous.event_counts.items() if current.event_counts.get(name, 0) < count]
    if down:
        found.append(Reset("events", f"{len(down)} event counters went down, {min(down)} first: they were truncated"))
    return tuple(found)


def _digests_emptied(previous: Snapshot, current: Snapshot) -> str:
    now = {s.key: s for s in current.sightings if s.source == "digest"}
    gone = down = moved = 0
    for old in previous.sightings:
        if old.source != "digest":
            continue
        new = now.get(old.key)
        if new is None:
            gone += 1
        elif (new.executions or 0) < (old.executions or 0):
            down += 1
        elif new.first_seen and old.first_seen and new.first_seen > old.first_seen:
            moved += 1
    reasons = [(gone, "rows vanished"), (down, "counts went down"), (moved, "FIRST_SEEN moved with counts not lower")]
    told = [f"{count} {what}" for count, what in reasons if count]
    if current.null_row < previous.null_row:
        told.append("the NULL row's count went down")
    return f"the digest table was truncated: {', '.join(told)}" if told else ""


def _items(previous: Snapshot | None, current: Snapshot, *, digests_kept: bool, restarted: bool) -> Iterable[Delta]:
    known = {(s.source, s.key): s for s in previous.sightings} if previous else {}
    since = None if previous is None or is_first_sight(previous, current) else previous.taken_at
    for sighting in current.sightings:
        old = known.get((sighting.source, sighting.key))
        if sighting.source == "routine":
            yield Delta(sighting, None)
        elif sighting.executions is None:
            if old is None or (sighting.last_seen and (not old.last_seen or sighting.last_seen > old.last_seen)):
                yield Delta(sighting, None, since=sighting.first_seen or sighting.last_seen, until=sighting.last_seen)
        elif sighting.source in LOGS:
            yield Delta(sighting, sighting.executions, sighting.counters, sighting.first_seen, sighting.last_seen)
        else:
            kept = digests_kept if sighting.source == "digest" else not restarted
            yield from _counted(sighting, old if kept else None, since, current.taken_at)


def _counted(new: Sighting, old: Sighting | None, previous: datetime | None, now: datetime) -> Iterable[Delta]:
    until = new.last_seen or now
    executions = new.executions or 0
    interval = None if previous is None else max((now - previous).total_seconds(), 0.0)
    if old is None or executions < (old.executions or 0):
        if executions:
            yield Delta(new, executions, new.counters, new.first_seen or previous, until, interval)
    elif executions > (old.executions or 0):
        counters = {name: max(value - old.counters.get(name, 0.0), 0.0) for name, value in new.counters.items()}
        yield Delta(new, executions - (old.executions or 0), counters, previous, until, interval)


def _table_io(previous: Snapshot | None, current: Snapshot) -> Iterable[IoDelta]:
    """A row that is new or went down (RENAME, TRUNCATE) counts from zero; a new row appears even when nothing moved."""
    known: dict[tuple[TableRef, str | None], TableIo] = {}
    if previous is not None:
        known = {(io.table, io.index): io for io in previous.table_io}
    since = previous.taken_at if previous else current.instance.started_at
    for io in current.table_io:
        old = known.get((io.table, io.index))
        counts, base = _io(io), _io(old) if old else (0, 0, 0, 0)
        if any(now < then for now, then in zip(counts, base, strict=True)):
            base = (0, 0, 0, 0)
        moved = {name: now - then for name, now, then in zip(IO, counts, base, strict=True)}
        if old is None or any(moved.values()):
            yield IoDelta(io, **moved, since=since)


def _io(io: TableIo) -> tuple[int, ...]:
    return tuple(getattr(io, name) for name in IO)


def _moved(old: Mapping[str, int], new: Mapping[str, int]) -> dict[str, int]:
    differences = {name: _grown(old.get(name, 0), count) for name, count in new.items()}
    return {name: count for name, count in differences.items() if count}


def _grown(old: int, new: int) -> int:
    return new - old if new >= old else new
