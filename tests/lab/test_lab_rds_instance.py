"""Blue/green deployments, snapshots and copies of an instance outside any cluster (RDS for MySQL) in the simulated RDS."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import MySQLdb
import pytest
from botocore.exceptions import ClientError

from lab.rds import plane
from tests.lab import rds_kit
from tests.lab.rds_kit import CLASS, REHEARSAL, Cloud

pytestmark = pytest.mark.lab
NEW = "8.0.40"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with rds_kit.cloud(tmp_path_factory.mktemp("rds") / "rds") as made:
        yield made


@pytest.fixture(scope="module")
def blue(cloud: Cloud) -> str:
    name = cloud.instance()
    cloud.sql(name, "CREATE TABLE shop.t (id INT PRIMARY KEY AUTO_INCREMENT, v INT)")
    cloud.sql(name, "INSERT INTO shop.t (v) VALUES (1), (2)")
    return name


def count(cloud: Cloud, name: object) -> object:
    return cloud.sql(name, "SELECT COUNT(*) FROM shop.t")  # type: ignore[arg-type]


def test_an_instance_without_backups_has_no_deployment(cloud: Cloud) -> None:
    name = cloud.instance(BackupRetentionPeriod=0)
    with pytest.raises(ClientError, match="automated backups are off") as refused:
        cloud.deploy(cloud.database(name)["DBInstanceArn"], NEW)
    assert refused.value.response["Error"]["Code"] == "SourceDatabaseNotSupportedFault"
    with pytest.raises(ClientError, match="FinalDBSnapshotIdentifier is required"):
        cloud.rds.delete_db_instance(DBInstanceIdentifier=name)
    cloud.rds.delete_db_instance(DBInstanceIdentifier=name, SkipFinalSnapshot=True)


def test_a_parameter_group_of_an_instance_waits_for_its_reboot(cloud: Cloud, blue: str) -> None:
    cloud.rds.create_db_parameter_group(
        DBParameterGroupName="own", DBParameterGroupFamily="mysql5.7", Description="x", Tags=REHEARSAL
    )
    wanted = [{"ParameterName": "binlog_format", "ParameterValue": "ROW", "ApplyMethod": "pending-reboot"}]
    cloud.rds.modify_db_parameter_group(DBParameterGroupName="own", Parameters=wanted)
    assert cloud.sql(blue, "SELECT @@GLOBAL.binlog_format") == (("MIXED",),)
    cloud.rds.modify_db_instance(DBInstanceIdentifier=blue, DBParameterGroupName="own", ApplyImmediately=True)

    def status() -> tuple[str, str]:
        (group,) = cloud.database(blue)["DBParameterGroups"]
        return group["DBParameterGroupName"], group["ParameterApplyStatus"]

    assert status() == ("own", "pending-reboot")
    with pytest.raises(ClientError, match="not in sync with its instance parameter group"):
        cloud.deploy(cloud.database(blue)["DBInstanceArn"], NEW)
    cloud.rds.reboot_db_instance(DBInstanceIdentifier=blue)
    cloud.until(lambda: cloud.database(blue)["DBInstanceStatus"] == "available")
    assert status() == ("own", "in-sync")
    assert cloud.sql(blue, "SELECT @@GLOBAL.binlog_format") == (("ROW",),)


def test_a_switchover_rolls_back_at_its_timeout_and_then_succeeds(cloud: Cloud, blue: str) -> None:
    address = cloud.address(blue)
    ids = cloud.database(blue)["DbiResourceId"]
    deployment = cloud.deployed(cloud.database(blue)["DBInstanceArn"], NEW)
    assert [t["Name"] for t in cloud.deployment(deployment)["Tasks"]] == [
        "CREATING_READ_REPLICA_OF_SOURCE", "DB_ENGINE_VERSION_UPGRADE", "CONFIGURE_BACKUPS"
    ]  # fmt: skip
    there = cloud.deployment(deployment)["Target"].rpartition(":")[2]
    assert cloud.sql(there, "SELECT role, status FROM mysql.rds_topology ORDER BY role") == (
        ("BLUE_GREEN_DEPLOYMENT_SOURCE", "AVAILABLE"), ("BLUE_GREEN_DEPLOYMENT_TARGET", "AVAILABLE")
    )  # fmt: skip
    with closing(cloud.connect(blue, autocommit=False)) as holder, holder.cursor() as cursor:
        cursor.execute("UPDATE shop.t SET v = 9 WHERE id = 1")
        time.sleep(5.5)
        seen = len(cloud.truth(deployment))
        with cloud.faults(timeout_scale=0.2):
            after = cloud.switch(deployment, 30)
        times = [entry["monotonic_s"] for entry in cloud.truth(deployment)[seen:]]
        assert 6 <= times[-1] - times[0] < 8
        holder.rollback()
    assert after["Status"] == "AVAILABLE"
    assert "the timeout was exceeded while long-running writes" in cloud.events(deployment)[-1]
    cloud.sql(address, "INSERT INTO shop.t (v) VALUES (3)")
    after = cloud.switch(deployment, 30)
    assert after["Status"] == "SWITCHOVER_COMPLETED"
    assert cloud.address(blue) == address
    assert cloud.database(f"{blue}-old1")["DbiResourceId"] == ids
    assert cloud.sql(address, "SELECT @@version LIKE '8.0%%'") == ((1,),)
    assert count(cloud, address) == ((3,),)
    assert cloud.sql(address, "SELECT DISTINCT status FROM mysql.rds_topology") == (("SWITCHOVER_COMPLETED",),)
    with pytest.raises(MySQLdb.OperationalError, match="read-only"):
        cloud.sql(f"{blue}-old1", "INSERT INTO shop.t (v) VALUES (4)")
    cloud.rds.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment)
    cloud.rds.delete_db_instance(DBInstanceIdentifier=f"{blue}-old1", SkipFinalSnapshot=True)


def test_a_deployment_may_be_deleted_with_its_target_before_the_switchover(cloud: Cloud, blue: str) -> None:
    deployment = cloud.deployed(cloud.database(blue)["DBInstanceArn"], "8.0.41")
    there = cloud.deployment(deployment)["Target"].rpartition(":")[2]
    cloud.rds.modify_db_instance(DBInstanceIdentifier=there, DeletionProtection=True)
    with pytest.raises(ClientError, match="protected target"):
        cloud.rds.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment, DeleteTarget=True)
    cloud.rds.modify_db_instance(DBInstanceIdentifier=there, DeletionProtection=False)
    cloud.rds.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment, DeleteTarget=True)
    with pytest.raises(ClientError, match="not found"):
        cloud.database(there)
    assert count(cloud, blue) == ((3,),)


def test_snapshots_and_copies_of_an_instance(cloud: Cloud, blue: str) -> None:
    made = cloud.rds.create_db_snapshot(DBInstanceIdentifier=blue, DBSnapshotIdentifier="snap")["DBSnapshot"]
    assert made["Status"] == "creating"
    cloud.until(
        lambda: cloud.rds.describe_db_snapshots(DBSnapshotIdentifier="snap")["DBSnapshots"][0]["Status"] == "available"
    )
    cloud.sql(blue, "DELETE FROM shop.t")
    cloud.rds.restore_db_instance_from_db_snapshot(
        DBInstanceIdentifier="restored", DBSnapshotIdentifier="snap", DBInstanceClass=CLASS
    )
    cloud.rds.restore_db_instance_to_point_in_time(
        SourceDBInstanceIdentifier=blue,
        TargetDBInstanceIdentifier="copied",
        UseLatestRestorableTime=True,
        Tags=REHEARSAL,
    )
    cloud.until(lambda: all(cloud.database(name)["DBInstanceStatus"] == "available" for name in ("restored", "copied")))
    assert count(cloud, "restored") == ((3,),)
    assert count(cloud, "copied") == ((0,),)
    assert cloud.database("restored")["TagList"] == []
    assert cloud.database("copied")["TagList"] == REHEARSAL
    cloud.rds.delete_db_snapshot(DBSnapshotIdentifier="snap")
    for name in ("restored", "copied", blue):
        cloud.rds.delete_db_instance(DBInstanceIdentifier=name, SkipFinalSnapshot=True)
    assert not [*cloud.folder.glob("db-*"), *cloud.folder.glob("dump-*")]


def test_a_blue_side_that_dies_during_a_switchover_is_no_clean_roll_back(cloud: Cloud) -> None:
    name = cloud.instance()
    deployment = cloud.deployed(cloud.database(name)["DBInstanceArn"], NEW)
    data = cloud.folder / cloud.database(name)["DbiResourceId"]
    with cloud.faults(replica_lag_s=60, timeout_scale=0.2):
        time.sleep(1)
        cloud.sql(name, "CREATE TABLE shop.t (id INT)")  # green is not to catch up
        cloud.rds.switchover_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment, SwitchoverTimeout=30)
        cloud.until(lambda: "writes_refused" in [entry["event"] for entry in cloud.truth(deployment)], 10)
        (blue,) = (
            process for process in plane.servers_below(cloud.folder) if f"--datadir={data}/data" in process.cmdline()
        )
        blue.kill()
        cloud.until(lambda: cloud.deployment(deployment)["Status"] != "SWITCHOVER_IN_PROGRESS", 30)
    assert cloud.deployment(deployment)["Status"] == "SWITCHOVER_FAILED"
    assert "out of reach" in cloud.deployment(deployment)["StatusDetails"]
    cloud.rds.reboot_db_instance(DBInstanceIdentifier=name)
    cloud.until(lambda: cloud.database(name)["DBInstanceStatus"] == "available")
    cloud.sql(name, "INSERT INTO shop.t VALUES (1)")
    cloud.rds.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment, DeleteTarget=True)
    cloud.rds.delete_db_instance(DBInstanceIdentifier=name, SkipFinalSnapshot=True)
