"""Charts of a DMS task: its latencies with their limit, and its throughput, over one axis of time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from dbops import reports

MAX_POINTS = 400
"""Points of a line; of more the largest of each stretch is drawn."""
GAP = timedelta(minutes=3)
"""A line is broken where no point is known for so long."""
_LATENCIES = (("latency_source", "source: waiting to be read"), ("latency_target", "target: waiting to be applied"))
_THROUGHPUTS = (("throughput_source", "read"), ("throughput_target", "applied"), ("load_rows", "loaded"))


class Point(Protocol):
    """One value of a metric."""

    @property
    def at(self) -> datetime: ...  # noqa: D102
    @property
    def value(self) -> float: ...  # noqa: D102


class Measured(Protocol):
    """Series of a task, oldest point first, as :mod:`dbops.dms.health` reads them."""

    @property
    def latency_source(self) -> Sequence[Point]: ...  # noqa: D102
    @property
    def latency_target(self) -> Sequence[Point]: ...  # noqa: D102
    @property
    def throughput_source(self) -> Sequence[Point]: ...  # noqa: D102
    @property
    def throughput_target(self) -> Sequence[Point]: ...  # noqa: D102
    @property
    def load_rows(self) -> Sequence[Point]: ...  # noqa: D102


def of_task(name: str, measured: Measured, limit_s: float) -> reports.Section:
    """Latency and throughput of a task; what was not measured is said.

    Args:
        name: identifier of the task
        measured: its metrics
        limit_s: of each latency
    """
    import altair as alt

    title = f"Latency and throughput of {name}"
    latency, throughput = _lines(measured, _LATENCIES), _lines(measured, _THROUGHPUTS)
    if not latency and not throughput:
        return reports.Text(title=title, body="CloudWatch has no point of its latencies and throughput in this window.")
    panels = []
    if latency:
        lines = _lines_chart(latency, "latency, s")
        limit = alt.Chart(alt.Data(values=[{"limit": limit_s}])).mark_rule(strokeDash=[4, 3])
        panels.append((lines + limit.encode(y="limit:Q")).properties(width=820, height=160))
    if throughput:
        panels.append(_lines_chart(throughput, "rows/s").properties(width=820, height=120))
    chart = alt.vconcat(*panels).resolve_scale(color="independent", x="shared")
    missing = [label for name, label in (*_LATENCIES, *_THROUGHPUTS) if not getattr(measured, name)]
    note = f"Dashed: the limit of {limit_s:g} s. A line is broken where no point is known."
    if missing:
        note += f" Not measured: {'; '.join(missing)}."
    if any(len(getattr(measured, name)) > MAX_POINTS for name, _ in (*_LATENCIES, *_THROUGHPUTS)):
        note += f" Of more than {MAX_POINTS} points the largest of each stretch is drawn."
    return reports.Chart(title=title, vega=dict(chart.to_dict()), note=note)


def _lines_chart(rows: list[dict[str, Any]], title: str) -> Any:
    import altair as alt

    return (
        alt.Chart(alt.Data(values=rows))
        .mark_line(point=alt.OverlayMarkDef(size=12))
        .encode(
            x=alt.X("at:T", title="UTC", scale=alt.Scale(type="utc"), axis=alt.Axis(format="%d %H:%M")),
            y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=True)),
            color=alt.Color("line:N", title=None, sort=None),
            detail="stretch:N",
        )
    )


def _lines(measured: Measured, named: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """Rows of a chart. Neighbours that are further apart than GAP belong to different stretches, so no line leads over the gap."""
    found = []
    for name, label in named:
        stretch, last = 0, None
        points = getattr(measured, name)
        gap = GAP * max(1, -(-len(points) // MAX_POINTS))
        for point in _thinned(points):
            if last is not None and point.at - last > gap:
                stretch += 1
            last = point.at
            at = f"{point.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
            found.append({"at": at, "value": point.value, "line": label, "stretch": stretch})
    return found


def _thinned(points: Sequence[Point]) -> list[Point]:
    """The largest of each stretch, so that a peak is never lost."""
    width = max(1, -(-len(points) // MAX_POINTS))
    return [max(points[first : first + width], key=lambda p: p.value) for first in range(0, len(points), width)]
