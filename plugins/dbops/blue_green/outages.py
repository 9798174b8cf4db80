"""Outages and downtime from a recording, with the error that sampling leaves.

Two kinds of evidence, each an instant: an attempt that succeeded shows that the service worked when it was acknowledged; one that failed or
stalled shows that it did not. An outage lies between two acknowledgements with evidence against the service between them: it began after
the one and not later than the first evidence, and ended not before the last evidence and before the other. The middle of each interval is
the estimate, half of it the error; both together come to about one probe period. An outage that fits between two attempts is not seen.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from dbops.blue_green.probes import REFUSALS
from dbops.blue_green.recording import Attempt, Recording

Measure = Literal["write", "read", "connect"]
STALL_PERIODS = 3
"""An attempt that needed longer than so many periods stalled."""


@dataclass(frozen=True)
class Outage:
    """A stretch in which the service did not work. Times in ns of the monotonic clock.

    ``end`` is None when it was not over with the last attempt; ``errors`` counts error numbers, and is empty for a stall that ended well.
    """

    start: int
    start_error: int
    end: int | None
    end_error: int
    errors: tuple[tuple[int, int], ...]
    phase: str
    """Phase in which it began; one that is younger than a probe period then counts."""

    @property
    def seconds(self) -> float | None:
        """Estimated length; None while it lasts."""
        return None if self.end is None else (self.end - self.start) / 1e9

    @property
    def error_s(self) -> float:
        """The true length differs from ``seconds`` by at most this."""
        return (self.start_error + self.end_error) / 1e9

    @property
    def stalled(self) -> bool:
        """No attempt failed; those that were waiting were answered late."""
        return not self.errors


@dataclass(frozen=True)
class Downtime:
    """What one measure comes to: seconds in total and of the longest outage, each +- its error."""

    measure: Measure
    outages: tuple[Outage, ...]
    total_s: float
    total_error_s: float
    stalled_s: float
    """The part of the total in which nothing failed but answers came late."""
    longest_s: float
    longest_error_s: float
    failed_attempts: int
    attempts: int
    blind_s: float
    """Time in which nobody looked (the prober was dead or could not keep up): neither up nor down."""
    is_over: bool
    """False when the last outage was not over with the last attempt: then the figures are lower bounds."""


@dataclass(frozen=True)
class _Sample:
    sent: int
    done: int
    errno: int


def measure(
    recording: Recording, lane: str, what: Measure, *, since: int | None = None, until: int | None = None
) -> Downtime:
    """Downtime that one lane saw, of attempts sent in [since, until) (monotonic ns).

    Args:
        recording: what probes wrote
        lane: name of a lane of kind read or write
        what: ``connect`` counts an attempt as well once it has a connection; otherwise the whole attempt counts
        since: first instant, or None
        until: end, or None

    Raises:
        ValueError: the lane has no attempt in that time, so nothing is known
    """
    samples = _samples(recording.lanes.get(lane, ()), what, since, until)
    if not samples:
        known = ", ".join(recording.lanes) or "none"
        raise ValueError(f"lane {lane!r} has no attempt in that time; lanes with attempts: {known}")
    found = find(samples, recording.period, recording)
    over = [outage for outage in found if outage.end is not None]
    longest = max(over, key=lambda outage: outage.seconds or 0.0, default=None)
    return Downtime(
        measure=what,
        outages=tuple(found),
        total_s=sum(outage.seconds or 0.0 for outage in over),
        total_error_s=sum(outage.error_s for outage in over),
        stalled_s=sum(outage.seconds or 0.0 for outage in over if outage.stalled),
        longest_s=(longest.seconds or 0.0) if longest else 0.0,
        longest_error_s=longest.error_s if longest else 0.0,
        failed_attempts=sum(sample.errno != 0 for sample in samples),
        attempts=len(samples),
        blind_s=sum(max(0, b.sent - a.sent - 2 * recording.period) for a, b in pairwise(samples)) / 1e9,
        is_over=len(over) == len(found),
    )


def was_probed(recording: Recording, lane: str, since: int, until: int) -> bool:
    """Whether the lane has an attempt in [since, until), so that :func:`measure` has something to measure."""
    return any(since <= attempt.sent < until for attempt in recording.lanes.get(lane, ()))


def accepted_writes(recording: Recording, lane: str) -> list[Attempt]:
    """Attempts of a ``refused_write`` lane that green accepted: it was not read-only."""
    return [attempt for attempt in recording.lanes.get(lane, ()) if attempt.ok]


def refused_writes(recording: Recording, lane: str) -> int:
    """How many attempts of a ``refused_write`` lane were refused for being read-only (not for want of a privilege or a connection)."""
    return sum(attempt.errno in REFUSALS for attempt in recording.lanes.get(lane, ()))


def find(samples: Sequence[_Sample], period: int, phases: Recording) -> list[Outage]:
    """Outages among samples in order of sending; see the module."""
    stall = STALL_PERIODS * period
    latencies = sorted(s.done - s.sent for s in samples if s.errno == 0)
    usual = latencies[len(latencies) // 2] if latencies else 0
    ups = sorted(sample.done for sample in samples if sample.errno == 0)
    downs = sorted(
        ((_evidence(s, stall), s) for s in samples if s.errno != 0 or s.done - s.sent > stall),
        key=lambda down: down[0],
    )
    found: list[Outage] = []
    at = 0
    while at < len(downs):
        before, after = _around(ups, downs[at][0])
        end = at
        while end < len(downs) and (after is None or downs[end][0] < after):
            end += 1
        found.append(_outage(downs[at:end], before, after, (period, usual), phases))
        at = end
    return found


def _outage(
    downs: Sequence[tuple[int, _Sample]], before: int | None, after: int | None, of: tuple[int, int], phases: Recording
) -> Outage:
    period, usual = of
    first, last = downs[0][0], downs[-1][0]
    if after is not None and any(s.errno == 0 and s.done <= after + period for _, s in downs):
        # Attempts that waited were answered with the first one: the service came back just then, not somewhere after the last sending.
        last = max(last, after - usual)
    begin = first if before is None else before
    errors = Counter(s.errno for _, s in downs if s.errno)
    return Outage(
        start=(begin + first) // 2,
        start_error=(first - begin + 1) // 2,
        end=None if after is None else (last + after) // 2,
        end_error=0 if after is None else (after - last + 1) // 2,
        errors=tuple(errors.most_common()),
        # An attempt that was under way when the phase began may be the first that is caught by it.
        phase=phases.phase_at(min(first + period, last)),
    )


def _samples(attempts: Sequence[Attempt], what: Measure, since: int | None, until: int | None) -> list[_Sample]:
    kept = (a for a in attempts if (since is None or a.sent >= since) and (until is None or a.sent < until))
    if what == "connect":
        return [
            _Sample(a.sent, a.done if a.connected is None else a.connected, a.errno if a.connected is None else 0)
            for a in kept
        ]
    return [_Sample(a.sent, a.done, a.errno) for a in kept]


def _evidence(sample: _Sample, stall: int) -> int:
    """When the sample shows that the service did not work: at its answer, or, when it hung, when it was sent."""
    return sample.sent if sample.done - sample.sent > stall else sample.done


def _around(ups: Sequence[int], instant: int) -> tuple[int | None, int | None]:
    at = bisect_right(ups, instant)
    return (ups[at - 1] if at else None, ups[at] if at < len(ups) else None)
