"""Specs and answers of DMS for tests, and a client that answers pages of a scripted account."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from dbops.dms.spec import DmsSpec

ROLE = "arn:aws:iam::123456789012:role/dms"
SECRET = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop-dms"
STREAM = "arn:aws:kinesis:eu-central-1:123456789012:stream/shop"
SOURCE_ARN = "arn:aws:dms:eu-central-1:123456789012:endpoint:SOURCE"
TARGET_ARN = "arn:aws:dms:eu-central-1:123456789012:endpoint:TARGET"
INSTANCE_ARN = "arn:aws:dms:eu-central-1:123456789012:rep:ONE"
TASK_ARN = "arn:aws:dms:eu-central-1:123456789012:task:SHOP"
LOG = "mysql-bin.000002"
CHECKPOINT = f"checkpoint:V1#1#{LOG}:4:-1:0:0:{LOG}:4#0#0#*#0#93"
SELECT_ALL = {
    "rule-type": "selection", "rule-id": "1", "rule-name": "1", "rule-action": "include",
    "object-locator": {"schema-name": "shop", "table-name": "%"},
}  # fmt: skip
SAFE = {
    "ErrorBehavior": {
        "DataErrorPolicy": "SUSPEND_TABLE", "DataTruncationErrorPolicy": "STOP_TASK",
        "ApplyErrorInsertPolicy": "SUSPEND_TABLE", "ApplyErrorUpdatePolicy": "SUSPEND_TABLE",
        "ApplyErrorDeletePolicy": "SUSPEND_TABLE", "ApplyErrorEscalationPolicy": "STOP_TASK",
        "RecoverableErrorCount": 20, "FailOnNoTablesCaptured": True,
    },
    "FullLoadSettings": {"TargetTablePrepMode": "DO_NOTHING"},
    "Logging": {"EnableLogging": True},
    "ChangeProcessingDdlHandlingPolicy": {"HandleSourceTableDropped": False, "HandleSourceTableTruncated": False},
}  # fmt: skip
MYSQL = {"kind": "mysql", "identifier": "shop-blue", "secret_arn": SECRET, "secret_role_arn": ROLE}
MYSQL_TARGET = {**MYSQL, "identifier": "shop-green"}
DYNAMODB = {"kind": "dynamodb", "identifier": "shop-dynamodb", "role_arn": ROLE}
KINESIS = {"kind": "kinesis", "identifier": "shop-kinesis", "role_arn": ROLE, "stream_arn": STREAM}
S3 = {"kind": "s3", "identifier": "shop-s3", "role_arn": ROLE, "bucket": "shop-lake", "folder": "cdc"}


def document(**more: Any) -> dict[str, Any]:
    return {
        "name": "shop_orders", "description": "orders to the new store", "owner": "shop-dba",
        "task_type": "full-load-and-cdc", "compute": {"kind": "instance", "identifier": "dms-one"},
        "source": MYSQL, "target": MYSQL_TARGET, "mappings": [SELECT_ALL], "settings": SAFE, **more,
    }  # fmt: skip


def spec(**more: Any) -> DmsSpec:
    return DmsSpec.model_validate(document(**more))


def task_row(**more: Any) -> dict[str, Any]:
    """A row of DescribeReplicationTasks that runs and has loaded two tables."""
    import json

    return {
        "ReplicationTaskIdentifier": "shop-orders", "ReplicationTaskArn": TASK_ARN, "Status": "running",
        "MigrationType": "full-load-and-cdc", "SourceEndpointArn": SOURCE_ARN, "TargetEndpointArn": TARGET_ARN,
        "ReplicationInstanceArn": INSTANCE_ARN, "TableMappings": json.dumps({"rules": [SELECT_ALL]}),
        "ReplicationTaskSettings": json.dumps(SAFE),
        "ReplicationTaskStats": {"TablesLoaded": 2, "TablesLoading": 0, "TablesQueued": 0, "TablesErrored": 0}, **more,
    }  # fmt: skip


def table_row(name: str = "orders", state: str = "Table completed", **more: Any) -> dict[str, Any]:
    return {"SchemaName": "shop", "TableName": name, "TableState": state, "FullLoadRows": 10, **more}


class NotFound(Exception):
    response = {"Error": {"Code": "ResourceNotFoundFault", "Message": "no such thing"}}  # noqa: RUF012


class Paged:
    """A client of DMS whose listings have two rows a page; it counts its calls."""

    def __init__(self, **rows: list[dict[str, Any]] | Exception) -> None:
        self.rows, self.calls = rows, list[tuple[str, dict[str, Any]]]()

    def __getattr__(self, operation: str) -> Any:
        def call(**arguments: Any) -> dict[str, Any]:
            validate(operation, arguments)
            self.calls.append((operation, arguments))
            found = self.rows.get(operation, [])
            if isinstance(found, Exception):
                raise found
            first = int(arguments.get("Marker", 0))
            key = {
                "describe_replication_tasks": "ReplicationTasks", "describe_table_statistics": "TableStatistics",
                "describe_replication_configs": "ReplicationConfigs", "describe_replications": "Replications",
                "describe_replication_table_statistics": "ReplicationTableStatistics",
                "describe_endpoints": "Endpoints", "describe_replication_instances": "ReplicationInstances",
                "describe_connections": "Connections",
            }[operation]  # fmt: skip
            more = {"Marker": str(first + 2)} if first + 2 < len(found) else {}
            return {key: found[first : first + 2], **more}

        return call


@lru_cache
def _model() -> Any:
    import botocore.session

    return botocore.session.get_session().get_service_model("dms")


def validate(method: str, arguments: dict[str, Any]) -> None:
    """Fails unless botocore would send this call."""
    from botocore import xform_name
    from botocore.validate import ParamValidator

    operation = next(name for name in _model().operation_names if xform_name(name) == method)
    report = ParamValidator().validate(arguments, _model().operation_model(operation).input_shape)
    assert not report.has_errors(), report.generate_report()


def of_shape(shape: str, row: dict[str, Any]) -> list[str]:
    """What of a row of DMS's answers botocore's model does not have, or has otherwise."""
    from botocore.validate import ParamValidator

    found = _model().shape_for(shape)
    unknown = [name for name in row if name not in found.members]
    report = ParamValidator().validate({k: v for k, v in row.items() if k not in unknown}, found)
    return [*unknown, *([report.generate_report()] if report.has_errors() else [])]


def ask(client: Any, question: Any) -> Any:
    """Drive a question."""
    try:
        call = next(question)
        while True:
            try:
                answer = getattr(client, call[0])(**call[1])
            except Exception as error:
                call = question.throw(error)
            else:
                call = question.send(answer)
    except StopIteration as end:
        return end.value
