"""When reads may leave MySQL: every application has shown for days that no read needs it, the plan is verified, the stream has delivered.

Silence is no proof. Each process reports which time its counts cover (`dbops.keyvalue.counting`); a time that no report covers, a process
that fell silent without saying that it ends, an application that nobody has heard of, reads that nobody made: each keeps the gate shut,
with its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dbops.backfill.records import Beat, Plan, Verification
from dbops.backfill.spec import BackfillSpec

SLACK = timedelta(seconds=2)
"""Between the end of one report and the begin of the next: none is meant, clocks are adjusted."""
AHEAD = timedelta(minutes=2)
"""So much may the clock of an application be ahead of ours."""
_READS = ("hits", "misses", "tombstone_hits")


@dataclass(frozen=True)
class StreamState:
    """How far the change stream is."""

    lag_s: float | None
    """None: unknown."""
    is_running: bool
    name: str = ""


@dataclass(frozen=True)
class Quiet:
    """One application, as its processes report it."""

    application: str
    reads: int
    """In the quiet days."""
    fallback_hits: int
    last_fallback: datetime | None
    """End of the last report with one, in all that was given."""
    first_heard: datetime | None
    last_heard: datetime | None
    processes: int
    silent: tuple[str, ...]
    """Processes that neither report nor have said that they end."""
    lost_writes: int
    """Dual writes that the store did not take; the stream repairs them."""


@dataclass(frozen=True)
class Gate:
    """Whether reads may leave MySQL, and why not."""

    is_open: bool
    reasons: tuple[str, ...]
    """Each keeps it shut."""
    notes: tuple[str, ...] = ()
    applications: tuple[Quiet, ...] = ()
    opens_at: datetime | None = None
    """The earliest moment at which the reports could open it, if nothing happens until then; None when waiting is not enough."""


@dataclass
class _Process:
    first: datetime
    until: datetime
    is_last: bool


@dataclass
class _Heard:
    reads: int = 0
    fallback_hits: int = 0
    lost_writes: int = 0
    last_fallback: datetime | None = None
    first: datetime | None = None
    last: datetime | None = None
    processes: dict[str, _Process] = field(default_factory=dict)
    broken: list[tuple[datetime, str]] = field(default_factory=list)
    """End of a time of which something is not known, and what."""


def decide(
    spec: BackfillSpec,
    plan: Plan | None,
    verification: Verification | None,
    beats: Iterable[Beat],
    stream: StreamState | None,
    now: datetime,
    *,
    gone: Collection[str] = (),
) -> Gate:
    """Whether the gate is open.

    Args:
        spec: of the backfill
        plan: the newest
        verification: the newest of it
        beats: of the spec, oldest first; at least those of the quiet days, and of an hour before
        stream: of the changes; None for unknown
        now: aware
        gone: processes of which a person says that they are dead, and what they did last does not matter
    """
    begin = now - timedelta(days=spec.gate.quiet_days)
    heard = {name: _Heard() for name in spec.live.applications}
    reasons = [*_not_verified(plan, verification), *_not_all_rows(spec, plan), *_not_drained(spec, stream)]
    strangers = Counter[str]()
    for beat in beats:
        if beat.application in heard:
            _hear(heard[beat.application], beat, begin, now, gone)
        else:
            strangers[beat.application] += beat.counts.get("fallback_hits", 0) if beat.at > begin else 0
    silence = timedelta(minutes=spec.live.silent_minutes)
    found, waits = [], list[datetime | None]()
    for name, one in heard.items():
        why, clear = _judge(name, one, begin, now, silence, gone)
        reasons += why
        waits.append(clear)
        found.append(_quiet(name, one, now, silence, gone))
    reasons += [
        f"{name}: {hits:,} reads needed MySQL, and it is not in live.applications: name it there"
        for name, hits in sorted(strangers.items())
        if hits
    ]
    if not any(each.reads for each in found):
        reasons.append("no application has reported a read: nothing shows that the store answers")
    notes = [f"{name} reports too, and is not in live.applications" for name in sorted(strangers)]
    notes += [f"{each.application} read nothing in these days" for each in found if not each.reads]
    notes += [
        f"{each.application}: the store did not take {each.lost_writes:,} dual writes, which the stream repairs"
        for each in found
        if each.lost_writes
    ]
    if verification is not None and verification.rejected:
        notes.append(
            f"{verification.rejected:,} rows cannot be items and are in MySQL alone: readers will not find them"
        )
    if verification is not None and verification.bound is not None:
        notes.append(f"verified by a sample: up to {verification.bound:.2g} of the rows may be wrong")
    quiet = timedelta(days=spec.gate.quiet_days)
    opens = None if None in waits else max((each + quiet for each in waits if each), default=None)
    return Gate(not reasons, tuple(reasons), tuple(notes), tuple(found), max(opens, now) if opens else None)


def _not_verified(plan: Plan | None, verification: Verification | None) -> list[str]:
    if plan is None:
        return ["there is no plan: run the backfill"]
    reasons = []
    if plan.state != "verified":
        reasons.append(f"plan {plan.plan_id} is {plan.state}, not verified")
    if verification is None:
        return [*reasons, f"plan {plan.plan_id} has no verification"]
    if verification.plan_id != plan.plan_id:
        reasons.append(f"the verification is of plan {verification.plan_id}, not of {plan.plan_id}")
    if verification.verdict != "clean" or verification.ended_at is None:
        reasons.append(
            f"the newest verification of plan {plan.plan_id} is {verification.verdict or 'not over'}, not clean"
        )
    return reasons


def _not_all_rows(spec: BackfillSpec, plan: Plan | None) -> list[str]:
    """Without a fall back, a row that was not copied and that nobody has touched since does not exist."""
    reasons = []
    if spec.cold is not None and spec.cold.only:
        reasons.append(
            "only cold rows were copied: a hot row that nobody touches is in MySQL alone. Run the backfill once with cold.only: false"
        )
    if plan is not None and plan.rule_digest != spec.rule_digest():
        reasons.append(f"plan {plan.plan_id} was made under other rules than the spec has now: run the backfill again")
    return reasons


def _not_drained(spec: BackfillSpec, stream: StreamState | None) -> list[str]:
    name = (stream.name if stream else "") or spec.live.replication_task or spec.live.stream
    if stream is None:
        return [f"the state of the change stream {name} is unknown"]
    if not stream.is_running:
        return [f"the change stream {name} does not run"]
    if stream.lag_s is None or not 0 <= stream.lag_s <= spec.live.max_stream_lag_s:
        lag = "unknown" if stream.lag_s is None else f"{stream.lag_s:g} s"
        return [f"the lag of the change stream {name} is {lag}, limit {spec.live.max_stream_lag_s:g} s"]
    return []


def _hear(one: _Heard, beat: Beat, begin: datetime, now: datetime, gone: Collection[str]) -> None:
    if beat.at > now + AHEAD or beat.since > beat.at:
        one.broken.append(
            (now, f"process {beat.instance} reports the time {beat.at:%Y-%m-%d %H:%M}: its clock is wrong")
        )
        return
    hits = beat.counts.get("fallback_hits")
    if hits is None or hits < 0:
        one.broken.append((beat.at, f"process {beat.instance} reports no fallback_hits at {beat.at:%Y-%m-%d %H:%M}"))
    elif hits:
        one.last_fallback = beat.at
    if beat.at > begin:
        one.fallback_hits += hits or 0
        one.reads += sum(beat.counts.get(name, 0) for name in _READS)
        one.lost_writes += beat.counts.get("failed", 0)
    before = one.processes.get(beat.instance)
    if before is not None and before.is_last and beat.since > before.until:
        one.processes[f"{beat.instance} until {before.until.isoformat()}"] = (
            before  # it was started again under its name
        )
        before = None
    if before is None:
        one.processes[beat.instance] = _Process(beat.since, beat.at, beat.is_last)
    else:
        if beat.since > before.until + SLACK and beat.instance not in gone:
            hole = (
                f"process {beat.instance} has no report from {before.until:%Y-%m-%d %H:%M:%S} to {beat.since:%H:%M:%S}"
            )
            one.broken.append((beat.since, hole))
        before.until, before.is_last = max(before.until, beat.at), beat.is_last
    one.first = beat.since if one.first is None else min(one.first, beat.since)
    one.last = beat.at if one.last is None else max(one.last, beat.at)


def _judge(
    name: str, one: _Heard, begin: datetime, now: datetime, silence: timedelta, gone: Collection[str]
) -> tuple[list[str], datetime | None]:
    """Why an application keeps the gate shut, and since when nothing of it does; None when waiting is not enough."""
    if one.first is None or one.last is None:
        return [f"{name}: nothing was heard of it: does it run dbops.keyvalue.counting.Reporter?"], None
    reasons, clear = [], one.first
    if one.first > begin:
        reasons.append(f"{name}: its reports begin at {one.first:%Y-%m-%d %H:%M}, after {begin:%Y-%m-%d %H:%M}")
    if one.last_fallback is not None:
        clear = max(clear, one.last_fallback)
        if one.last_fallback > begin:
            reasons.append(
                f"{name}: {one.fallback_hits:,} reads needed MySQL, the last before {one.last_fallback:%Y-%m-%d %H:%M}"
            )
    for until, what in one.broken:
        clear = max(clear, until)
        if until > begin:
            reasons.append(f"{name}: {what}")
    for start, end in _holes(one, silence):
        clear = max(clear, end)
        if end > begin:
            reasons.append(f"{name}: no process reported from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}")
    silent = _silent(one, now, silence, gone)
    reasons += [
        f"{name}: process {instance} fell silent at {one.processes[instance].until:%Y-%m-%d %H:%M} without saying that it ends: "
        "see that it is dead, and name it as gone"
        for instance in silent
    ]
    if one.last < now - silence:
        reasons.append(f"{name}: silent since {one.last:%Y-%m-%d %H:%M}")
        return reasons, None
    return reasons, None if silent else clear


def _holes(one: _Heard, silence: timedelta) -> list[tuple[datetime, datetime]]:
    """Times of more than `silence` that no process covers: an application that is restarted is away for a moment."""
    found, until = list[tuple[datetime, datetime]](), None
    for process in sorted(one.processes.values(), key=lambda each: each.first):
        if until is not None and process.first > until + silence:
            found.append((until, process.first))
        until = process.until if until is None else max(until, process.until)
    return found


def _silent(one: _Heard, now: datetime, silence: timedelta, gone: Collection[str]) -> list[str]:
    return sorted(
        instance
        for instance, process in one.processes.items()
        if not process.is_last and process.until < now - silence and instance not in gone
    )


def _quiet(name: str, one: _Heard, now: datetime, silence: timedelta, gone: Collection[str]) -> Quiet:
    return Quiet(
        name, one.reads, one.fallback_hits, one.last_fallback, one.first, one.last, len(one.processes),
        tuple(_silent(one, now, silence, gone)), one.lost_writes,
    )  # fmt: skip
