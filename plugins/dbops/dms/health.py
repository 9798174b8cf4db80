"""Whether a task really replicates: what CloudWatch measures of many tasks in one question, and the verdict on one of them.

Fail-closed: what is missing, old or contradictory is not healthy. CDCLatencySource is 0 when DMS reads no event at all, and it grows
while a transaction of the source is open; so low latencies are needed, and where the spec declares a canary they are never enough.

Tasks have the dimensions ReplicationInstanceIdentifier and ReplicationTaskIdentifier, where the latter is the task's resource id: the
last part of its ARN, not its name (DMS user guide, "Monitoring AWS DMS tasks"). For a serverless replication the guide does not say
which dimensions there are; so CloudWatch is asked which of its metrics name the resource id or the identifier of the replication.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Literal

from dbops.asking import Question
from dbops.dms import canary as canaries
from dbops.dms.spec import DmsSpec
from dbops.dms.states import Instance, TableStatistics, Task, ending

NAMESPACE = "AWS/DMS"
PERIOD_S = 60
MAX_AGE_PERIODS = 3
"""The newest point has to be of one of so many last minutes."""
MAX_QUERIES = 500
"""Queries in one GetMetricData."""
GROWTH_POINTS = 4
"""CDCIncomingChanges has to grow from each of at least so many points to the next before it counts as growing."""
_NAMED = 5

Dimensions = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Point:
    """One minute of a metric; `at` is its begin."""

    at: datetime
    value: float


@dataclass(frozen=True)
class Measured:
    """Series of one task, oldest point first. Latencies (s) and waiting changes: maximum of a minute; rows/s: average."""

    latency_source: tuple[Point, ...] = ()
    latency_target: tuple[Point, ...] = ()
    incoming: tuple[Point, ...] = ()
    throughput_source: tuple[Point, ...] = ()
    throughput_target: tuple[Point, ...] = ()
    load_rows: tuple[Point, ...] = ()


Verdict = Literal["healthy", "unhealthy", "loading", "standing"]


@dataclass(frozen=True)
class Health:
    """The verdict on a task; `reasons` are never empty and name numbers and limits."""

    verdict: Verdict
    reasons: tuple[str, ...]


METRICS: Mapping[str, tuple[str, str]] = {
    "latency_source": ("CDCLatencySource", "Maximum"),
    "latency_target": ("CDCLatencyTarget", "Maximum"),
    "incoming": ("CDCIncomingChanges", "Maximum"),
    "throughput_source": ("CDCThroughputRowsSource", "Average"),
    "throughput_target": ("CDCThroughputRowsTarget", "Average"),
    "load_rows": ("FullLoadThroughputRowsTarget", "Average"),
}
"""Field of Measured -> metric and statistic."""


def resource_id(arn: str) -> str:
    """The last part of an ARN of DMS, by which CloudWatch knows a task."""
    return arn.rpartition(":")[2]


def latencies(
    tasks: Sequence[Task], instances: Iterable[Instance], *, until: datetime, minutes: int
) -> Question[dict[str, Measured]]:
    """Metrics of many tasks by their ARN, asked of CloudWatch: calls grow with pages of 500 series, not with tasks.

    Args:
        tasks: those that AWS has; one without an ARN is left out
        instances: every replication instance that the tasks run on; a task of another one has no dimensions and is left out
        until: end of the window, aware
        minutes: its length
    """
    known = {one.arn: one.identifier for one in instances}
    wanted: dict[str, Dimensions] = {}
    for task in tasks:
        if task.arn and not task.is_serverless and (instance := known.get(task.instance_arn)):
            wanted[task.arn] = (
                ("ReplicationInstanceIdentifier", instance),
                ("ReplicationTaskIdentifier", resource_id(task.arn)),
            )
    if serverless := [task for task in tasks if task.is_serverless and task.arn]:
        wanted |= yield from _found(serverless)
    series = [(arn, name) for arn in wanted for name in METRICS]
    points: dict[tuple[str, str], dict[datetime, float]] = {one: {} for one in series}
    for begin in range(0, len(series), MAX_QUERIES):
        yield from _page(series[begin : begin + MAX_QUERIES], wanted, points, until, minutes)
    return {arn: Measured(**{name: _sorted(points[arn, name]) for name in METRICS}) for arn in wanted}


def _sorted(points: Mapping[datetime, float]) -> tuple[Point, ...]:
    return tuple(Point(at, points[at]) for at in sorted(points))


def _page(
    series: Sequence[tuple[str, str]],
    wanted: Mapping[str, Dimensions],
    points: dict[tuple[str, str], dict[datetime, float]],
    until: datetime,
    minutes: int,
) -> Question[None]:
    """Ask for up to 500 series; CloudWatch may split one of them over pages."""
    end = _minute(until) + timedelta(minutes=1)
    arguments: dict[str, Any] = {
        "MetricDataQueries": [_query(f"m{number}", name, wanted[arn]) for number, (arn, name) in enumerate(series)],
        "StartTime": end - timedelta(minutes=minutes + 1),
        "EndTime": end,
        "ScanBy": "TimestampAscending",
    }
    while True:
        answer = yield "get_metric_data", arguments
        for result in answer.get("MetricDataResults") or ():
            number = int(str(result["Id"])[1:])
            pairs = zip(result.get("Timestamps") or (), result.get("Values") or (), strict=True)
            points[series[number]] |= {_minute(at): float(value) for at, value in pairs}
        if not (token := answer.get("NextToken")):
            return
        arguments = {**arguments, "NextToken": token}


def _query(number: str, field: str, dimensions: Dimensions) -> dict[str, Any]:
    metric, statistic = METRICS[field]
    named = [{"Name": name, "Value": value} for name, value in dimensions]
    of = {"Namespace": NAMESPACE, "MetricName": metric, "Dimensions": named}
    return {"Id": number, "MetricStat": {"Metric": of, "Period": PERIOD_S, "Stat": statistic}, "ReturnData": True}


def _found(tasks: Sequence[Task]) -> Question[dict[str, Dimensions]]:
    """Dimensions under which CloudWatch holds serverless replications; one that has none yet is left out."""
    names = {name: task.arn for task in tasks for name in (task.identifier, resource_id(task.arn))}
    found: dict[str, Dimensions] = {}
    for metric in ("CDCLatencySource", "FullLoadThroughputRowsTarget"):
        arguments: dict[str, Any] = {"Namespace": NAMESPACE, "MetricName": metric}
        while True:
            answer = yield "list_metrics", arguments
            for row in answer.get("Metrics") or ():
                dimensions = tuple((one["Name"], one["Value"]) for one in row.get("Dimensions") or ())
                arn = next((names[value] for _, value in dimensions if value in names), None)
                if arn:
                    found.setdefault(arn, dimensions)
            if not (token := answer.get("NextToken")):
                break
            arguments = {**arguments, "NextToken": token}
    return found


def judge(
    spec: DmsSpec,
    task: Task,
    measured: Measured | None,
    *,
    tables: tuple[TableStatistics, ...] | None,
    canary: canaries.Seen | None,
    now: datetime,
    counted_complete: bool = False,
) -> Health:
    """The verdict on a task as it is now.

    Args:
        spec: as declared
        task: as AWS shows it
        measured: its metrics; None when they could not be had, which is not healthy for a task that follows changes
        tables: its statistics; None when they could not be had
        canary: the row that was seen on the target, None when it was not
        now: aware
        counted_complete: the task's own counts say that every table is loaded and has no error; then `tables` may be None
    """
    if task.status in ("ready", "stopped") and spec.wanted == "stopped":
        return Health("standing", (f"the task is {task.status}, as the spec wants it",))
    if task.status == "running":
        wrong = [] if counted_complete and tables is None else _tables(spec, task, tables)
        return _running(spec, measured, tables, canary, now, wrong)
    if task.status == "starting":
        return _starting(spec, task, now)
    if not spec.has_cdc and task.status in ("stopped", "failed"):
        end = ending(task, tables, spec.task_type)
        return Health("healthy" if end.verdict == "good" else "unhealthy", end.reasons)
    return Health("unhealthy", (_standing_reason(spec, task),))


def _standing_reason(spec: DmsSpec, task: Task) -> str:
    if task.status == "missing":
        return f"AWS has no task {task.identifier}"
    why = [f"the task is {task.raw_status or task.status}, wanted {spec.wanted}"]
    if task.raw_stop_reason or task.stop_reason:
        why.append(f"stop reason {task.stop_reason or task.raw_stop_reason}")
    if task.failure:
        why.append(task.failure)
    return ": ".join(why)


def _starting(spec: DmsSpec, task: Task, now: datetime) -> Health:
    limit = timedelta(minutes=spec.limits.start_minutes)
    since = task.started_at
    if since is not None and now - since > limit:
        return Health(
            "unhealthy", (f"starting for {_minutes(now - since)} min, limit {spec.limits.start_minutes} min",)
        )
    return Health("loading", (f"the task is {task.raw_status or task.status}",))


def _running(
    spec: DmsSpec,
    measured: Measured | None,
    tables: tuple[TableStatistics, ...] | None,
    canary: canaries.Seen | None,
    now: datetime,
    wrong: list[str],
) -> Health:
    loading = [one for one in tables or () if one.is_loading] if spec.has_load else []
    if loading:
        wrong += _late(spec, loading, now)
        if not wrong:
            return Health("loading", _progress(loading, len(tables or ())))
    if spec.has_cdc and not loading:
        wrong += _changes(spec, measured, now)
        wrong += _proof(spec, canary, now)
    if wrong:
        return Health("unhealthy", tuple(wrong))
    if not spec.has_cdc:
        return Health("loading", ("every table is loaded, the task is about to end",))
    return Health("healthy", _good(spec, measured, canary))


def _tables(spec: DmsSpec, task: Task, tables: tuple[TableStatistics, ...] | None) -> list[str]:
    if tables is None:
        return ["statistics of the tables are unknown"]
    if not tables:
        return ["the task has no table"]
    wrong = [f"table {one.table} is in state {one.raw_state or one.state}" for one in tables if one.is_failed]
    limit = spec.limits.error_rows
    wrong += [
        f"table {one.table} has {one.error_rows} rows that failed to load, limit {limit}"
        for one in tables
        if one.error_rows > limit
    ]
    if task.tables_errored and not any(one.is_failed for one in tables):
        wrong.append(f"AWS counts {task.tables_errored} tables with errors")
    return wrong


def _late(spec: DmsSpec, loading: Sequence[TableStatistics], now: datetime) -> list[str]:
    limit = spec.limits.load_hours
    begun = [(one, now - one.load_started_at) for one in loading if one.load_started_at is not None]
    return [
        f"table {one.table} loads for {span.total_seconds() / 3600:.1f} h, limit {limit:g} h"
        for one, span in begun
        if span > timedelta(hours=limit)
    ]


def _progress(loading: Sequence[TableStatistics], count: int) -> tuple[str, ...]:
    named = ", ".join(f"{one.table} ({one.state}, {one.rows} rows)" for one in loading[:_NAMED])
    more = f" and {len(loading) - _NAMED} more" if len(loading) > _NAMED else ""
    return (f"{len(loading)} of {count} tables are not loaded yet: {named}{more}",)


def _changes(spec: DmsSpec, measured: Measured | None, now: datetime) -> list[str]:
    if measured is None:
        return ["CloudWatch has no metrics of the task"]
    wrong = [
        reason
        for name in ("latency_source", "latency_target")
        for reason in _latency(METRICS[name][0], getattr(measured, name), spec, now)
    ]
    return [*wrong, *_growing(spec, measured.incoming, now)]


def _latency(name: str, points: Sequence[Point], spec: DmsSpec, now: datetime) -> list[str]:
    """Why one series does not hold the limit for the last `samples` minutes; nothing when it does."""
    wanted, limit = spec.limits.samples, spec.limits.latency_s
    by_minute = {_minute(point.at): point.value for point in points}
    if not by_minute:
        return [f"{name} has no point"]
    end = max(by_minute)
    age = (_minute(now) - end) // timedelta(seconds=PERIOD_S)
    if age > MAX_AGE_PERIODS:
        return [f"the newest point of {name} is {age} min old, limit {MAX_AGE_PERIODS} min"]
    minutes = [end - timedelta(seconds=PERIOD_S * back) for back in range(wanted)]
    if missing := [minute for minute in minutes if minute not in by_minute]:
        return [f"{name} has {wanted - len(missing)} of the last {wanted} points; {_clock(missing[0])} UTC is missing"]
    high = max(by_minute[minute] for minute in minutes)
    if not high < limit:
        return [f"{name} was {high:g} s within the last {wanted} points, limit {limit:g} s"]
    return []


def _growing(spec: DmsSpec, points: Sequence[Point], now: datetime) -> list[str]:
    if not points:
        return ["CDCIncomingChanges has no point"]
    count = max(GROWTH_POINTS, spec.limits.samples + 1)
    last = sorted(points, key=lambda point: point.at)[-count:]
    age = (_minute(now) - _minute(last[-1].at)) // timedelta(seconds=PERIOD_S)
    if age > MAX_AGE_PERIODS:
        return [f"the newest point of CDCIncomingChanges is {age} min old, limit {MAX_AGE_PERIODS} min"]
    if len(last) == count and all(one.value < other.value for one, other in pairwise(last)):
        return [
            f"CDCIncomingChanges grew from {last[0].value:g} to {last[-1].value:g} over {count} points: "
            "the target takes changes more slowly than they come"
        ]
    return []


def _proof(spec: DmsSpec, seen: canaries.Seen | None, now: datetime) -> list[str]:
    if spec.canary is None:
        return []
    limit = spec.canary.max_age_s
    if seen is None:
        return [f"the canary row of {spec.canary_table} was not seen on the target, limit {limit} s"]
    way, age = (seen.seen_at - seen.written_at).total_seconds(), (now - seen.seen_at).total_seconds()
    wrong = []
    if way > limit:
        wrong.append(f"the canary row took {way:.0f} s to the target, limit {limit} s")
    if age > limit:
        wrong.append(f"the canary row was last seen {age:.0f} s ago, limit {limit} s")
    return wrong


def _good(spec: DmsSpec, measured: Measured | None, seen: canaries.Seen | None) -> tuple[str, ...]:
    wanted = spec.limits.samples
    both = (measured.latency_source, measured.latency_target) if measured else ()
    highest = [max(point.value for point in series[-wanted:]) for series in both]
    reasons = [
        f"latency of source {highest[0]:g} s and target {highest[1]:g} s over {wanted} points, limit {spec.limits.latency_s:g} s"
    ]
    if seen is None:
        reasons.append("no canary is declared: low latencies alone do not prove that changes arrive")
    else:
        way = (seen.seen_at - seen.written_at).total_seconds()
        limit = spec.canary.max_age_s if spec.canary else 0
        reasons.append(f"the canary row took {way:.0f} s to the target, limit {limit} s")
    return tuple(reasons)


def _minute(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(second=0, microsecond=0)


def _minutes(span: timedelta) -> int:
    return int(span.total_seconds() // 60)


def _clock(at: datetime) -> str:
    return f"{at:%H:%M}"


def window(spec: DmsSpec) -> int:
    """Minutes of metrics that a verdict on this spec needs, with those that may come late."""
    return max(GROWTH_POINTS, spec.limits.samples + 1) + 2 * MAX_AGE_PERIODS
