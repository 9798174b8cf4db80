"""The operators and sensors in a DAG that Airflow runs, with real clients (boto3 and aiobotocore) of a simulated AWS."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk import DAG

from dbops import connections
from dbops.blue_green.aws.operators import (
    CreateBlueGreenDeploymentOperator,
    DeleteBlueGreenDeploymentOperator,
    RdsCreateDbClusterOperator,
    RdsCreateDbClusterParameterGroupOperator,
    RdsDeleteDbClusterOperator,
    RdsDeleteDbClusterParameterGroupOperator,
    RdsRebootDbInstanceOperator,
    SwitchoverBlueGreenDeploymentOperator,
)
from dbops.blue_green.aws.sensors import BlueGreenDeploymentSensor, SwitchoverSensor

START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def rds(aws: str) -> Any:
    return connections.aws_client("rds")


@pytest.fixture
def blue(rds: Any) -> str:
    """ARN of an instance that can have a Blue/Green deployment."""
    made = rds.create_db_instance(
        DBInstanceIdentifier="blue", Engine="mysql", EngineVersion="5.7.44", DBInstanceClass="db.m5.large",
        AllocatedStorage=20, MasterUsername="root", MasterUserPassword="not-a-secret", BackupRetentionPeriod=1,
    )  # fmt: skip
    arn: str = made["DBInstance"]["DBInstanceArn"]
    return arn


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
def test_a_deployment_from_creation_to_deletion(
    rds: Any, blue: str, run_dag: Callable[..., Any], deferrable: bool
) -> None:
    identifier = "{{ ti.xcom_pull('create') }}"
    common: dict[str, Any] = {"deferrable": deferrable, "waiter_delay": 1}
    with DAG(f"blue_green_{'deferred' if deferrable else 'worker'}", schedule=None, start_date=START) as dag:
        create = CreateBlueGreenDeploymentOperator(
            task_id="create", blue_green_deployment_name="rehearsal", source=blue, target_engine_version="8.0.35",
            tags={"dbops:rehearsal": "true"}, **common,
        )  # fmt: skip
        ready = BlueGreenDeploymentSensor(
            task_id="ready", blue_green_deployment_identifier=identifier, consecutive=2, poke_interval=1, timeout=60,
            deferrable=deferrable,
        )  # fmt: skip
        reboot = RdsRebootDbInstanceOperator(task_id="reboot", db_instance_identifier="blue", **common)
        switch = SwitchoverBlueGreenDeploymentOperator(
            task_id="switch", blue_green_deployment_identifier=identifier, switchover_timeout=180, grace=60, **common
        )
        ended = SwitchoverSensor(
            task_id="ended", blue_green_deployment_identifier=identifier, switchover_timeout=180, grace=60,
            poke_interval=1, timeout=60, deferrable=deferrable,
        )  # fmt: skip
        delete = DeleteBlueGreenDeploymentOperator(
            task_id="delete", blue_green_deployment_identifier=identifier, **common
        )
        create >> ready >> reboot >> switch >> ended >> delete
    run = run_dag(dag, logical_date=START + timedelta(days=deferrable))
    assert {ti.task_id: ti.state for ti in run.get_task_instances()} == dict.fromkeys(
        ("create", "ready", "reboot", "switch", "ended", "delete"), "success"
    )
    assert rds.describe_blue_green_deployments()["BlueGreenDeployments"] == []
    versions = {one["DBInstanceIdentifier"]: one["EngineVersion"] for one in rds.describe_db_instances()["DBInstances"]}
    assert versions == {"blue": "8.0.35", "blue-old1": "5.7.44"}


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferrable"])
def test_a_cluster_and_its_parameter_group(rds: Any, run_dag: Callable[..., Any], deferrable: bool) -> None:
    common: dict[str, Any] = {"deferrable": deferrable, "waiter_delay": 1}
    with DAG(f"cluster_{'deferred' if deferrable else 'worker'}", schedule=None, start_date=START) as dag:
        group = RdsCreateDbClusterParameterGroupOperator(
            task_id="group", db_cluster_parameter_group_name="blue-57", db_parameter_group_family="aurora-mysql5.7",
            parameters={"binlog_format": "ROW"}, if_exists="take_up",
        )  # fmt: skip
        create = RdsCreateDbClusterOperator(
            task_id="create", db_cluster_identifier="blue", engine="aurora-mysql", if_exists="take_up",
            db_cluster_parameter_group_name="blue-57",
            rds_kwargs={"MasterUsername": "root", "MasterUserPassword": "not-a-secret"}, **common,
        )  # fmt: skip
        delete = RdsDeleteDbClusterOperator(
            task_id="delete", db_cluster_identifier="{{ ti.xcom_pull('create')['DBClusterIdentifier'] }}",
            final_db_snapshot_identifier=None, **common,
        )  # fmt: skip
        remove = RdsDeleteDbClusterParameterGroupOperator(task_id="remove", db_cluster_parameter_group_name="blue-57")
        group >> create >> delete >> remove
    run = run_dag(dag, logical_date=START + timedelta(days=deferrable))
    assert {ti.state for ti in run.get_task_instances()} == {"success"}
    assert rds.describe_db_clusters()["DBClusters"] == []
    assert rds.describe_db_cluster_parameter_groups()["DBClusterParameterGroups"] == []
