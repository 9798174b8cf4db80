"""The lag gate: a replica's lag by heartbeat and by CloudWatch, both known and both small, several times in a row."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

from dbops import asking, connections
from dbops.asking import Question
from dbops.blue_green import lag

METRICS = ("AuroraBinlogReplicaLag", "ReplicaLag")
PERIOD_S = 60


class CloudWatch(AwsBaseHook):
    """CloudWatch through boto3."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "client_type": "cloudwatch"})


@dataclass(frozen=True)
class Gate:
    """What is sampled, and what must hold. Plain values, so that a trigger can carry it."""

    db_instance_identifier: str
    """Writer instance of the green side, whose metric is read."""
    mysql_conn_id: str
    """Airflow connection of both sides; its host and port are replaced by:"""
    blue: tuple[str, int]
    green: tuple[str, int]
    schema: str
    """Where the heartbeat table is."""
    run: str
    """Whose heartbeats: the run that the prober was started with."""
    metric_name: str = "AuroraBinlogReplicaLag"
    max_lag_s: float = 1.0
    samples: int = 3
    max_age_s: int = 300
    """A newest datapoint that is older is unknown."""

    def __post_init__(self) -> None:
        if self.metric_name not in METRICS:
            raise ValueError(f"metric_name={self.metric_name!r}: expected one of {', '.join(METRICS)}")
        if self.max_lag_s <= 0 or self.samples < 1:
            raise ValueError(
                f"max_lag_s={self.max_lag_s}, samples={self.samples}: expected more than 0 s and at least 1 sample"
            )


@dataclass(frozen=True)
class Reading:
    """One reading: None is unknown, and `error` says why."""

    seconds: float | None
    error: str = ""


@dataclass(frozen=True)
class Lag:
    """What the samples so far add up to; seconds are those of the last one."""

    streak: int = 0
    heartbeat_s: float | None = None
    metric_s: float | None = None
    reason: str = "not sampled yet"
    is_open: bool = False


def advance(state: Lag, gate: Gate, heartbeat: Reading, metric: Reading) -> Lag:
    """State after one more sample of both."""
    told, small = [], True
    for name, reading in (("heartbeat", heartbeat), (gate.metric_name, metric)):
        known = reading.seconds is not None
        small = small and reading.seconds is not None and reading.seconds <= gate.max_lag_s
        told.append(f"{name} {reading.seconds:.3f} s" if known else f"{name} unknown ({reading.error})")
    streak = state.streak + 1 if small else 0
    reason = f"{', '.join(told)}; limit {gate.max_lag_s:g} s, held {streak} of {gate.samples} times"
    return Lag(streak, heartbeat.seconds, metric.seconds, reason, streak >= gate.samples)


def heartbeat(gate: Gate) -> Reading:
    """Lag by heartbeat now; blocks for as long as MySQL does."""
    import MySQLdb

    try:
        with (
            closing(connections.mysql(gate.mysql_conn_id, address=(gate.blue[0], gate.blue[1]))) as blue,
            closing(connections.mysql(gate.mysql_conn_id, address=(gate.green[0], gate.green[1]))) as green,
        ):
            seconds = lag.now(blue, green, gate.schema, gate.run)
    except MySQLdb.Error as error:
        return Reading(None, f"{type(error).__name__} {error.args[0] if error.args else ''}".strip())
    return Reading(seconds, "" if seconds is not None else "no heartbeat, or none that is fresh on blue")


def metric(gate: Gate, now: datetime) -> Question[Reading]:
    """Lag by CloudWatch: the newest datapoint's maximum. A negative one means that nothing is replicated, so the lag is unknown."""
    asked = {
        "Namespace": "AWS/RDS",
        "MetricName": gate.metric_name,
        "Dimensions": [{"Name": "DBInstanceIdentifier", "Value": gate.db_instance_identifier}],
        "StartTime": now - timedelta(seconds=gate.max_age_s + PERIOD_S),
        "EndTime": now,
        "Period": PERIOD_S,
        "Statistics": ["Maximum"],
    }
    try:
        answer = yield "get_metric_statistics", asked
    except Exception as error:
        if not asking.is_failure(error):
            raise
        return Reading(None, asking.text(error))
    points = sorted(answer.get("Datapoints") or [], key=lambda point: point["Timestamp"])
    # A datapoint bears the time at which its period begins.
    if not points or (now - points[-1]["Timestamp"]).total_seconds() > gate.max_age_s + PERIOD_S:
        return Reading(None, f"no datapoint of {gate.db_instance_identifier} within {gate.max_age_s} s")
    seconds = float(points[-1]["Maximum"])
    return Reading(seconds) if seconds >= 0 else Reading(None, f"{seconds:g}: the replica does not replicate")


def dump(state: Lag) -> dict[str, Any]:
    """The state as JSON values."""
    return asdict(state)
