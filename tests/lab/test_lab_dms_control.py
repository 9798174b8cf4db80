"""The control plane of the simulated DMS: states, what may be done in which of them, paging, events, metrics, assessments."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lab.dms import responses
from tests.lab.dms_kit import NEVER, ROLE, Dms, mappings

pytestmark = pytest.mark.lab


@pytest.fixture
def lab(dms_account: Dms) -> Iterator[Dms]:
    with dms_account.settled():
        yield dms_account


@pytest.fixture(scope="module")
def schema(dms_account: Dms) -> str:
    name = dms_account.schema("CREATE TABLE {s}.t (id INT PRIMARY KEY, v VARCHAR(20))")
    dms_account.write(f"INSERT INTO {name}.t VALUES (1, 'one'), (2, 'two')")
    return name


def refused(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_start_types_are_refused_as_aws_refuses_them(lab: Dms, schema: str) -> None:
    task = lab.task(schema)
    for kind in ("resume-processing", "reload-target"):
        with pytest.raises(ClientError, match="valid only for tasks running previously") as error:
            lab.run(task, kind)
        assert refused(error) == "InvalidParameterCombinationException"
    with pytest.raises(ClientError, match="not both"):
        lab.run(task, CdcStartPosition="binlog.000001:4", CdcStartTime="2024-01-01T00:00:00")
    lab.run(task)
    lab.replicating(task)
    for act in (
        lambda: lab.run(task, "resume-processing"),
        lambda: lab.dms.delete_replication_task(ReplicationTaskArn=task),
        lambda: lab.dms.modify_replication_task(ReplicationTaskArn=task, ReplicationTaskSettings="{}"),
    ):
        with pytest.raises(ClientError) as error:
            act()
        assert refused(error) == "InvalidResourceStateFault"
    lab.stop(task)
    with pytest.raises(ClientError, match="valid only for tasks running for the first time"):
        lab.run(task)
    with pytest.raises(ClientError, match="currently not running"):
        lab.dms.stop_replication_task(ReplicationTaskArn=task)
    with pytest.raises(ClientError, match="only valid when the task is running"):
        lab.dms.reload_tables(ReplicationTaskArn=task, TablesToReload=[{"SchemaName": schema, "TableName": "t"}])


def test_states_on_the_way_can_be_seen(lab: Dms, schema: str) -> None:
    task = lab.task(schema)

    def passes(status: str) -> None:
        assert lab.status(task) == status

    with lab.faults(slow_s=NEVER):
        lab.run(task)
        passes("starting")
    lab.replicating(task)
    with lab.faults(slow_s=NEVER):
        lab.dms.stop_replication_task(ReplicationTaskArn=task)
        passes("stopping")
    lab.ended(task)
    with lab.faults(slow_s=NEVER):
        lab.dms.modify_replication_task(
            ReplicationTaskArn=task, ReplicationTaskSettings=json.dumps({"Logging": {"EnableLogging": True}})
        )
        passes("modifying")
    lab.ended(task)
    found = json.loads(lab.described(task)["ReplicationTaskSettings"])
    assert found["Logging"]["EnableLogging"] is True
    assert found["ErrorBehavior"]["RecoverableErrorCount"] == -1  # what was not given is there too
    with lab.faults(slow_s=NEVER):
        lab.dms.delete_replication_task(ReplicationTaskArn=task)
        passes("deleting")
    lab.dms.get_waiter("replication_task_deleted").wait(
        Filters=[{"Name": "replication-task-arn", "Values": [task]}], WaiterConfig={"Delay": 1}
    )


def test_a_task_moves_by_the_rules(lab: Dms, schema: str) -> None:
    def move(to: str) -> None:
        lab.dms.move_replication_task(ReplicationTaskArn=task, TargetReplicationInstanceArn=to)

    other = lab.make_instance("other", "3.5.5")
    task = lab.task(schema, kind="full-load", FullLoadSettings={"TargetTablePrepMode": "DROP_AND_CREATE"})
    with pytest.raises(ClientError, match="cannot be moved, as it is ready"):
        move(other)
    lab.run(task)
    lab.ended(task)
    with pytest.raises(ClientError, match="on that replication instance already"):
        move(lab.instance)
    with lab.faults(move_fails=True):
        move(other)
        lab.until(lambda: lab.status(task) == "failed-move")
    assert lab.described(task)["ReplicationInstanceArn"] == lab.instance
    with pytest.raises(ClientError, match="cannot be started, as it is failed-move"):
        lab.run(task, "reload-target")
    move(other)
    assert lab.ended(task)["ReplicationInstanceArn"] == other
    with pytest.raises(ClientError, match="earlier version"):
        move(lab.instance)
    untested = "Test connection for replication instance and endpoint should be successful"
    with pytest.raises(ClientError, match=untested):
        lab.run(task, "resume-processing")
    third = lab.make_instance("third", "3.5.5")
    with lab.faults(slow_s=NEVER):
        move(third)
        assert lab.status(task) == "moving"
        for act in (lambda: lab.run(task, "reload-target"), lambda: move(other)):
            with pytest.raises(ClientError, match="as it is moving"):
                act()
        lab.dms.delete_replication_task(ReplicationTaskArn=task)
        assert lab.status(task) == "deleting"
    lab.until(lambda: task not in lab.task_arns())


def test_what_is_there_is_not_made_again_and_what_is_used_is_not_deleted(lab: Dms, schema: str) -> None:
    task = lab.described(lab.task(schema))
    given = {
        "SourceEndpointArn",
        "TargetEndpointArn",
        "ReplicationInstanceArn",
        "MigrationType",
        "ReplicationTaskIdentifier",
    }
    with pytest.raises(ClientError) as error:
        lab.dms.create_replication_task(TableMappings=mappings(schema), **{name: task[name] for name in given})
    assert refused(error) == "ResourceAlreadyExistsFault"
    with pytest.raises(ClientError, match="in use"):
        lab.dms.delete_endpoint(EndpointArn=lab.made["mysql57"])
    with pytest.raises(ClientError, match="in use"):
        lab.dms.delete_replication_instance(ReplicationInstanceArn=lab.instance)
    with pytest.raises(ClientError) as error:
        lab.dms.describe_replication_tasks(Filters=[{"Name": "replication-task-id", "Values": ["nobody"]}])
    assert refused(error) == "ResourceNotFoundFault"
    bad = json.dumps(
        {
            "rules": [
                {
                    "rule-type": "selection",
                    "rule-id": "1",
                    "rule-name": "1",
                    "rule-action": "take",
                    "object-locator": {},
                }
            ]
        }
    )
    for change in (
        {"TableMappings": bad},
        {"ReplicationTaskSettings": '{"Nonsense": {}}'},
        {"CdcStopPosition": "tomorrow"},
    ):
        with pytest.raises(ClientError) as error:
            lab.dms.modify_replication_task(ReplicationTaskArn=task["ReplicationTaskArn"], **change)
        assert refused(error) == "InvalidParameterValueException"


def test_long_answers_come_in_pages(lab: Dms) -> None:
    schema = lab.schema(*(f"CREATE TABLE {{s}}.t{number:03d} (id INT PRIMARY KEY)" for number in range(41)))
    task = lab.task(schema)
    with lab.faults(table_error=[f"{schema}.t{number:03d}" for number in range(41)]):  # faster than to load them
        lab.run(task)
        lab.replicating(task)
    first = lab.dms.describe_table_statistics(ReplicationTaskArn=task, MaxRecords=20)
    assert len(first["TableStatistics"]) == 20
    assert (
        len(
            lab.dms.describe_table_statistics(ReplicationTaskArn=task, MaxRecords=20, Marker=first["Marker"])[
                "TableStatistics"
            ]
        )
        == 20
    )
    assert set(lab.tables(task)) == {f"t{number:03d}" for number in range(41)}
    filters = [{"Name": "table-name", "Values": ["t007"]}]
    assert len(lab.dms.describe_table_statistics(ReplicationTaskArn=task, Filters=filters)["TableStatistics"]) == 1
    with pytest.raises(ClientError, match="MaxRecords"):
        lab.dms.describe_replication_tasks(MaxRecords=5)
    with pytest.raises(ClientError, match="At most 10"):
        lab.dms.reload_tables(
            ReplicationTaskArn=task,
            TablesToReload=[{"SchemaName": schema, "TableName": f"t{n:03d}"} for n in range(11)],
        )
    lab.stop(task)
    for number in range(25):
        lab.make_endpoint("source", EngineName="mysql", ServerName=f"h{number}", Port=1)
    pages = list(lab.dms.get_paginator("describe_endpoints").paginate(PaginationConfig={"PageSize": 20}))
    assert len(pages[0]["Endpoints"]) == 20
    assert len({e["EndpointArn"] for page in pages for e in page["Endpoints"]}) >= 27


@pytest.mark.parametrize(
    "operation", [each.__name__ for each in responses.OPERATIONS if each.__name__.startswith("describe_")]
)
def test_every_listing_knows_markers(lab: Dms, schema: str, operation: str) -> None:
    of: dict[str, Any] = {}
    if operation == "describe_table_statistics":
        of = {"ReplicationTaskArn": lab.task(schema)}
    elif operation == "describe_replication_table_statistics":
        of = {"ReplicationConfigArn": lab.make_replication("paged", schema)}
    with pytest.raises(ClientError, match="Invalid marker: elsewhere"):
        getattr(lab.dms, operation)(**of, Marker="elsewhere")


def test_metrics_show_the_lag_and_are_missing_when_they_are_switched_off(lab: Dms, schema: str) -> None:
    task = lab.task(schema)
    lab.run(task)
    lab.replicating(task)
    lab.until(lambda: lab.metric("CDCLatencyTarget", task) == 0)
    lab.until(lambda: lab.metric("CDCLatencySource", task) == 0)  # also when there is nothing to read
    with lab.faults(lag_s=NEVER):
        lab.write(f"UPDATE {schema}.t SET v = CONCAT(v, '!') WHERE id = 1")
        lab.until(lambda: (lab.metric("CDCLatencyTarget", task) or 0) > 2)
        lab.until(lambda: lab.metric("CDCIncomingChanges", task) == 1)
        assert lab.metric("CDCLatencySource", task) == 0
        assert lab.differences(schema, "t")
    lab.until(lambda: lab.differences(schema, "t") == [])
    with lab.faults(drop_metrics=True):
        lab.until(lambda: lab.metric("CDCLatencyTarget", task) is None)
        assert lab.status(task) == "running"


def test_a_task_may_read_late(lab: Dms, schema: str) -> None:
    task = lab.task(schema, kind="cdc")
    lab.run(task)
    lab.until(lambda: lab.metric("CDCLatencySource", task) == 0)
    with lab.faults(read_lag_s=NEVER):
        lab.write(f"UPDATE {schema}.t SET v = CONCAT(v, '?') WHERE id = 1")
        lab.until(lambda: (lab.metric("CDCLatencySource", task) or 0) > 2)
        lab.until(lambda: (lab.metric("CDCLatencyTarget", task) or 0) > 2)
    lab.until(lambda: lab.table(task)["AppliedUpdates"] == 1)


def test_many_metrics_are_asked_in_pages(lab: Dms, schema: str) -> None:
    task = lab.task(schema, kind="cdc")
    lab.run(task)
    lab.until(lambda: lab.metric("CDCLatencySource", task) == 0)
    client, now = lab.client("cloudwatch"), dt.datetime.now(dt.UTC)
    instance = {"Name": "ReplicationInstanceIdentifier", "Value": "lab"}

    def query(number: int, name: str) -> dict[str, Any]:
        dimensions = [{"Name": "ReplicationTaskIdentifier", "Value": name}, instance]
        metric = {"Namespace": "AWS/DMS", "MetricName": "CDCLatencySource", "Dimensions": dimensions}
        return {"Id": f"m{number}", "MetricStat": {"Metric": metric, "Period": 1, "Stat": "Maximum"}}

    window = {"StartTime": now - dt.timedelta(seconds=60), "EndTime": now + dt.timedelta(seconds=1)}
    with pytest.raises(ClientError, match="must not have a size greater than 500") as error:
        client.get_metric_data(MetricDataQueries=[query(n, "x") for n in range(501)], **window)
    assert refused(error) == "ValidationError"
    queries = [query(n, task.rpartition(":")[2] if n % 100 == 0 else "x") for n in range(500)]
    whole = client.get_metric_data(MetricDataQueries=queries, ScanBy="TimestampAscending", **window)
    assert "NextToken" not in whole
    expected = {each["Id"]: each["Values"] for each in whole["MetricDataResults"]}
    assert len(expected) == 500
    assert sum(len(values) for values in expected.values()) >= 5
    pages = client.get_paginator("get_metric_data").paginate(
        MetricDataQueries=queries, ScanBy="TimestampAscending", MaxDatapoints=2, **window
    )
    found: dict[str, list[float]] = {}
    count = 0
    for page in pages:
        count += 1
        assert sum(len(each["Values"]) for each in page["MetricDataResults"]) <= 2
        for each in page["MetricDataResults"]:
            found.setdefault(each["Id"], []).extend(each["Values"])
    assert found == expected
    assert count >= 3


def test_changes_end_where_they_are_told_to(lab: Dms, schema: str) -> None:
    task = lab.task(schema, kind="cdc")
    begin = lab.source.rows("SHOW MASTER STATUS")[0]
    stop = (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%S")
    lab.run(task, CdcStartPosition=f"{begin['File']}:{begin['Position']}", CdcStopPosition=f"server_time:{stop}")
    assert lab.ended(task)["StopReason"] == "Stop Reason STOPPED_AT_SERVER_TIME"
    stop = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    lab.run(task, "resume-processing", CdcStopPosition=f"commit_time:{stop}")
    lab.until(lambda: lab.status(task) == "running")

    def commits() -> bool:
        lab.write(f"UPDATE {schema}.t SET v = LEFT(UUID(), 8) WHERE id = 2")
        return lab.status(task) == "stopped"

    lab.until(commits)
    assert lab.described(task)["StopReason"] == "Stop Reason STOPPED_AT_COMMIT_TIME"


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("StopTaskCachedChangesNotApplied", "STOPPED_AFTER_FULL_LOAD"),
        ("StopTaskCachedChangesApplied", "STOPPED_AFTER_CACHED_EVENTS"),
    ],
)
def test_a_task_may_stop_between_load_and_changes(lab: Dms, schema: str, setting: str, reason: str) -> None:
    task = lab.task(schema, FullLoadSettings={setting: True, "TargetTablePrepMode": "DROP_AND_CREATE"})
    lab.run(task)
    assert lab.ended(task)["StopReason"] == f"Stop Reason {reason}"
    assert lab.differences(schema, "t") == []


def test_an_assessment_looks_at_the_source(lab: Dms, schema: str) -> None:
    lab.client("s3").create_bucket(Bucket="reports", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})

    def assess(task: str, bucket: str, name: str) -> str:
        made = lab.dms.start_replication_task_assessment_run(
            ReplicationTaskArn=task, ServiceAccessRoleArn=ROLE, ResultLocationBucket=bucket, AssessmentRunName=name
        )
        arn = made["ReplicationTaskAssessmentRun"]["ReplicationTaskAssessmentRunArn"]
        filters = [{"Name": "replication-task-assessment-run-arn", "Values": [arn]}]

        def status() -> str:
            found = lab.dms.describe_replication_task_assessment_runs(Filters=filters)["ReplicationTaskAssessmentRuns"]
            return str(found[0]["Status"])

        lab.until(lambda: status() not in {"starting", "provisioning", "running"})
        assert lab.status(task) == "ready"
        return status()

    task = lab.task(schema)
    with lab.faults(slow_s=NEVER):
        made = lab.dms.start_replication_task_assessment_run(
            ReplicationTaskArn=task, ServiceAccessRoleArn=ROLE, ResultLocationBucket="reports", AssessmentRunName="seen"
        )
        assert lab.status(task) == "testing"
        assert made["ReplicationTaskAssessmentRun"]["ReplicationTaskArn"] == task
    lab.until(lambda: lab.status(task) == "ready")
    assert assess(task, "reports", "a") == "passed"
    assert assess(task, "no-bucket", "b") == "error-provisioning"
    lab.source.sql("SET GLOBAL binlog_checksum = CRC32")
    try:
        assert assess(task, "reports", "c") == "failed"
    finally:
        lab.source.sql("SET GLOBAL binlog_checksum = NONE")
    keyless = lab.task(lab.schema("CREATE TABLE {s}.t (id INT)"))
    assert assess(keyless, "reports", "d") == "warning"


def test_a_secret_is_used_and_never_shown(lab: Dms, schema: str) -> None:
    given = {"username": "rdsadmin", "password": "lab-secret", "host": "127.0.0.1", "port": lab.source.port}
    secret = lab.client("secretsmanager").create_secret(Name="source", SecretString=json.dumps(given))["ARN"]
    source = lab.make_endpoint(
        "source",
        EngineName="mysql",
        MySQLSettings={"SecretsManagerSecretId": secret, "SecretsManagerAccessRoleArn": ROLE},
    )
    task = lab.task(
        schema, kind="full-load", source=source, FullLoadSettings={"TargetTablePrepMode": "DROP_AND_CREATE"}
    )
    lab.run(task)
    lab.ended(task)
    assert lab.table(task)["FullLoadRows"] == 2
    assert "lab-secret" not in str(lab.dms.describe_endpoints())


def test_api_calls_are_throttled_on_order(lab: Dms) -> None:
    with lab.faults(api_throttle=100), pytest.raises(ClientError) as error:
        lab.dms.describe_replication_tasks()
    assert refused(error) == "ThrottlingException"
