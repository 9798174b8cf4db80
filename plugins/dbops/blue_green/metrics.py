"""What CloudWatch says of a side; read beside our own heartbeat, never instead of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from dbops.blue_green.blue import Side

NAMESPACE = "AWS/RDS"
WINDOW = timedelta(minutes=5)
"""An older value says nothing about now."""


def replica_lag(cloudwatch: Any, green: Side, is_cluster: bool, now: datetime) -> float | None:
    """Newest replica lag of green's writer in seconds: ``AuroraBinlogReplicaLag``, or ``ReplicaLag`` of an instance.

    None when there is no value of the last five minutes; negative values, with which Aurora says "no replication", are None as well.
    """
    writer = next((member for member in green.members if member.is_writer), None)
    if writer is None:
        return None
    name = "AuroraBinlogReplicaLag" if is_cluster else "ReplicaLag"
    return newest(cloudwatch, name, writer.identifier, now)


def newest(cloudwatch: Any, metric: str, instance: str, now: datetime) -> float | None:
    """Largest value of the newest minute in the window, or None. `now` is naive UTC."""
    end = now.replace(tzinfo=UTC)
    points = cloudwatch.get_metric_statistics(
        Namespace=NAMESPACE, MetricName=metric, Dimensions=[{"Name": "DBInstanceIdentifier", "Value": instance}],
        StartTime=end - WINDOW, EndTime=end + timedelta(seconds=1), Period=60, Statistics=["Maximum"],
    )["Datapoints"]  # fmt: skip
    if not points:
        return None
    value = float(max(points, key=lambda point: point["Timestamp"])["Maximum"])
    return value if value >= 0 else None
