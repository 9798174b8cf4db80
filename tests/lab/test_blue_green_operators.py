"""The provider package against the simulated RDS with real servers: a roll-back, then a switchover, in a DAG that Airflow runs deferred."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from dbops.blue_green import attempt, probes
from dbops.blue_green.aws.operators import (
    CreateBlueGreenDeploymentOperator,
    DeleteBlueGreenDeploymentOperator,
    SwitchoverBlueGreenDeploymentOperator,
)
from dbops.blue_green.aws.sensors import BlueGreenDeploymentSensor, ReplicaLagSensor
from lab import config
from tests.lab import rds_kit

pytestmark = pytest.mark.lab
START = datetime(2026, 3, 1, tzinfo=UTC)
FAST = 0.2  # a SwitchoverTimeout of 30 seconds lasts 6
RUN = "operators"
# A switchover waits for transactions of 5 seconds and more.
OLD_ENOUGH = "SELECT 1 FROM information_schema.innodb_trx WHERE trx_started < NOW() - INTERVAL 6 SECOND"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[rds_kit.Cloud]:
    with rds_kit.cloud(tmp_path / "rds") as made:
        extra = {"region_name": "eu-central-1", "endpoint_url": made.endpoint}
        for name, connection in (
            ("AWS_DEFAULT", {"conn_type": "aws", "login": "lab", "password": "lab", "extra": extra}),
            (
                "DBOPS_REHEARSAL",
                {"conn_type": "mysql", "host": "unused", "login": config.RDS_USER, "password": config.MYSQL_PASSWORD},
            ),
        ):
            monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(connection))
        yield made


@pytest.fixture
def blue(cloud: rds_kit.Cloud, tmp_path: Path) -> Iterator[str]:
    """A cluster with a reader, whose writer endpoint is probed."""
    name = cloud.cluster(readers=1)
    cloud.sql(name, "CREATE TABLE shop.t (id INT PRIMARY KEY)")
    with closing(cloud.connect(name)) as connection:
        probes.create_table(connection, "shop")
    host, port = cloud.address(name)
    endpoint = probes.Endpoint(host=host, port=port, user=config.RDS_USER, password=config.MYSQL_PASSWORD)
    recording = tmp_path / "probes.bin"
    probes.start(
        probes.Settings(
            run=RUN, path=recording, schema_name="shop", max_seconds=600,
            lanes=(probes.Lane(name="write", kind="write", endpoint=endpoint),),
        )
    )  # fmt: skip
    yield name
    probes.stop(recording)


class Kept:
    """A keeper in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> dict[str, Any] | None:
        return json.loads(self.path.read_text()) if self.path.exists() else None

    def save(self, document: dict[str, Any]) -> None:
        self.path.write_text(json.dumps(document))


def states(run: Any) -> dict[str, str]:
    return {ti.task_id: ti.state for ti in run.get_task_instances()}


def test_a_roll_back_and_then_a_switchover(
    cloud: rds_kit.Cloud, blue: str, run_dag: Callable[..., Any], tmp_path: Path
) -> None:
    arn = cloud.described(blue)["DBClusterArn"]
    with DAG("operators_create", schedule=None, start_date=START) as dag:
        create = CreateBlueGreenDeploymentOperator(
            task_id="create", blue_green_deployment_name="rehearsal", source=arn, target_engine_version=rds_kit.NEW, tags=rds_kit.REHEARSAL,
            waiter_delay=1, deferrable=True,
        )  # fmt: skip
        ready = BlueGreenDeploymentSensor(
            task_id="ready", blue_green_deployment_identifier="{{ ti.xcom_pull('create') }}", poke_interval=1, timeout=120,
            deferrable=True,
        )  # fmt: skip
        create >> ready
    assert set(states(run_dag(dag, logical_date=START)).values()) == {"success"}
    found = cloud.rds.describe_blue_green_deployments()["BlueGreenDeployments"]
    assert [one["BlueGreenDeploymentName"] for one in found] == ["rehearsal"]
    identifier, green = found[0]["BlueGreenDeploymentIdentifier"], found[0]["Target"].rpartition(":")[2]
    green_writer = next(
        one["DBInstanceIdentifier"] for one in cloud.described(green)["DBClusterMembers"] if one["IsClusterWriter"]
    )

    first, second = Kept(tmp_path / "first.json"), Kept(tmp_path / "second.json")
    with DAG("operators_rolled_back", schedule=None, start_date=START) as dag:
        SwitchoverBlueGreenDeploymentOperator(
            task_id="switch", blue_green_deployment_identifier=identifier, switchover_timeout=30, grace=30, store=first,
            waiter_delay=1, deferrable=True,
        )  # fmt: skip
    with (
        cloud.faults(timeout_scale=FAST, stale_describe_s=1),
        closing(cloud.connect(blue, autocommit=False)) as holder,
    ):
        with holder.cursor() as cursor:
            cursor.execute("INSERT INTO shop.t VALUES (1)")
        cloud.until(lambda: cloud.sql(blue, OLD_ENOUGH))
        assert states(run_dag(dag, logical_date=START)) == {"switch": "success"}
        holder.rollback()
    rolled_back = attempt.require(first, identifier)
    assert (rolled_back.called, rolled_back.memory.outcome) == ("accepted", "ROLLED_BACK")
    assert "active on blue" in rolled_back.memory.reason

    with DAG("operators_completed", schedule=None, start_date=START) as dag:
        lag = ReplicaLagSensor(
            task_id="lag", db_instance_identifier=green_writer, mysql_conn_id="dbops_rehearsal",
            blue=cloud.address(blue), green=cloud.address(green), schema="shop", run=RUN, poke_interval=1, timeout=120,
            deferrable=True,
        )  # fmt: skip
        switch = SwitchoverBlueGreenDeploymentOperator(
            task_id="switch", blue_green_deployment_identifier=identifier, switchover_timeout=180, grace=60, store=second,
            waiter_delay=1, deferrable=True,
        )  # fmt: skip
        delete = DeleteBlueGreenDeploymentOperator(
            task_id="delete", blue_green_deployment_identifier=identifier, waiter_delay=1, deferrable=True
        )
        lag >> switch >> delete
    assert set(states(run_dag(dag, logical_date=START)).values()) == {"success"}
    completed = attempt.require(second, identifier)
    assert (completed.called, completed.memory.outcome) == ("accepted", "COMPLETED")
    assert len(completed.memory.expected) == 3  # the cluster, its writer and its reader, under their old names
    assert dict(completed.memory.members) == dict.fromkeys(completed.memory.expected, "SWITCHOVER_COMPLETED")
    assert cloud.rds.describe_blue_green_deployments()["BlueGreenDeployments"] == []
    assert cloud.sql(blue, "SELECT VERSION(), COUNT(*) FROM shop.t")[0][0].startswith("8.0")
    begun = [entry for entry in cloud.truth(identifier) if entry["event"] == "writes_allowed"]
    assert begun[-1]["rolled_back"] is False
