"""Replica lag by heartbeat: how far the newest write of a probe that green shows lies behind the newest one acknowledged by blue.

Both times are the prober's own (each write carries when it was sent), so the clocks of blue, green and whoever reads need not agree.
``Seconds_Behind_Master`` and CloudWatch are not asked: they have been seen at 0 while a replica was seconds behind.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dbops import mysql, sql
from dbops.blue_green.probes import TABLE
from dbops.blue_green.recording import Recording


@dataclass(frozen=True)
class LagSample:
    """Lag at one read of green. ``seconds`` is None when it is unknown, which is never "no lag"; the true lag is at most a period more."""

    at: int
    """Monotonic ns at which the read was sent."""
    seconds: float | None


@dataclass(frozen=True)
class LagSummary:
    """Distribution of the known samples, in seconds (nearest rank); None where no sample is known."""

    samples: int
    unknown: int
    p50_s: float | None
    p95_s: float | None
    max_s: float | None


def samples(recording: Recording, green_lane: str) -> list[LagSample]:
    """One sample per attempt of a read lane on green: against the newest write acknowledged before that read was sent."""
    writes = sorted(
        (a.done, a.sent) for lane in recording.of_kind("write") for a in recording.lanes.get(lane, ()) if a.ok
    )
    acked = [done for done, _ in writes]
    newest: list[int] = []
    for _, sent in writes:
        newest.append(max(sent, newest[-1]) if newest else sent)
    found = []
    for attempt in recording.lanes.get(green_lane, ()):
        at = bisect_right(acked, attempt.sent)
        known = attempt.ok and attempt.beat is not None and at > 0
        found.append(LagSample(attempt.sent, max(0, newest[at - 1] - (attempt.beat or 0)) / 1e9 if known else None))
    return found


def summary(of: Sequence[LagSample]) -> LagSummary:
    """p50, p95 and maximum."""
    known = sorted(sample.seconds for sample in of if sample.seconds is not None)
    return LagSummary(
        len(of), len(of) - len(known), _rank(known, 0.5), _rank(known, 0.95), known[-1] if known else None
    )


def held(of: Sequence[LagSample], limit_s: float, count: int) -> bool:
    """Whether the last `count` samples are all known and at most `limit_s`: the gate before a switchover."""
    return len(of) >= count and all(s.seconds is not None and s.seconds <= limit_s for s in of[-count:])


def now(blue: Any, green: Any, schema: str, run: str, *, stale_s: float = 2.0) -> float | None:
    """Lag in seconds at this moment, for a sensor; None when unknown.

    Green is read first: what blue writes meanwhile makes the answer larger, never smaller. Unknown is: no heartbeat on either side, or one
    on blue that is older than `stale_s` by blue's own clock, because nobody writes heartbeats any more and green would seem to catch up.
    """
    statement = sql.render("blue_green/heartbeat", table=(schema, TABLE))
    on_green, on_blue = (mysql.rows(conn, statement, {"run": run}) for conn in (green, blue))
    if not on_green or not on_blue or not -stale_s <= float(on_blue[0]["age_s"]) <= stale_s:
        return None
    return max(0.0, (on_blue[0]["sent_ns"] - on_green[0]["sent_ns"]) / 1e9)


def _rank(ordered: Sequence[float], share: float) -> float | None:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None
