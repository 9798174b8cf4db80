"""Whether all writes reach the store while the copy runs: the binary log, the reader, the applications' dual writes, the change stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from dbops import mysql
from dbops.backfill.findings import Finding, refusal, warning
from dbops.backfill.gate import StreamState
from dbops.backfill.records import Beat
from dbops.backfill.spec import BackfillSpec

RETENTION_FACTOR = 2.0
"""The binary log has to be kept for so many times the estimate: a stream that stood still must find its place again."""
REPLICA_WAIT_S = 60
LATENCY_MINUTES = 10
_VARIABLES = ("binlog_format", "binlog_row_image", "gtid_mode", "log_bin", *mysql.RETENTION_VARIABLES)


# --- the server ---------------------------------------------------------------------------------------------------------


def check_log(conn: Any, hours: float | None) -> Iterator[Finding]:
    """The writer's binary log, from which the change stream is fed. `hours` is the estimate of the copy."""
    variables = mysql.global_variables(conn, _VARIABLES)
    if variables.get("log_bin", "").upper() not in ("ON", "1"):
        yield refusal("binlog", "the writer has no binary log, so no change stream", "set log_bin, and row format")
        return
    if variables.get("binlog_format", "").upper() != "ROW":
        yield refusal("binlog_format", f"is {variables.get('binlog_format')}", "SET GLOBAL binlog_format = 'ROW'")
    if variables.get("binlog_row_image", "FULL").upper() != "FULL":
        yield refusal(
            "binlog_row_image",
            f"is {variables['binlog_row_image']}: the stream would not see whole rows",
            "SET GLOBAL binlog_row_image = 'FULL'",
        )
    kept, is_managed = mysql.log_retention(conn, variables)
    fix = (
        "CALL mysql.rds_set_configuration('binlog retention hours', ...)"
        if is_managed
        else "raise binlog_expire_logs_seconds or expire_logs_days"
    )
    if kept is None:
        yield refusal("binlog_retention", "is not known, or not set: RDS then removes logs as soon as it can", fix)
    elif hours is not None and kept < RETENTION_FACTOR * hours:
        yield refusal(
            "binlog_retention",
            f"is {kept:g} h, the copy takes about {hours:.1f} h: a stream that stands still would lose changes",
            fix,
        )


def check_replica(
    writer: Any, reader: Any, since: datetime, now: Callable[[], datetime], wait_s: float = REPLICA_WAIT_S
) -> Iterator[Finding]:
    """Whether a reader has applied all that was written before dual writes began: a row that was deleted just then has no tombstone.

    With GTIDs it is told by the server, which waits; without them by its lag.
    """
    if mysql.read_server(writer).server_uuid == mysql.read_server(reader).server_uuid:
        return
    fix = "wait until replication has caught up, or read from the writer (read_connection: null)"
    executed = str(mysql.scalar(writer, "SELECT @@GLOBAL.gtid_executed") or "").replace("\n", "")
    if executed and mysql.scalar(reader, "SELECT @@GLOBAL.gtid_mode") == "ON":
        waited = mysql.scalar(reader, "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s)", (executed, wait_s))
        if waited != 0:
            yield refusal(
                "replica", f"the reader has not applied within {wait_s:g} s what the writer had executed", fix
            )
        return
    lag_s = mysql.replica_lag_seconds(reader)
    if lag_s is None:
        yield refusal(
            "replica",
            "the reader does not say how far it is behind: it may lack what was written before live.since",
            fix,
        )
    elif now() - timedelta(seconds=lag_s) < since:
        yield refusal(
            "replica",
            f"the reader is {lag_s:.0f} s behind, and live.since is {since.isoformat()}: not all of it is applied",
            fix,
        )


# --- dual writes and stream ---------------------------------------------------------------------------------------------


def check_applications(spec: BackfillSpec, beats: Iterable[Beat], now: datetime) -> Iterator[Finding]:
    """Whether each writing application is heard of, and writes the store."""
    live = spec.live
    if live.since > now:
        yield refusal(
            "live_since",
            f"live.since is {live.since.isoformat()}, which is not yet over",
            "start when dual writes and stream are complete",
        )
    heard: dict[str, _Heard] = {name: _Heard() for name in live.applications}
    for beat in beats:
        if beat.application in heard:
            heard[beat.application].add(beat)
    for name, one in heard.items():
        yield from _judged(name, one, live.since, timedelta(minutes=live.silent_minutes), now)


@dataclass
class _Heard:
    """Sums over the reports of an application, of which there may be millions."""

    first: datetime | None = None
    newest: datetime | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, beat: Beat) -> None:
        self.first = beat.since if self.first is None else min(self.first, beat.since)
        self.newest = beat.at if self.newest is None else max(self.newest, beat.at)
        for name in ("writes", "failed"):
            self.counts[name] += beat.counts.get(name, 0)


def _judged(name: str, heard: _Heard, since: datetime, silent: timedelta, now: datetime) -> Iterator[Finding]:
    fix = f"let {name} report its counters (dbops.keyvalue.counting), and switch its dual writes on"
    first, newest, counts = heard.first, heard.newest, heard.counts
    if first is None or newest is None:
        yield refusal("dual_write", f"application {name!r} was never heard of", fix)
        return
    if now - newest > silent:
        yield refusal(
            "dual_write",
            f"application {name!r} is silent since {newest.isoformat()}, longer than live.silent_minutes",
            fix,
        )
    if not counts["writes"]:
        yield refusal("dual_write", f"application {name!r} reports, but has written nothing to the store", fix)
    if first > since:
        yield warning(
            "live_since", f"application {name!r} is heard of since {first.isoformat()}, after live.since {since.isoformat()}",
            "set live.since to when its dual writes were complete on all of its instances",
        )  # fmt: skip
    if counts["failed"]:
        yield warning(
            "dual_write_failed",
            f"{counts['failed']} dual writes of {name!r} failed",
            "the change stream has to bring them: see to it",
        )


def check_stream(spec: BackfillSpec, dms: Any, cloudwatch: Any, now: datetime) -> Iterator[Finding]:
    """Whether the DMS task that carries the changes runs, since before now, and keeps up."""
    name = spec.live.replication_task
    if name is None:
        yield warning(
            "stream",
            f"what carries the changes is declared, not looked at: {spec.live.stream}",
            "name a DMS task, or watch it yourself",
        )
        return
    task = _task(dms, name)
    if task is None:
        yield refusal(
            "stream", f"there is no DMS task {name!r}", "correct live.replication_task, the region or the connection"
        )
        return
    if "cdc" not in task["MigrationType"]:
        yield refusal(
            "stream", f"task {name!r} is of type {task['MigrationType']}: it carries no changes", "make one of type cdc"
        )
    if task["Status"] != "running":
        yield refusal(
            "stream", f"task {name!r} is {task['Status']}, not running", "start it, and wait until it has caught up"
        )
        return
    if errored := _tables_errored(task):
        yield refusal(
            "stream_tables",
            f"task {name!r} runs, but {errored} tables of it are in error: it carries no changes of them",
            "see its table statistics, correct the cause and reload these tables",
        )
    started = task.get("ReplicationTaskStartDate")
    if started is None or started.astimezone(UTC) > spec.live.since:
        yield warning(
            "stream_since", f"task {name!r} was started {started}, after live.since {spec.live.since.isoformat()}",
            "it is good if it went on from a checkpoint before that; else set live.since later",
        )  # fmt: skip
    yield from _latencies(spec, task, dms, cloudwatch, now)


def _task(dms: Any, name: str) -> dict[str, Any] | None:
    asked = {"Filters": [{"Name": "replication-task-id", "Values": [name]}], "WithoutSettings": True}
    try:
        found = dms.describe_replication_tasks(**asked)["ReplicationTasks"]
    except dms.exceptions.ResourceNotFoundFault:
        return None
    return next((task for task in found if task["ReplicationTaskIdentifier"] == name), None)


def _tables_errored(task: Mapping[str, Any]) -> int:
    """Tables that the task has left behind: with SUSPEND_TABLE, the default, it goes on running without them."""
    return int((task.get("ReplicationTaskStats") or {}).get("TablesErrored") or 0)


def _latencies(
    spec: BackfillSpec, task: Mapping[str, Any], dms: Any, cloudwatch: Any, now: datetime
) -> Iterator[Finding]:
    for metric, seconds in read_latencies(task, dms, cloudwatch, now).items():
        if seconds is None:
            yield refusal(
                "stream_latency",
                f"CloudWatch has no {metric} of the last {LATENCY_MINUTES} minutes",
                "see whether the task really runs",
            )
        elif seconds > spec.live.max_stream_lag_s:
            yield refusal(
                "stream_latency",
                f"{metric} is {seconds:.0f} s, above live.max_stream_lag_s",
                "wait until the stream has caught up",
            )


def read_latencies(task: Mapping[str, Any], dms: Any, cloudwatch: Any, now: datetime) -> dict[str, float | None]:
    """Newest CDCLatencySource and CDCLatencyTarget of a task in seconds; None where CloudWatch has none of the last minutes."""
    arn = task["ReplicationInstanceArn"]
    (instance, *_) = dms.describe_replication_instances(
        Filters=[{"Name": "replication-instance-arn", "Values": [arn]}]
    )["ReplicationInstances"]
    # CloudWatch knows a task by the last part of its ARN, not by its name (DMS user guide, "Monitoring AWS DMS tasks").
    dimensions = {
        "ReplicationInstanceIdentifier": instance["ReplicationInstanceIdentifier"],
        "ReplicationTaskIdentifier": task["ReplicationTaskArn"].rpartition(":")[2],
    }
    found: dict[str, float | None] = {}
    for metric in ("CDCLatencySource", "CDCLatencyTarget"):
        points = cloudwatch.get_metric_statistics(
            Namespace="AWS/DMS",
            MetricName=metric,
            Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
            StartTime=now - timedelta(minutes=LATENCY_MINUTES),
            EndTime=now + timedelta(minutes=1),
            Period=60,
            Statistics=["Maximum"],
        )["Datapoints"]
        found[metric] = max(points, key=lambda point: point["Timestamp"])["Maximum"] if points else None
    return found


def stream_state(spec: BackfillSpec, dms: Any, cloudwatch: Any, now: datetime) -> StreamState | None:
    """How far the DMS task of the spec is; None where the spec names none."""
    if (name := spec.live.replication_task) is None:
        return None
    task = _task(dms, name)
    if task is None or task["Status"] != "running" or "cdc" not in task["MigrationType"]:
        return StreamState(None, is_running=False, name=name)
    if errored := _tables_errored(task):
        return StreamState(None, is_running=False, name=f"{name}, of which {errored} tables are in error,")
    seconds = read_latencies(task, dms, cloudwatch, now).values()
    return StreamState(None if None in seconds else max(each or 0.0 for each in seconds), is_running=True, name=name)
