"""The wait for changes that really flow: the task runs, and both latencies are known and small several points in a row.

CDCLatencySource is also 0 when no event was read, so small latencies are no proof that the source is followed: a row that is written on the
source and seen on the target is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, TypeVar

from dbops.asking import Question
from dbops.dms import states
from dbops.dms.states import TRANSIENT
from dbops.dms.waits.base import Judgement, Seen, TaskWait, parsed, seeing, status_text

H = TypeVar("H", bound="CdcHealthy")
METRICS = ("CDCLatencySource", "CDCLatencyTarget")
NAMESPACE = "AWS/DMS"
Points = tuple[tuple[datetime, float], ...]
"""(begin of the period, maximum), oldest first."""


@dataclass(frozen=True, kw_only=True)
class CdcHealthy(TaskWait):
    """Until the task runs, no table has failed, and the last points of both latencies hold their limits."""

    max_source_s: float
    max_target_s: float
    min_points: int = 3
    """Points in a row, without a gap, that have to hold."""
    period_s: int = 60
    max_age_s: int = 300
    """A newest point that ended longer ago is unknown."""
    not_before: str = ""
    """Points of periods that began before this moment (ISO 8601) do not count."""
    dimensions: tuple[tuple[str, str], ...] = ()
    """Of the metrics; when empty, those of the task, from its instance and its ARN."""

    def __post_init__(self) -> None:
        if self.min_points < 1 or self.period_s < 1 or self.max_source_s < 0 or self.max_target_s < 0:
            raise ValueError(
                f"min_points={self.min_points}, period_s={self.period_s}, limits {self.max_source_s:g} s and "
                f"{self.max_target_s:g} s: expected at least 1 point, a period of at least 1 s and limits of at least 0 s"
            )

    def _look(self: H, now: datetime) -> Question[H]:
        seen = yield from seeing(self.arn, tables=True)
        ready, points = self, dict[str, Points]()
        if seen.task.status == "running":
            if not self.dimensions:
                ready = replace(self, dimensions=(yield from _dimensions(seen)))
            points = yield from ready._measuring(now)
        return ready.judged(seen, points, now)

    def judged(self: H, seen: Seen, points: Mapping[str, Points], now: datetime) -> H:
        """The wait after one more look."""
        after = self.advance(seen, now)
        if after.outcome != "good":
            return after
        told = {**after.told, "latency": {name: [value for _, value in points.get(name, ())] for name in METRICS}}
        wrong = [text for name in METRICS if (text := self._unhealthy(name, points.get(name, ()), now))]
        if wrong:
            return replace(after, outcome="open", reasons=tuple(wrong), told=told)
        return replace(after, told=told)

    def _judge(self, seen: Seen, now: datetime) -> Judgement:
        task = seen.task
        if task.task_type == "full-load":
            return "bad", ("a task of type full-load follows no changes",)
        if task.status in TRANSIENT or task.status in ("ready", "unknown"):
            return "open", (status_text(task),)
        if task.status != "running":
            return "bad", (status_text(task),)
        failed = [
            f"table {one.table} is in state {one.raw_state or one.state}" for one in seen.tables or () if one.is_failed
        ]
        if failed:
            return "bad", tuple(failed)
        if not seen.tables:
            return "open", ("statistics of the tables are unknown",)
        if loading := [one for one in seen.tables if one.is_loading and task.task_type != "cdc"]:
            return "open", (f"{len(loading)} tables are loading",)
        limits = f"{self.max_source_s:g} s and {self.max_target_s:g} s"
        return "good", (f"running, latencies of source and target within {limits} for {self.min_points} points",)

    def _unhealthy(self, name: str, points: Points, now: datetime) -> str:
        limit = self.max_source_s if name == METRICS[0] else self.max_target_s
        begun = parsed(self.not_before)
        found = [(at, value) for at, value in points if begun is None or at >= begun][-self.min_points :]
        if len(found) < self.min_points:
            return f"{name}: {len(found)} of {self.min_points} points are there"
        age = (now - found[-1][0]).total_seconds() - self.period_s
        if age > self.max_age_s:
            return f"{name}: the newest point is {age:.0f} s old"
        if any((later - at).total_seconds() > self.period_s * 1.5 for (at, _), (later, _) in pairwise(found)):
            return f"{name}: points are missing in between"
        above = [value for _, value in found if not value <= limit]  # no number is not small either
        return f"{name}: {max(above):g} s, limit {limit:g} s" if above else ""

    def _measuring(self, now: datetime) -> Question[dict[str, Points]]:
        chosen = [{"Name": name, "Value": value} for name, value in self.dimensions]
        queries = [
            {
                "Id": name.lower(),
                "MetricStat": {
                    "Metric": {"Namespace": NAMESPACE, "MetricName": name, "Dimensions": chosen},
                    "Period": self.period_s,
                    "Stat": "Maximum",
                },
            }
            for name in METRICS
        ]
        asked: dict[str, Any] = {
            "MetricDataQueries": queries,
            "StartTime": now - timedelta(seconds=self.max_age_s + (self.min_points + 2) * self.period_s),
            "EndTime": now + timedelta(seconds=1),
            "ScanBy": "TimestampAscending",
        }
        found: dict[str, list[tuple[datetime, float]]] = {name: [] for name in METRICS}
        by_id = {name.lower(): name for name in METRICS}
        while True:
            answer = yield "get_metric_data", asked
            for result in answer.get("MetricDataResults") or []:
                found[by_id[result["Id"]]] += zip(map(_aware, result["Timestamps"]), result["Values"], strict=True)
            if not (token := answer.get("NextToken")):
                return {name: tuple(sorted(points)) for name, points in found.items()}
            asked = {**asked, "NextToken": token}


def _dimensions(seen: Seen) -> Question[tuple[tuple[str, str], ...]]:
    """What CloudWatch knows the task by: the name of its instance, and the last part of its ARN."""
    own = seen.task.arn.rpartition(":")[2]
    if seen.task.is_serverless:
        return (("ReplicationTaskIdentifier", own),)
    chosen = [{"Name": "replication-instance-arn", "Values": [seen.task.instance_arn]}]
    rows = yield from states.pages("describe_replication_instances", "ReplicationInstances", Filters=chosen)
    name = str(rows[0].get("ReplicationInstanceIdentifier") or "") if rows else ""
    return (("ReplicationInstanceIdentifier", name), ("ReplicationTaskIdentifier", own))


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
