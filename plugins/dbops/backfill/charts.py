"""Charts of a backfill: rows and write units a second over time, what the store turned away, and where the tasks' time went."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

from dbops import reports
from dbops.backfill.records import Tally

MAX_POINTS = 400
"""Points of a line. Of more, neighbours become one stretch with the rate over all of it."""
GAP = timedelta(minutes=5)
"""Longer stretches without a checkpoint, such as a pause, break the line: a rate over them would be of no time."""


class Sample(NamedTuple):
    """Sums over the whole plan at one time, as checkpoints leave them (`journal.Journal.series`)."""

    at: datetime
    rows_done: int
    units: float = 0.0
    refused: int = 0


def progress(samples: Sequence[Sample], units_per_s: float) -> reports.Section:
    """Rows/s, write units/s with their limit, and refused requests/s.

    Args:
        samples: oldest first
        units_per_s: limit of the spec, drawn as a dashed line
    """
    import altair as alt

    title = "Progress"
    rates = _rates(samples)
    if not rates:
        return reports.Text(
            title=title, body="The journal has fewer than two samples a minute apart, so there is no rate to draw."
        )
    time = alt.X("at:T", title="UTC", scale=alt.Scale(type="utc"), axis=alt.Axis(format="%d %H:%M"))
    panels = []
    for name, label, height in (
        ("rows", "rows/s", 140),
        ("units", "write units/s", 120),
        ("refused", "refused requests/s", 90),
    ):
        line = (
            alt.Chart(alt.Data(values=rates))
            .mark_line(point=alt.OverlayMarkDef(size=12))
            .encode(x=time, y=alt.Y(f"{name}:Q", title=label, scale=alt.Scale(zero=True)), detail="stretch:N")
        )
        if name == "units":
            limit = alt.Chart(alt.Data(values=[{"limit": units_per_s}])).mark_rule(strokeDash=[4, 3])
            panels.append((line + limit.encode(y="limit:Q")).properties(width=820, height=height))
        else:
            panels.append(line.properties(width=820, height=height))
    chart = alt.vconcat(*panels).resolve_scale(x="shared")
    note = f"Each point is the mean since the point before. Dashed: the limit of {units_per_s:,g} write units/s. "
    note += f"A line is broken where no checkpoint came for {GAP.total_seconds() / 60:g} minutes."
    if len(samples) > MAX_POINTS:
        note += f" {len(samples):,} samples were joined to {len(rates):,} points."
    return reports.Chart(title=title, vega=dict(chart.to_dict()), note=note)


def time_spent(tally: Tally) -> reports.Section | None:
    """Where the time of all tasks went, as one bar; None when nothing was timed."""
    import altair as alt

    parts = [("reading MySQL", tally.read_s), ("writing and reading back", tally.write_s), ("waiting", tally.waited_s)]
    whole = sum(seconds for _, seconds in parts)
    if whole <= 0:
        return None
    rows = [{"what": what, "seconds": seconds, "order": n} for n, (what, seconds) in enumerate(parts)]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(height=22)
        .encode(
            x=alt.X("seconds:Q", title="seconds, summed over tasks"),
            color=alt.Color("what:N", title=None, sort=None),
            order="order:Q",
        )
        .properties(width=820, height=50)
    )
    told = ", ".join(f"{what} {seconds:,.0f} s ({seconds / whole:.0%})" for what, seconds in parts)
    note = f"{told}. Waiting is for the limiter and for what the brake held the copy back for."
    return reports.Chart(title="Where the tasks' time went", vega=dict(chart.to_dict()), note=note)


def _rates(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Rates between neighbours of one stretch."""
    step = max(1, -(-len(samples) // MAX_POINTS))
    rates: list[dict[str, Any]] = []
    for number, stretch in enumerate(_stretches(samples)):
        kept = [*stretch[:-1:step], stretch[-1]]
        for before, after in pairwise(kept):
            seconds = (after.at - before.at).total_seconds()
            at = f"{after.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
            rows, units, refused = (moved / seconds for moved in _moved(before, after))
            rates.append({"at": at, "rows": rows, "units": units, "refused": refused, "stretch": number})
    return rates


def _stretches(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Samples without a gap between them. Sums that fall (chunks that were opened again) begin a new stretch."""
    found: list[list[Sample]] = []
    for sample in samples:
        last = found[-1][-1] if found else None
        if last is not None and timedelta(0) < sample.at - last.at <= GAP and min(_moved(last, sample)) >= 0:
            found[-1].append(sample)
        else:
            found.append([sample])
    return found


def _moved(before: Sample, after: Sample) -> tuple[float, float, float]:
    return after.rows_done - before.rows_done, after.units - before.units, after.refused - before.refused
