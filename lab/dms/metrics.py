"""CloudWatch metrics of the simulated DMS: latencies, waiting changes and throughput of every running task, in AWS/DMS."""

from __future__ import annotations

import time
from typing import Any

from moto.cloudwatch.models import cloudwatch_backends

from lab.dms.state import State

PERIOD_S = 2  # AWS puts them every minute; a test takes seconds


def run(backends: list[Any]) -> None:
    """Put the metrics of every running task for as long as the process lives."""
    before: dict[str, tuple[float, float, float]] = {}
    while True:
        time.sleep(PERIOD_S)
        for backend in list(backends):
            for task in list(backend.tasks.values()):
                if task.status == "running" and not backend.fault("drop_metrics", task.id):
                    _put(backend, task, _values(task.arn, task.state, before))


def _values(arn: str, state: State, before: dict[str, tuple[float, float, float]]) -> dict[str, float]:
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


def _put(backend: Any, task: Any, values: dict[str, float]) -> None:
    instance = backend.replication_instances.get(task.replication_instance_arn)
    # The task goes by the last part of its ARN here, the instance by its name.
    dimensions = [
        {"Name": "ReplicationInstanceIdentifier", "Value": instance.id if instance else ""},
        {"Name": "ReplicationTaskIdentifier", "Value": task.resource_id},
    ]
    data = [
        {
            "MetricName": name,
            "Value": value,
            "Unit": "Seconds" if "Latency" in name else "Count/Second" if "Throughput" in name else "Count",
            "Dimensions": dimensions,
        }
        for name, value in values.items()
    ]
    cloudwatch_backends[backend.account_id][backend.region_name].put_metric_data("AWS/DMS", data)
