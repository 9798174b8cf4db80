"""What AWS answers about DMS, as frozen values: tasks and serverless replications in the same words, statistics of tables, endpoints.

Fail-closed: a word that is not known here is ``unknown``, never the nearest one, and what an answer does not tell is None.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from dbops import asking
from dbops.asking import Question
from dbops.dms.mappings import Table

TaskType = Literal["full-load", "cdc", "full-load-and-cdc"]
Status = Literal[
    "missing", "creating", "ready", "starting", "running", "stopping", "stopped", "failed", "modifying", "moving",
    "failed-move", "testing", "deleting", "unknown",
]  # fmt: skip
"""Status of a task; ``missing`` when AWS has no such task, ``unknown`` when it says something that is not documented."""
StopReason = Literal[
    "", "NORMAL", "RECOVERABLE_ERROR", "FATAL_ERROR", "FULL_LOAD_ONLY_FINISHED", "STOPPED_AFTER_FULL_LOAD",
    "STOPPED_AFTER_CACHED_EVENTS", "EXPRESS_LICENSE_LIMITS_REACHED", "STOPPED_AFTER_DDL_APPLY",
    "STOPPED_DUE_TO_LOW_MEMORY", "STOPPED_DUE_TO_LOW_DISK", "STOPPED_AT_SERVER_TIME", "STOPPED_AT_COMMIT_TIME",
    "RECONFIGURATION_RESTART", "RECYCLE_TASK", "unknown",
]  # fmt: skip
TableState = Literal[
    "Table does not exist", "Before load", "Full load", "Table completed", "Table cancelled", "Table error",
    "Table is being reloaded", "unknown",
]  # fmt: skip

FAILED_STATES: frozenset[TableState] = frozenset({"Table does not exist", "Table cancelled", "Table error", "unknown"})
"""States in which a table is not replicated and will not be by waiting."""
LOADING_STATES: frozenset[TableState] = frozenset({"Before load", "Full load", "Table is being reloaded"})
TRANSIENT: frozenset[Status] = frozenset({"creating", "starting", "stopping", "modifying", "moving", "testing"})
"""Statuses that pass by themselves."""
PLANNED_STOPS: frozenset[StopReason] = frozenset({
    "STOPPED_AFTER_FULL_LOAD", "STOPPED_AFTER_CACHED_EVENTS", "STOPPED_AFTER_DDL_APPLY",
    "STOPPED_AT_SERVER_TIME", "STOPPED_AT_COMMIT_TIME",
})  # fmt: skip
"""Stops that a setting or a stop position asked for."""
# A serverless replication goes through these before it runs; AWS writes them with blanks or underscores.
_SERVERLESS: dict[str, Status] = {
    "created": "ready", "initializing": "starting", "preparing metadata": "starting", "testing connection": "starting",
    "fetching metadata": "starting", "calculating capacity": "starting", "provisioning capacity": "starting",
    "replication starting": "starting",
}  # fmt: skip
_PREFIX = "Stop Reason "
_LEVEL = re.compile(r"\s+Error Level \w+\s*$", re.IGNORECASE)
MAX_RECORDS = 100


@dataclass(frozen=True)
class Task:
    """A replication task, or a serverless replication with its configuration."""

    identifier: str
    arn: str
    status: Status
    task_type: str = ""
    is_serverless: bool = False
    raw_status: str = ""
    stop_reason: StopReason = ""
    raw_stop_reason: str = ""
    failure: str = ""
    source_arn: str = ""
    target_arn: str = ""
    instance_arn: str = ""
    compute: tuple[tuple[str, Any], ...] = ()
    """ComputeConfig of a serverless replication."""
    mappings: str = ""
    settings: str = ""
    checkpoint: str = ""
    cdc_start: str = ""
    fresh_start_at: datetime | None = None
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    load_finished_at: datetime | None = None
    tables_loaded: int | None = None
    tables_loading: int | None = None
    tables_queued: int | None = None
    tables_errored: int | None = None
    progress_percent: int | None = None
    created_at: datetime | None = None

    @property
    def has_run(self) -> bool:
        """Whether it was ever started: then only resume-processing and reload-target are right, before only start-replication."""
        told = (self.fresh_start_at, self.started_at, self.stopped_at, self.load_finished_at)
        return any(moment is not None for moment in told) or bool(
            self.stop_reason or self.checkpoint or self.failure or self.status in ("running", "stopped", "failed")
        )


@dataclass(frozen=True)
class TableStatistics:
    """One table of a task. ``refreshed_at`` (LastUpdateTime) is when DMS counted, not when the table last changed."""

    table: Table
    state: TableState
    raw_state: str = ""
    rows: int = 0
    error_rows: int = 0
    condition_failed_rows: int = 0
    """Rows that the target's condition refused (DynamoDB)."""
    inserts: int = 0
    updates: int = 0
    deletes: int = 0
    ddls: int = 0
    applied_inserts: int = 0
    applied_updates: int = 0
    applied_deletes: int = 0
    applied_ddls: int = 0
    reloaded: bool = False
    load_started_at: datetime | None = None
    load_ended_at: datetime | None = None
    refreshed_at: datetime | None = None
    validation_state: str = ""
    validation_pending: int = 0
    validation_failed: int = 0
    validation_suspended: int = 0
    validation_details: str = ""

    @property
    def is_failed(self) -> bool:
        """Whether the task goes on without it."""
        return self.state in FAILED_STATES

    @property
    def is_loading(self) -> bool:
        """Whether its load has not ended yet."""
        return self.state in LOADING_STATES


@dataclass(frozen=True)
class Endpoint:
    """An endpoint; ``settings`` are those of its engine, without anything secret (AWS does not answer passwords)."""

    identifier: str
    arn: str
    side: str
    engine: str
    status: str = ""
    settings: tuple[tuple[str, Any], ...] = ()
    ssl_mode: str = ""
    certificate_arn: str = ""
    extra_attributes: str = ""


@dataclass(frozen=True)
class Instance:
    """A replication instance."""

    identifier: str
    arn: str
    status: str
    instance_class: str = ""
    storage_gb: int | None = None
    engine_version: str = ""
    multi_az: bool | None = None


@dataclass(frozen=True)
class ConnectionTest:
    """The last test of an endpoint from an instance: status testing, successful, failed or deleting."""

    endpoint_arn: str
    instance_arn: str
    status: str
    failure: str = ""


Verdict = Literal["open", "good", "bad"]


@dataclass(frozen=True)
class Ending:
    """How a task has ended, or that it has not. ``reasons`` are never empty."""

    verdict: Verdict
    reasons: tuple[str, ...]


def status(word: str | None) -> Status:
    """The status in our words."""
    plain = " ".join(str(word or "").replace("_", " ").lower().split())
    if plain in _SERVERLESS:
        return _SERVERLESS[plain]
    found = plain.replace(" ", "-")
    return next((one for one in get_args(Status) if one == found and one not in ("missing", "unknown")), "unknown")


def stop_reason(text: str | None) -> StopReason:
    """The reason without AWS's prefix and error level; "" when there is none, ``unknown`` when it is not documented."""
    plain = str(text or "").strip()
    plain = plain[len(_PREFIX) :] if plain.lower().startswith(_PREFIX.lower()) else plain
    plain = _LEVEL.sub("", plain)
    if not plain:
        return ""
    found = plain.strip().upper().replace(" ", "_")
    return next((one for one in get_args(StopReason) if one and one == found), "unknown")


def table_state(text: str | None) -> TableState:
    """The state in the words of the API, whatever the case."""
    plain = " ".join(str(text or "").lower().split())
    return next((one for one in get_args(TableState) if one.lower() == plain), "unknown")


def missing(identifier: str) -> Task:
    """A task that AWS does not have."""
    return Task(identifier, "", "missing")


def task(row: Mapping[str, Any]) -> Task:
    """A row of DescribeReplicationTasks."""
    stats = row.get("ReplicationTaskStats") or {}
    return Task(
        identifier=str(row.get("ReplicationTaskIdentifier") or ""),
        arn=str(row.get("ReplicationTaskArn") or ""),
        task_type=str(row.get("MigrationType") or ""),
        failure=str(row.get("LastFailureMessage") or ""),
        instance_arn=str(row.get("ReplicationInstanceArn") or ""),
        settings=str(row.get("ReplicationTaskSettings") or ""),
        **_common(row, stats),
    )


def serverless(config: Mapping[str, Any], replication: Mapping[str, Any] | None = None) -> Task:
    """A row of DescribeReplicationConfigs with that of DescribeReplications, in the words of a task."""
    row = replication or {}
    compute = config.get("ComputeConfig") or {}
    # Where it says nothing, the configuration exists and nothing has run: AWS lists a replication from its first start on.
    return Task(
        identifier=str(config.get("ReplicationConfigIdentifier") or ""),
        arn=str(config.get("ReplicationConfigArn") or ""),
        is_serverless=True,
        task_type=str(config.get("ReplicationType") or ""),
        failure="; ".join(str(message) for message in row.get("FailureMessages") or ()),
        compute=tuple(sorted(compute.items())),
        settings=str(config.get("ReplicationSettings") or ""),
        **_common(
            {"Status": "created", **row, **{k: config[k] for k in _OF_CONFIG if k in config}},
            row.get("ReplicationStats") or {},
        ),
    )


_OF_CONFIG = ("SourceEndpointArn", "TargetEndpointArn", "TableMappings")


def _common(row: Mapping[str, Any], stats: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "status": status(row.get("Status")),
        "raw_status": str(row.get("Status") or ""),
        "stop_reason": stop_reason(row.get("StopReason")),
        "raw_stop_reason": str(row.get("StopReason") or ""),
        "source_arn": str(row.get("SourceEndpointArn") or ""),
        "target_arn": str(row.get("TargetEndpointArn") or ""),
        "mappings": str(row.get("TableMappings") or ""),
        "checkpoint": str(row.get("RecoveryCheckpoint") or ""),
        "cdc_start": str(row.get("CdcStartPosition") or ""),
        "created_at": row.get("ReplicationTaskCreationDate") or row.get("ReplicationCreateTime"),
        "fresh_start_at": stats.get("FreshStartDate"),
        "started_at": stats.get("StartDate") or row.get("ReplicationTaskStartDate"),
        "stopped_at": stats.get("StopDate") or row.get("ReplicationLastStopTime"),
        "load_finished_at": stats.get("FullLoadFinishDate"),
        "tables_loaded": stats.get("TablesLoaded"),
        "tables_loading": stats.get("TablesLoading"),
        "tables_queued": stats.get("TablesQueued"),
        "tables_errored": stats.get("TablesErrored"),
        "progress_percent": stats.get("FullLoadProgressPercent"),
    }


_COUNTS = {
    "rows": "FullLoadRows", "error_rows": "FullLoadErrorRows", "condition_failed_rows": "FullLoadCondtnlChkFailedRows",
    "inserts": "Inserts", "updates": "Updates", "deletes": "Deletes", "ddls": "Ddls",
    "applied_inserts": "AppliedInserts", "applied_updates": "AppliedUpdates", "applied_deletes": "AppliedDeletes",
    "applied_ddls": "AppliedDdls", "validation_pending": "ValidationPendingRecords",
    "validation_failed": "ValidationFailedRecords", "validation_suspended": "ValidationSuspendedRecords",
}  # fmt: skip


def table_statistics(row: Mapping[str, Any]) -> TableStatistics:
    """A row of DescribeTableStatistics or DescribeReplicationTableStatistics."""
    counts: dict[str, Any] = {ours: int(row.get(theirs) or 0) for ours, theirs in _COUNTS.items()}
    return TableStatistics(
        Table(str(row.get("SchemaName") or ""), str(row.get("TableName") or "")),
        table_state(row.get("TableState")),
        raw_state=str(row.get("TableState") or ""),
        reloaded=bool(row.get("FullLoadReloaded")),
        load_started_at=row.get("FullLoadStartTime"),
        load_ended_at=row.get("FullLoadEndTime"),
        refreshed_at=row.get("LastUpdateTime"),
        validation_state=str(row.get("ValidationState") or ""),
        validation_details=str(row.get("ValidationStateDetails") or ""),
        **counts,
    )


def endpoint(row: Mapping[str, Any]) -> Endpoint:
    """A row of DescribeEndpoints, with the settings of its engine."""
    groups = [group for name, group in row.items() if name.endswith("Settings") and isinstance(group, Mapping)]
    held = {key: value for group in groups for key, value in group.items() if "Password" not in key}
    return Endpoint(
        identifier=str(row.get("EndpointIdentifier") or ""),
        arn=str(row.get("EndpointArn") or ""),
        side=str(row.get("EndpointType") or "").lower(),
        engine=str(row.get("EngineName") or "").lower(),
        status=str(row.get("Status") or ""),
        settings=tuple(sorted(held.items())),
        ssl_mode=str(row.get("SslMode") or ""),
        certificate_arn=str(row.get("CertificateArn") or ""),
        extra_attributes=str(row.get("ExtraConnectionAttributes") or ""),
    )


def instance(row: Mapping[str, Any]) -> Instance:
    """A row of DescribeReplicationInstances."""
    return Instance(
        identifier=str(row.get("ReplicationInstanceIdentifier") or ""),
        arn=str(row.get("ReplicationInstanceArn") or ""),
        status=str(row.get("ReplicationInstanceStatus") or ""),
        instance_class=str(row.get("ReplicationInstanceClass") or ""),
        storage_gb=row.get("AllocatedStorage"),
        engine_version=str(row.get("EngineVersion") or ""),
        multi_az=row.get("MultiAZ"),
    )


def connection_test(row: Mapping[str, Any]) -> ConnectionTest:
    """A row of DescribeConnections."""
    return ConnectionTest(
        str(row.get("EndpointArn") or ""),
        str(row.get("ReplicationInstanceArn") or ""),
        str(row.get("Status") or ""),
        str(row.get("LastFailureMessage") or ""),
    )


def pages(operation: str, key: str, **arguments: Any) -> Question[list[dict[str, Any]]]:
    """Every row of a listing call of DMS, over all its pages; nothing when AWS says that what is asked for does not exist."""
    try:
        return (yield from asking.pages(operation, key, MaxRecords=MAX_RECORDS, **arguments))
    except Exception as error:
        if not asking.is_missing(error):
            raise
        return []


def tasks() -> Question[dict[str, Task]]:
    """Every task of the account and region by identifier: calls grow with pages, not with tasks."""
    rows = yield from pages("describe_replication_tasks", "ReplicationTasks")
    return {one.identifier: one for one in map(task, rows)}


def replications() -> Question[dict[str, Task]]:
    """Every serverless replication of the account and region by identifier."""
    configs = yield from pages("describe_replication_configs", "ReplicationConfigs")
    rows = yield from pages("describe_replications", "Replications")
    by_arn = {row.get("ReplicationConfigArn"): row for row in rows}
    found = [serverless(config, by_arn.get(config.get("ReplicationConfigArn"))) for config in configs]
    return {one.identifier: one for one in found}


def one_task(identifier: str, *, is_serverless: bool = False) -> Question[Task]:
    """One task by its identifier; ``missing`` when there is none."""
    if is_serverless:
        found = yield from replications()
        return found.get(identifier) or missing(identifier)
    chosen = [{"Name": "replication-task-id", "Values": [identifier]}]
    rows = yield from pages("describe_replication_tasks", "ReplicationTasks", Filters=chosen)
    found = {one.identifier: one for one in map(task, rows)}
    return found.get(identifier) or missing(identifier)


def statistics(of: Task) -> Question[tuple[TableStatistics, ...]]:
    """Statistics of every table of the task, sorted."""
    if of.is_serverless:
        rows = yield from pages(
            "describe_replication_table_statistics", "ReplicationTableStatistics", ReplicationConfigArn=of.arn
        )
    else:
        rows = yield from pages("describe_table_statistics", "TableStatistics", ReplicationTaskArn=of.arn)
    return tuple(sorted((table_statistics(row) for row in rows), key=lambda one: one.table))


def endpoints() -> Question[tuple[Endpoint, ...]]:
    """Every endpoint of the account and region."""
    rows = yield from pages("describe_endpoints", "Endpoints")
    return tuple(endpoint(row) for row in rows)


def instances() -> Question[tuple[Instance, ...]]:
    """Every replication instance of the account and region."""
    rows = yield from pages("describe_replication_instances", "ReplicationInstances")
    return tuple(instance(row) for row in rows)


def connection_tests() -> Question[tuple[ConnectionTest, ...]]:
    """The last test of each pair of endpoint and instance."""
    rows = yield from pages("describe_connections", "Connections")
    return tuple(connection_test(row) for row in rows)


def ending(of: Task, tables: Iterable[TableStatistics] | None, task_type: TaskType) -> Ending:
    """How a task has ended, judged by its reason and by its tables, never by the word ``stopped`` alone.

    Args:
        of: the task
        tables: its statistics; None when they could not be had, which is no success
        task_type: as declared
    """
    if of.status in TRANSIENT or of.status in ("running", "ready"):
        return Ending("open", (f"the task is {of.raw_status or of.status}",))
    if of.status != "stopped":
        failure = f": {of.failure}" if of.failure else ""
        return Ending("bad", (f"the task is {of.raw_status or of.status}{failure}",))
    wrong = [*_bad_reason(of, task_type), *_bad_tables(of, tables, task_type)]
    if wrong:
        return Ending("bad", tuple(wrong))
    return Ending("good", (f"stopped with {of.stop_reason}, every table completed",))


def _bad_reason(of: Task, task_type: TaskType) -> list[str]:
    good: frozenset[StopReason] = frozenset({"NORMAL"})
    good |= frozenset({"FULL_LOAD_ONLY_FINISHED"}) if task_type == "full-load" else PLANNED_STOPS
    if of.stop_reason in good:
        return []
    failure = f": {of.failure}" if of.failure else ""
    return [f"stopped with {of.raw_stop_reason or 'no reason'}{failure}"]


def _bad_tables(of: Task, tables: Iterable[TableStatistics] | None, task_type: TaskType) -> list[str]:
    if tables is None:
        return ["statistics of the tables are unknown"]
    seen = list(tables)
    wrong = [f"table {one.table} is in state {one.raw_state or one.state}" for one in seen if one.is_failed]
    wrong += [f"table {one.table} has {one.error_rows} rows that failed to load" for one in seen if one.error_rows]
    if task_type != "cdc":
        wrong += [f"table {one.table} was not loaded to its end" for one in seen if one.is_loading]
    if not seen:
        wrong.append("the task has no table")
    if of.tables_errored is None:
        wrong.append("the number of tables with errors is unknown")
    elif of.tables_errored and not any(one.is_failed for one in seen):
        wrong.append(f"AWS counts {of.tables_errored} tables with errors")
    return wrong
