"""The operations of the DMS API: those that moto does not have, or answers with less than AWS. `install` puts them in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from moto.dms.exceptions import DmsClientError, ResourceNotFoundFault
from moto.dms.responses import DatabaseMigrationServiceResponse

from lab.dms.task import invalid

TABLES = 500  # of a page at most
RELOADED_AT_ONCE = 10
DAY_MINUTES = 14 * 24 * 60
Answer = dict[str, Any]


def _page(given: Answer, key: str, rows: list[Any], largest: int = 100) -> Answer:
    """The part of a long answer that the marker of the one before leads to."""
    size = int(given.get("MaxRecords") or 100)
    if not 20 <= size <= largest:
        raise invalid(f"MaxRecords must be between 20 and {largest}")
    marker = str(given.get("Marker") or 0)
    if not marker.isdecimal():
        raise invalid(f"Invalid marker: {marker}")
    begin = int(marker)
    more = {"Marker": str(begin + size)} if begin + size < len(rows) else {}
    return {key: rows[begin : begin + size], **more}


def _matching(given: Answer, rows: list[Any], names: dict[str, Callable[[Any], set[Any]]], missing: str) -> list[Any]:
    """Rows that pass every filter; AWS answers with a fault when filters leave none."""
    for each in given.get("Filters") or ():
        if each["Name"] not in names:
            raise invalid(f"Filter {each['Name']} is not supported")
        rows = [row for row in rows if names[each["Name"]](row) & set(each["Values"])]
    if given.get("Filters") and not rows:
        raise ResourceNotFoundFault(missing)
    return rows


TASK_FILTERS: dict[str, Callable[[Any], set[Any]]] = {
    "replication-task-arn": lambda t: {t.arn},
    "replication-task-id": lambda t: {t.id},
    "migration-type": lambda t: {t.migration_type},
    "endpoint-arn": lambda t: {t.source_endpoint_arn, t.target_endpoint_arn},
    "replication-instance-arn": lambda t: {t.replication_instance_arn},
}
INSTANCE_FILTERS: dict[str, Callable[[Any], set[Any]]] = {
    "replication-instance-id": lambda i: {i.id},
    "replication-instance-arn": lambda i: {i.arn},
    "replication-instance-class": lambda i: {i.replication_instance_class},
    "engine-version": lambda i: {i.engine_version},
}
SUBNET_FILTERS: dict[str, Callable[[Any], set[Any]]] = {
    "replication-subnet-group-id": lambda g: {g.replication_subnet_group_identifier},
}
ENDPOINT_FILTERS: dict[str, Callable[[Any], set[Any]]] = {
    "endpoint-arn": lambda e: {e.endpoint_arn},
    "endpoint-type": lambda e: {e.endpoint_type},
    "endpoint-id": lambda e: {e.endpoint_identifier},
    "engine-name": lambda e: {e.engine_name},
}
CONNECTION_FILTERS: dict[str, Callable[[Any], set[Any]]] = {
    "endpoint-arn": lambda c: {c.endpoint_arn},
    "replication-instance-arn": lambda c: {c.replication_instance_arn},
}
REPLICATION_FILTERS: dict[str, Callable[[Any], set[Any]]] = {
    "replication-config-arn": lambda r: {r.arn},
    "replication-config-id": lambda r: {r.id},
}
RUN_FILTERS: dict[str, Callable[[Any], set[Any]]] = {
    "replication-task-assessment-run-arn": lambda r: {r.arn},
    "replication-task-arn": lambda r: {r.task.arn},
    "replication-instance-arn": lambda r: {r.task.replication_instance_arn},
    "status": lambda r: {r.status},
}


def create_replication_task(backend: Any, given: Answer) -> Answer:
    return {"ReplicationTask": backend.make_task(given).to_dict()}


def describe_replication_tasks(backend: Any, given: Answer) -> Answer:
    tasks = sorted(backend.tasks.values(), key=lambda task: task.id)
    found = _matching(given, tasks, TASK_FILTERS, "No Replication Tasks found matching provided filter.")
    page = _page(given, "ReplicationTasks", found)
    without = {"ReplicationTaskSettings", "TableMappings"} if given.get("WithoutSettings") else set()
    page["ReplicationTasks"] = [
        {k: v for k, v in task.to_dict().items() if k not in without} for task in page["ReplicationTasks"]
    ]
    return page


def start_replication_task(backend: Any, given: Answer) -> Answer:
    return _task(backend, given, lambda task: task.begin(given))


def stop_replication_task(backend: Any, given: Answer) -> Answer:
    return _task(backend, given, lambda task: task.end())


def modify_replication_task(backend: Any, given: Answer) -> Answer:
    return _task(backend, given, lambda task: task.modify(given))


def move_replication_task(backend: Any, given: Answer) -> Answer:
    target = backend.instance(given["TargetReplicationInstanceArn"])
    return _task(backend, given, lambda task: task.move(target))


def delete_replication_task(backend: Any, given: Answer) -> Answer:
    return _task(backend, given, backend.remove_task)


def _task(backend: Any, given: Answer, act: Callable[[Any], None]) -> Answer:
    with backend.lock:
        task = backend.task(given["ReplicationTaskArn"])
        act(task)
        return {"ReplicationTask": task.to_dict()}


def describe_table_statistics(backend: Any, given: Answer) -> Answer:
    task = backend.task(given["ReplicationTaskArn"])
    return {"ReplicationTaskArn": task.arn, **_page(given, "TableStatistics", _tables(backend, task, given), TABLES)}


def _tables(backend: Any, task: Any, given: Answer) -> list[Answer]:
    task.refresh()
    rows = task.shown_tables(time.time(), float(backend.fault("stats_delay_s", task.id)))
    names = {"schema-name": "SchemaName", "table-name": "TableName", "table-state": "TableState"}
    for each in given.get("Filters") or ():
        if each["Name"] not in names:
            raise invalid(f"Filter {each['Name']} is not supported")
        rows = [row for row in rows if row[names[each["Name"]]] in each["Values"]]
    return rows


def reload_tables(backend: Any, given: Answer) -> Answer:
    with backend.lock:
        task = backend.task(given["ReplicationTaskArn"])
        _reload(task, given)
    return {"ReplicationTaskArn": task.arn}


def _reload(task: Any, given: Answer) -> None:
    tables = [(each["SchemaName"], each["TableName"]) for each in given["TablesToReload"]]
    if not 0 < len(tables) <= RELOADED_AT_ONCE:
        raise invalid(f"At most {RELOADED_AT_ONCE} tables can be reloaded at once")
    if given.get("ReloadOption", "data-reload") not in {"data-reload", "validate-only"}:
        raise invalid(f"ReloadOption {given['ReloadOption']} is not valid")
    task.reload(tables, given.get("ReloadOption") == "validate-only")


def test_connection(backend: Any, given: Answer) -> Answer:
    return {"Connection": backend.start_test(given["ReplicationInstanceArn"], given["EndpointArn"]).to_dict()}


def describe_connections(backend: Any, given: Answer) -> Answer:
    found = _matching(given, list(backend.connections), CONNECTION_FILTERS, "No connections found matching the filter.")
    return _page(given, "Connections", [each.to_dict() for each in found])


def delete_connection(backend: Any, given: Answer) -> Answer:
    for each in list(backend.connections):
        if (each.endpoint_arn, each.replication_instance_arn) == (
            given["EndpointArn"],
            given["ReplicationInstanceArn"],
        ):
            backend.connections.remove(each)
            each.status = "deleting"
            return {"Connection": each.to_dict()}
    raise ResourceNotFoundFault("Connection not found.")


def describe_replication_instances(backend: Any, given: Answer) -> Answer:
    rows = list(backend.replication_instances.values())
    found = _matching(given, rows, INSTANCE_FILTERS, "No Replication Instances found matching provided filter.")
    for each in found:
        each.advance()
    return _page(given, "ReplicationInstances", [_instance(backend, each) for each in found])


def _instance(backend: Any, instance: Any) -> Answer:
    full = {"ReplicationInstanceStatus": "storage-full"} if backend.fault("instance_full", instance.id) else {}
    return {**_present(instance.to_dict()), **full}


def describe_replication_subnet_groups(backend: Any, given: Answer) -> Answer:
    rows = list(backend.replication_subnet_groups.values())
    found = _matching(given, rows, SUBNET_FILTERS, "No Replication Subnet Groups found matching provided filter.")
    return _page(given, "ReplicationSubnetGroups", [_present(each.to_dict()) for each in found])


def describe_endpoints(backend: Any, given: Answer) -> Answer:
    rows = list(backend.endpoints.values())
    found = _matching(given, rows, ENDPOINT_FILTERS, "No Endpoints found matching provided filter.")
    return _page(given, "Endpoints", [_present(each.to_dict()) for each in found])


def modify_endpoint(backend: Any, given: Answer) -> Answer:
    endpoint = backend.endpoint(given["EndpointArn"])
    plain = {"Username": "username", "Password": "password", "ServerName": "server_name", "Port": "port"}
    extra = {"ExtraConnectionAttributes": "extra_connection_attributes", "DatabaseName": "database_name"}
    for name, attribute in {**plain, **extra}.items():
        if name in given:
            setattr(endpoint, attribute, given[name])
    sections = {"KinesisSettings": "kinesis_settings", "S3Settings": "s3_settings", "MySQLSettings": "my_sql_settings"}
    for name, attribute in sections.items():
        if name in given:
            setattr(endpoint, attribute, {**(getattr(endpoint, attribute) or {}), **given[name]})
    # What was tested is not what is there now.
    backend.connections = [each for each in backend.connections if each.endpoint_arn != endpoint.endpoint_arn]
    return {"Endpoint": _present(endpoint.to_dict())}


def _present(given: Answer) -> Answer:
    return {name: value for name, value in given.items() if value is not None}


def add_tags_to_resource(backend: Any, given: Answer) -> Answer:
    backend.tagger.tag_resource(given["ResourceArn"], given["Tags"])
    return {}


def remove_tags_from_resource(backend: Any, given: Answer) -> Answer:
    backend.tagger.untag_resource_using_names(given["ResourceArn"], given["TagKeys"])
    return {}


def describe_events(backend: Any, given: Answer) -> Answer:
    for task in [*backend.tasks.values(), *backend.replications.values()]:
        task.take_events()
    until = float(given.get("EndTime") or time.time() + 1)
    span = min(int(given.get("Duration") or 60), DAY_MINUTES) * 60
    since = float(given.get("StartTime") or until - span)
    wanted = set(given.get("EventCategories") or ())
    rows = [
        event
        for event in backend.events
        if since <= event["Date"] <= until
        and given.get("SourceIdentifier") in {None, event["SourceIdentifier"]}
        and given.get("SourceType") in {None, event["SourceType"]}
        and (not wanted or wanted & set(event["EventCategories"]))
    ]
    return _page(given, "Events", rows)


def start_replication_task_assessment_run(backend: Any, given: Answer) -> Answer:
    with backend.lock:
        return {"ReplicationTaskAssessmentRun": backend.start_assessment(given).to_dict()}


def describe_replication_task_assessment_runs(backend: Any, given: Answer) -> Answer:
    rows = list(backend.assessments.values())
    found = _matching(given, rows, RUN_FILTERS, "No assessment runs found matching provided filter.")
    return _page(given, "ReplicationTaskAssessmentRuns", [each.to_dict() for each in found])


def describe_replication_task_individual_assessments(backend: Any, given: Answer) -> Answer:
    rows = list(backend.assessments.values())
    found = _matching(given, rows, RUN_FILTERS, "No assessments found matching provided filter.")
    return _page(given, "ReplicationTaskIndividualAssessments", [one for run in found for one in run.individual()])


def delete_replication_task_assessment_run(backend: Any, given: Answer) -> Answer:
    arn = given["ReplicationTaskAssessmentRunArn"]
    if arn not in backend.assessments:
        raise ResourceNotFoundFault("Assessment run not found.")
    backend.assessments[arn].require_ended()
    run = backend.assessments.pop(arn)
    return {"ReplicationTaskAssessmentRun": {**run.to_dict(), "Status": "deleting"}}


def create_replication_config(backend: Any, given: Answer) -> Answer:
    return {"ReplicationConfig": backend.make_replication(given).config()}


def describe_replication_configs(backend: Any, given: Answer) -> Answer:
    return _page(given, "ReplicationConfigs", [each.config() for each in _replications(backend, given)])


def describe_replications(backend: Any, given: Answer) -> Answer:
    return _page(given, "Replications", [each.to_dict() for each in _replications(backend, given)])


def _replications(backend: Any, given: Answer) -> list[Any]:
    rows = sorted(backend.replications.values(), key=lambda each: each.id)
    return _matching(given, rows, REPLICATION_FILTERS, "No replication configs found matching provided filter.")


def modify_replication_config(backend: Any, given: Answer) -> Answer:
    return {"ReplicationConfig": _replication(backend, given, lambda each: each.modify(given)).config()}


def delete_replication_config(backend: Any, given: Answer) -> Answer:
    return {"ReplicationConfig": _replication(backend, given, backend.remove_task).config()}


def start_replication(backend: Any, given: Answer) -> Answer:
    return {"Replication": _replication(backend, given, lambda each: each.begin(given)).to_dict()}


def stop_replication(backend: Any, given: Answer) -> Answer:
    return {"Replication": _replication(backend, given, lambda each: each.end()).to_dict()}


def _replication(backend: Any, given: Answer, act: Callable[[Any], None]) -> Any:
    with backend.lock:
        replication = backend.replication(given["ReplicationConfigArn"])
        act(replication)
        return replication


def describe_replication_table_statistics(backend: Any, given: Answer) -> Answer:
    replication = backend.replication(given["ReplicationConfigArn"])
    page = _page(given, "ReplicationTableStatistics", _tables(backend, replication, given), TABLES)
    return {"ReplicationConfigArn": replication.arn, **page}


def reload_replication_tables(backend: Any, given: Answer) -> Answer:
    return {"ReplicationConfigArn": _replication(backend, given, lambda each: _reload(each, given)).arn}


OPERATIONS = (
    add_tags_to_resource,
    remove_tags_from_resource,
    create_replication_config,
    delete_replication_config,
    describe_replication_configs,
    describe_replication_table_statistics,
    describe_replications,
    modify_replication_config,
    reload_replication_tables,
    start_replication,
    stop_replication,
    create_replication_task,
    delete_connection,
    delete_replication_task,
    delete_replication_task_assessment_run,
    describe_connections,
    describe_endpoints,
    describe_events,
    describe_replication_instances,
    describe_replication_subnet_groups,
    describe_replication_task_assessment_runs,
    describe_replication_task_individual_assessments,
    describe_replication_tasks,
    describe_table_statistics,
    modify_endpoint,
    modify_replication_task,
    move_replication_task,
    reload_tables,
    start_replication_task,
    start_replication_task_assessment_run,
    stop_replication_task,
    test_connection,
)


def install() -> None:
    """Add the operations, and what AWS refuses where moto does not."""
    for operation in OPERATIONS:
        setattr(DatabaseMigrationServiceResponse, operation.__name__, _method(operation))
    moto_create, moto_call = (
        DatabaseMigrationServiceResponse.create_endpoint,
        DatabaseMigrationServiceResponse.call_action,
    )

    def create_endpoint(self: Any) -> str:
        return str(self.dms_backend.make_endpoint(json.loads(self.body), lambda: moto_create(self)))

    def call_action(self: Any) -> Any:
        if self.dms_backend.is_throttled():
            error = DmsClientError("ThrottlingException", "Rate exceeded")
            return error.code, {"Content-Type": "application/x-amz-json-1.1"}, error.get_body()
        return moto_call(self)

    DatabaseMigrationServiceResponse.create_endpoint = create_endpoint
    DatabaseMigrationServiceResponse.call_action = call_action
    for name, key in (("delete_endpoint", "EndpointArn"), ("delete_replication_instance", "ReplicationInstanceArn")):
        setattr(DatabaseMigrationServiceResponse, name, _guarded(getattr(DatabaseMigrationServiceResponse, name), key))


def _method(operation: Callable[[Any, Answer], Answer]) -> Callable[[Any], str]:
    def answer(self: Any) -> str:
        return json.dumps(operation(self.dms_backend, json.loads(self.body or "{}")))

    return answer


def _guarded(method: Callable[[Any], str], key: str) -> Callable[[Any], str]:
    def answer(self: Any) -> str:
        self.dms_backend.require_unused(json.loads(self.body)[key])
        return method(self)

    return answer
