"""Serverless replications of the simulated DMS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.lab.dms_kit import NEVER, Dms

pytestmark = pytest.mark.lab


@pytest.fixture
def lab(dms_account: Dms) -> Iterator[Dms]:
    with dms_account.settled():
        yield dms_account


def make(lab: Dms, schema: str, kind: str, name: str) -> str:
    return lab.make_replication(name, schema, kind, FullLoadSettings={"TargetTablePrepMode": "TRUNCATE_BEFORE_LOAD"})


def seen(lab: Dms, arn: str) -> Any:
    filters = [{"Name": "replication-config-arn", "Values": [arn]}]
    return lab.dms.describe_replications(Filters=filters)["Replications"][0]


def test_a_replication_gets_capacity_copies_and_gives_it_back(lab: Dms) -> None:
    schema = lab.schema("CREATE TABLE {s}.t (id INT PRIMARY KEY, v VARCHAR(20))")
    lab.write(f"INSERT INTO {schema}.t VALUES (1, 'one')")
    arn = make(lab, schema, "full-load-and-cdc", "whole")
    lab.until(lambda: seen(lab, arn)["Status"] == "created")
    assert "ProvisionData" not in seen(lab, arn)
    with lab.faults(slow_s=NEVER):
        lab.dms.start_replication(ReplicationConfigArn=arn, StartReplicationType="start-replication")
        assert seen(lab, arn)["Status"] == "initializing"
        assert seen(lab, arn)["ProvisionData"]["ProvisionState"] == "provisioning"
    lab.until(lambda: seen(lab, arn)["Status"] == "running")
    assert seen(lab, arn)["ProvisionData"] == {"ProvisionState": "provisioned", "ProvisionedCapacityUnits": 2}
    lab.write(f"INSERT INTO {schema}.t VALUES (2, 'two')")
    lab.until(lambda: lab.sink.rows("SHOW DATABASES LIKE %s", (schema,)) and lab.differences(schema, "t") == [])
    cloudwatch = lab.client("cloudwatch")

    def dimensions() -> list[Any]:
        found = cloudwatch.list_metrics(Namespace="AWS/DMS", MetricName="CDCLatencyTarget")["Metrics"]
        return [each["Dimensions"] for each in found]

    lab.until(lambda: [{"Name": "ReplicationTaskIdentifier", "Value": arn.rpartition(":")[2]}] in dimensions())
    lab.dms.reload_replication_tables(
        ReplicationConfigArn=arn, TablesToReload=[{"SchemaName": schema, "TableName": "t"}]
    )

    def table() -> Any:
        return lab.dms.describe_replication_table_statistics(ReplicationConfigArn=arn)["ReplicationTableStatistics"][0]

    lab.until(lambda: table()["FullLoadReloaded"])
    assert table()["FullLoadRows"] == 2
    lab.dms.stop_replication(ReplicationConfigArn=arn)
    lab.until(lambda: seen(lab, arn)["Status"] == "stopped")
    with lab.faults(slow_s=NEVER), pytest.raises(ClientError, match="not deprovisioned yet"):
        lab.dms.delete_replication_config(ReplicationConfigArn=arn)
    lab.until(lambda: seen(lab, arn)["ProvisionData"]["ProvisionState"] == "deprovisioned")
    lab.dms.delete_replication_config(ReplicationConfigArn=arn)

    def is_gone() -> bool:
        try:
            seen(lab, arn)
        except lab.dms.exceptions.ResourceNotFoundFault:
            return True
        return False

    lab.until(is_gone)


def test_a_full_load_is_not_resumed(lab: Dms) -> None:
    schema = lab.schema("CREATE TABLE {s}.t (id INT PRIMARY KEY)")
    arn = make(lab, schema, "full-load", "load")
    lab.until(lambda: seen(lab, arn)["Status"] == "created")
    lab.dms.start_replication(ReplicationConfigArn=arn, StartReplicationType="start-replication")
    lab.until(lambda: seen(lab, arn)["Status"] == "stopped")
    assert seen(lab, arn)["StopReason"] == "Stop Reason FULL_LOAD_ONLY_FINISHED"
    with pytest.raises(ClientError, match="not applicable to a serverless full load"):
        lab.dms.start_replication(ReplicationConfigArn=arn, StartReplicationType="resume-processing")
    with pytest.raises(ClientError) as error:
        make(lab, schema, "full-load", "load")
    assert error.value.response["Error"]["Code"] == "ResourceAlreadyExistsFault"
