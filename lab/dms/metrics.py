"""CloudWatch of the simulated DMS: metrics of tasks, replications and instances in AWS/DMS, and GetMetricData as AWS answers it.

moto's own GetMetricData compares the dimensions of a metric in the order in which they come, and looks at every point for every query.
"""

from __future__ import annotations

import json
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from moto.cloudwatch.exceptions import ValidationError
from moto.cloudwatch.models import CloudWatchBackend, Statistics, cloudwatch_backends
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.responses import ActionResult
from moto.core.utils import utcnow

from lab.dms.state import State

PERIOD_S = 2  # AWS puts them every minute; a test takes seconds
FRESH_S = 10  # a task that has not measured itself for so long has no metrics
KEPT = timedelta(hours=1)
QUERIES, POINTS = 500, 100_800  # the largest request and the largest answer
GIB = 2**30
Values = dict[str, float]


def run(backends: list[Any]) -> None:
    """Put the metrics of everything that runs, for as long as the process lives."""
    before: dict[str, tuple[float, float, float]] = {}
    while True:
        time.sleep(PERIOD_S)
        for backend in list(backends):
            try:
                _put_all(backend, before)
            except Exception:  # what is deleted just now must not end the metrics of all
                traceback.print_exc()


def _put_all(backend: Any, before: dict[str, tuple[float, float, float]]) -> None:
    for task in [*backend.tasks.values(), *backend.replications.values()]:
        is_measured = task.state.measured_s > time.time() - FRESH_S
        if task.status == "running" and is_measured and not backend.fault("drop_metrics", task.id):
            _put(backend, task.dimensions(), _values(task.arn, task.state, before))
    for instance in list(backend.replication_instances.values()):
        if not backend.fault("drop_metrics", instance.id):
            free = 0.0 if backend.fault("instance_full", instance.id) else instance.allocated_storage * GIB * 0.9
            _put(backend, {"ReplicationInstanceIdentifier": instance.id}, {"FreeStorageSpace": free, "SwapUsage": 0.0})
    _forget(cloudwatch_backends[backend.account_id][backend.region_name].metric_data, utcnow() - KEPT)


def _forget(data: list[Any], until: datetime) -> None:
    """Drop the oldest points of the lab; those that somebody else put stay."""
    old = 0
    while old < len(data) and data[old].namespace in {"AWS/DMS", "AWS/RDS"} and data[old].timestamp < until:
        old += 1
    del data[:old]


def _values(arn: str, state: State, before: dict[str, tuple[float, float, float]]) -> Values:
    tables = state.tables.values()
    loaded = float(sum(each.FullLoadRows for each in tables))
    applied = float(sum(each.AppliedInserts + each.AppliedUpdates + each.AppliedDeletes for each in tables))
    at, old_loaded, old_applied = before.get(arn, (time.time() - PERIOD_S, loaded, applied))
    before[arn] = (time.time(), loaded, applied)
    span = max(0.1, time.time() - at)
    rows = max(0.0, (applied - old_applied) / span)
    made = {"FullLoadThroughputRowsTarget": max(0.0, (loaded - old_loaded) / span)}
    if state.phase == "cdc":
        made |= {"CDCThroughputRowsSource": rows, "CDCThroughputRowsTarget": rows, **state.metrics}
    return made


def _put(backend: Any, dimensions: dict[str, str], values: Values) -> None:
    data = [
        {
            "MetricName": name,
            "Value": value,
            "Unit": _unit(name),
            "Dimensions": [{"Name": key, "Value": text} for key, text in dimensions.items()],
        }
        for name, value in values.items()
    ]
    cloudwatch_backends[backend.account_id][backend.region_name].put_metric_data("AWS/DMS", data)


def _unit(name: str) -> str:
    if "Latency" in name:
        return "Seconds"
    return "Count/Second" if "Throughput" in name else "Bytes" if name in {"FreeStorageSpace", "SwapUsage"} else "Count"


# GetMetricData


def install() -> None:
    """Put AWS's GetMetricData in the place of moto's; queries with an expression stay moto's."""
    moto_answer = CloudWatchResponse.get_metric_data

    def get_metric_data(self: Any) -> ActionResult:
        given = self._get_params()
        queries = given.get("MetricDataQueries", [])
        if len(queries) > QUERIES:
            raise ValidationError(f"The collection MetricDataQueries must not have a size greater than {QUERIES}.")
        if any("MetricStat" not in query for query in queries) or given["StartTime"] >= given["EndTime"]:
            return moto_answer(self)  # type: ignore[no-any-return]
        return ActionResult(page(given, list(series(self.cloudwatch_backend, given))))

    CloudWatchResponse.get_metric_data = get_metric_data


def series(store: CloudWatchBackend, given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One result for every query, with all of its points."""
    begin, end = (given[name].replace(microsecond=0) for name in ("StartTime", "EndTime"))
    held: dict[Any, list[Any]] = defaultdict(list)
    for datum in store.get_all_metrics():
        if begin <= datum.timestamp < end:
            held[datum.namespace, datum.name, _key((d.name, d.value) for d in datum.dimensions)].append(datum)
    for query in given.get("MetricDataQueries", []):
        if not query.get("ReturnData", True):
            continue
        asked = query["MetricStat"]
        metric, span = asked["Metric"], int(asked["Period"])
        key = _key((d["Name"], d["Value"]) for d in metric.get("Dimensions", []))
        periods: dict[int, list[Any]] = defaultdict(list)
        for datum in held[metric["Namespace"], metric["MetricName"], key]:
            periods[int((datum.timestamp - begin).total_seconds()) // span].append(datum)
        points = [(begin + timedelta(seconds=number * span), periods[number]) for number in sorted(periods)]
        if (given.get("ScanBy") or "TimestampDescending") == "TimestampDescending":
            points.reverse()
        yield {
            "id": query["Id"],
            "label": query.get("Label") or metric["MetricName"],
            "timestamps": [at for at, _ in points],
            "values": [_statistic(asked["Stat"], data) for _, data in points],
            "status_code": "Complete",
        }


def _key(pairs: Iterator[tuple[Any, Any]]) -> tuple[Any, ...]:
    return tuple(sorted(pairs))


def _statistic(name: str, data: list[Any]) -> Any:
    made = Statistics([name], data[0].timestamp)
    made.metric_data = data
    return made.get_statistics_for_type(name)


def page(given: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, Any]:
    """The next MaxDatapoints points of the results; NextToken says where the rest begins."""
    left = int(given.get("MaxDatapoints") or POINTS)
    first, skipped = json.loads(given.get("NextToken") or "[0, 0]")
    found: list[dict[str, Any]] = []
    for number in range(first, len(results)):
        begin = skipped if number == first else 0
        whole = results[number]
        taken = len(whole["timestamps"][begin : begin + left])
        cut = begin + taken < len(whole["timestamps"])
        if taken or not cut:
            parts = {name: whole[name][begin : begin + taken] for name in ("timestamps", "values")}
            found.append({**whole, **parts, "status_code": "PartialData" if cut else "Complete"})
        left -= taken
        if cut:
            return {"MetricDataResults": found, "NextToken": json.dumps([number, begin + taken])}
    return {"MetricDataResults": found}
