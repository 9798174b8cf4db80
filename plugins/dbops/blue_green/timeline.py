"""Charts of a rehearsal: which phase it was in, what each lane of probes saw, and how far green was behind, over one axis of time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from dbops.blue_green import lag
from dbops.blue_green.outages import STALL_PERIODS
from dbops.blue_green.recording import SECOND, Attempt, Recording

BINS = 400
"""Stretches of time that a chart is cut into; each shows the worst that a lane saw in it."""
STATES = ("answered", "refused as it must be", "late", "failed")
_COLOURS = ("#4c956c", "#9fb8ad", "#e9a23b", "#c8553d")


def chart(
    recording: Recording, since: int, until: int, *, green_lane: str | None = None, lag_until: int | None = None
) -> dict[str, Any]:
    """A Vega-Lite chart of [since, until), monotonic ns; its axis counts seconds from `since`.

    Args:
        recording: what probes wrote
        since: first instant
        until: end
        green_lane: read lane whose lag is shown
        lag_until: no lag is shown from then on, because green replicates no more

    Raises:
        ValueError: the stretch is empty
    """
    import altair as alt

    if until <= since:
        raise ValueError(f"since={since}, until={until}: the stretch of time is empty")
    axis = alt.Scale(domain=[0, (until - since) / SECOND], nice=False)
    span = {"x": alt.X("from:Q", scale=axis, title="seconds"), "x2": "to:Q"}
    size = {"width": 820}
    phases = (
        alt.Chart(alt.Data(values=list(_phases(recording, since, until))))
        .mark_bar(height=16, stroke="white")
        .encode(**span, y=alt.Y("row:N", title=None), color=alt.Color("phase:N", title="phase", scale=alt.Scale(scheme="blues"),
                sort=None, legend=alt.Legend(orient="bottom", columns=5, labelLimit=240)))
        .properties(**size, height=24)
    )  # fmt: skip
    lanes = (
        alt.Chart(alt.Data(values=list(_lanes(recording, since, until))))
        .mark_bar(height=14)
        .encode(
            **span,
            y=alt.Y("lane:N", title=None, sort=list(recording.lanes)),
            color=alt.Color("state:N", title="worst answer", scale=alt.Scale(domain=list(STATES), range=list(_COLOURS)),
                            legend=alt.Legend(orient="bottom")),
        )
        .properties(**size, height=alt.Step(20))
    )  # fmt: skip
    panels = [phases, lanes]
    if green_lane is not None and (points := list(_lag(recording, since, min(until, lag_until or until), green_lane))):
        panels.append(
            alt.Chart(alt.Data(values=points))
            .mark_line(interpolate="step-after", strokeWidth=1)
            .encode(x=alt.X("at:Q", scale=axis, title="seconds"), y=alt.Y("lag:Q", title="lag of green, s"))
            .properties(**size, height=90)
        )
    return dict(alt.vconcat(*panels).resolve_scale(color="independent").to_dict())


def _phases(recording: Recording, since: int, until: int) -> Iterator[dict[str, Any]]:
    starts = [(since, recording.phase_at(since)), *((at, name) for at, name in recording.phases if since < at < until)]
    for (start, name), (end, _) in pairwise([*starts, (until, "")]):
        yield {"row": "phase", "phase": name, "from": (start - since) / SECOND, "to": (end - since) / SECOND}


def _lanes(recording: Recording, since: int, until: int) -> Iterator[dict[str, Any]]:
    """Stretches of one state; neighbours of the same state are one. Time in which nobody looked has no bar."""
    for lane, attempts in recording.lanes.items():
        refuses = recording.kinds[lane] == "refused_write"
        width = max(1, (until - since) // BINS)
        open_bar: dict[str, Any] | None = None
        for start in range(since, until, width):
            inside = attempts[_at(attempts, start) : _at(attempts, min(until, start + width))]
            state = STATES[max(_state(a, refuses, recording.period) for a in inside)] if inside else None
            end = (min(until, start + width) - since) / SECOND
            if open_bar is not None and open_bar["state"] == state:
                open_bar["to"] = end
                continue
            if open_bar is not None:
                yield open_bar
            open_bar = state and {"lane": lane, "state": state, "from": (start - since) / SECOND, "to": end}  # type: ignore[assignment]
        if open_bar:
            yield open_bar


def _state(attempt: Attempt, refuses: bool, period: int) -> int:
    """Index into STATES."""
    from dbops.blue_green.probes import REFUSALS

    if refuses:
        return 1 if attempt.errno in REFUSALS else 3
    if not attempt.ok:
        return 3
    return 2 if attempt.done - attempt.sent > STALL_PERIODS * period else 0


def _lag(recording: Recording, since: int, until: int, lane: str) -> Iterator[dict[str, float]]:
    """The largest known lag of each stretch."""
    known = [s for s in lag.samples(recording, lane) if s.seconds is not None and since <= s.at < until]
    width = max(1, (until - since) // BINS)
    worst: dict[int, float] = {}
    for sample in known:
        number = (sample.at - since) // width
        worst[number] = max(worst.get(number, 0.0), sample.seconds or 0.0)
    for number, seconds in sorted(worst.items()):
        yield {"at": number * width / SECOND, "lag": seconds}


def _at(attempts: Sequence[Attempt], instant: int) -> int:
    return bisect_left(attempts, instant, key=lambda attempt: attempt.sent)
