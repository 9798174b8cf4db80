"""The control plane of the simulated RDS: versions, quotas, parameter groups, snapshots, clones, logs, metrics, and leaks."""

from __future__ import annotations

import datetime as dt
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from lab import config
from lab.rds import catalogue, leak, plane
from tests.lab import rds_kit
from tests.lab.rds_kit import CLASS, NEW, OLD, REHEARSAL, Cloud

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with rds_kit.cloud(tmp_path_factory.mktemp("rds") / "rds") as made:
        yield made


@pytest.fixture(scope="module")
def cluster(cloud: Cloud) -> str:
    """A cluster that tests may read, reboot and copy."""
    name = cloud.cluster()
    cloud.sql(name, "CREATE TABLE shop.t (id INT PRIMARY KEY, v VARCHAR(20))")
    cloud.sql(name, "INSERT INTO shop.t VALUES (1, 'one'), (2, 'two')")
    cloud.sql(name, "CALL mysql.rds_set_configuration('binlog retention hours', 24)")
    return name


def refused(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def group_status(cloud: Cloud, cluster: str) -> str:
    return str(cloud.described(cluster)["DBClusterMembers"][0]["DBClusterParameterGroupStatus"])


def test_versions_name_their_family_and_what_they_can_become(cloud: Cloud) -> None:
    (found,) = cloud.rds.describe_db_engine_versions(Engine="aurora-mysql", EngineVersion=OLD)["DBEngineVersions"]
    targets = {t["EngineVersion"]: t["IsMajorVersionUpgrade"] for t in found["ValidUpgradeTarget"]}
    assert found["DBParameterGroupFamily"] == "aurora-mysql5.7"
    assert targets[NEW] is True
    assert OLD not in targets
    (newest,) = cloud.rds.describe_db_engine_versions(Engine="mysql", EngineVersion=catalogue.MYSQL[-1])[
        "DBEngineVersions"
    ]
    assert newest.get("ValidUpgradeTarget", []) == []
    assert (
        cloud.rds.describe_db_engine_versions(Engine="aurora-mysql", EngineVersion="banana")["DBEngineVersions"] == []
    )
    with pytest.raises(ClientError, match="Cannot find version banana"):
        cloud.instance(version="banana")


def test_classes_and_quotas_can_be_asked_for(cloud: Cloud, cluster: str) -> None:
    def options(name: str) -> int:
        pages = cloud.rds.get_paginator("describe_orderable_db_instance_options").paginate(
            Engine="aurora-mysql", EngineVersion=NEW, DBInstanceClass=name
        )
        return sum(len(page["OrderableDBInstanceOptions"]) for page in pages)

    assert options(CLASS) == 1
    assert options("db.r1.huge") == 0
    quotas = {q["AccountQuotaName"]: q for q in cloud.rds.describe_account_attributes()["AccountQuotas"]}
    assert quotas["DBClusters"]["Used"] >= 1
    with cloud.faults(quotas={"DBClusters": quotas["DBClusters"]["Used"]}), pytest.raises(ClientError) as full:
        cloud.cluster()
    assert refused(full) == "DBClusterQuotaExceededFault"


def test_a_static_parameter_waits_for_the_reboot_and_a_dynamic_one_does_not(cloud: Cloud) -> None:
    name = cloud.cluster()
    group = cloud.described(name)["DBClusterParameterGroup"]
    assert group_status(cloud, name) == "in-sync"
    cloud.set_group(group, "immediate", max_connections="77", sql_mode="NO_ENGINE_SUBSTITUTION")
    assert group_status(cloud, name) == "in-sync"
    assert cloud.sql(name, "SELECT @@GLOBAL.max_connections, @@GLOBAL.sql_mode") == ((77, "NO_ENGINE_SUBSTITUTION"),)
    with pytest.raises(ClientError, match="static parameter"):
        cloud.set_group(group, "immediate", binlog_format="MIXED")
    with pytest.raises(ClientError, match="Could not find parameter with name: banana"):
        cloud.set_group(group, banana="1")
    cloud.set_group(group, binlog_format="MIXED")
    assert group_status(cloud, name) == "pending-reboot"
    assert cloud.sql(name, "SELECT @@GLOBAL.binlog_format") == (("ROW",),)
    with pytest.raises(ClientError, match="not in sync with its cluster parameter group"):
        cloud.deploy(cloud.described(name)["DBClusterArn"])
    cloud.rds.reboot_db_instance(DBInstanceIdentifier=f"{name}-0")
    assert cloud.database(f"{name}-0")["DBInstanceStatus"] == "rebooting"
    cloud.until(lambda: cloud.are_available(name))
    assert group_status(cloud, name) == "in-sync"
    assert cloud.sql(name, "SELECT @@GLOBAL.binlog_format, @@GLOBAL.max_connections") == (("MIXED", 77),)
    own = [
        parameter["ParameterName"]
        for page in cloud.rds.get_paginator("describe_db_cluster_parameters").paginate(
            DBClusterParameterGroupName=group, Source="user"
        )
        for parameter in page["Parameters"]
    ]
    assert own == ["binlog_format", "max_connections", "sql_mode"]
    with pytest.raises(ClientError) as used:
        cloud.rds.delete_db_cluster_parameter_group(DBClusterParameterGroupName=group)
    assert refused(used) == "InvalidDBParameterGroupState"
    cloud.delete_cluster(name)
    cloud.rds.delete_db_cluster_parameter_group(DBClusterParameterGroupName=group)


def test_the_default_group_of_aurora_has_no_binary_log_and_so_no_deployment(cloud: Cloud) -> None:
    name = cloud.cluster(DBClusterParameterGroupName="default.aurora-mysql5.7")
    with pytest.raises(ClientError, match="binary logging is off") as off:
        cloud.deploy(cloud.described(name)["DBClusterArn"])
    assert refused(off) == "SourceClusterNotSupportedFault"
    cloud.delete_cluster(name)


def test_what_aws_refuses_as_a_source_or_target_is_refused(cloud: Cloud, cluster: str) -> None:
    arn = cloud.described(cluster)["DBClusterArn"]
    with pytest.raises(ClientError, match="Cannot find version banana"):
        cloud.deploy(arn, "banana")
    with pytest.raises(ClientError, match="Cannot upgrade"):
        cloud.deploy(arn, "5.7.mysql_aurora.2.07.2")
    with pytest.raises(ClientError, match=r"Please use a Parameter Group with DBParameterGroupFamily aurora-mysql8\.0"):
        cloud.deploy(arn, TargetDBClusterParameterGroupName=cloud.group("aurora-mysql5.7"))
    cloud.sql(cluster, "CREATE DATABASE tmp")
    with pytest.raises(ClientError, match="a database has the name tmp"):
        cloud.deploy(arn)
    cloud.sql(cluster, "DROP DATABASE tmp")
    assert cloud.rds.describe_blue_green_deployments()["BlueGreenDeployments"] == []


def test_a_snapshot_is_what_the_cluster_held_when_it_was_taken(cloud: Cloud, cluster: str) -> None:
    made = cloud.rds.create_db_cluster_snapshot(
        DBClusterIdentifier=cluster, DBClusterSnapshotIdentifier="snap", Tags=REHEARSAL
    )["DBClusterSnapshot"]
    assert made["Status"] == "creating"

    def status() -> str:
        (found,) = cloud.rds.describe_db_cluster_snapshots(DBClusterSnapshotIdentifier="snap")["DBClusterSnapshots"]
        return str(found["Status"])

    cloud.until(lambda: status() == "available")
    cloud.sql(cluster, "INSERT INTO shop.t VALUES (3, 'three')")
    cloud.rds.restore_db_cluster_from_snapshot(
        DBClusterIdentifier="restored", SnapshotIdentifier="snap", Engine="aurora-mysql"
    )
    assert cloud.described("restored")["TagList"] == []
    assert cloud.described("restored")["EngineVersion"] == OLD
    cloud.rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier="snap")
    cloud.members("restored", 1)
    assert cloud.sql("restored", "SELECT GROUP_CONCAT(v ORDER BY id) FROM shop.t") == (("one,two",),)
    assert cloud.sql("restored", "SELECT value FROM mysql.rds_configuration WHERE name = 'binlog retention hours'") == (
        ("24",),
    )
    cloud.sql("restored", "INSERT INTO shop.t VALUES (4, 'four')")
    cloud.delete_cluster("restored")
    assert not list(cloud.folder.glob("dump-*"))
    cloud.sql(cluster, "DELETE FROM shop.t WHERE id = 3")


def test_a_clone_is_the_cluster_at_the_moment_of_the_call_and_lives_on_its_own(cloud: Cloud, cluster: str) -> None:
    cloud.rds.restore_db_cluster_to_point_in_time(
        DBClusterIdentifier="cloned", SourceDBClusterIdentifier=cluster, RestoreType="copy-on-write",
        UseLatestRestorableTime=True, Tags=REHEARSAL,
    )  # fmt: skip
    cloud.until(lambda: cloud.described("cloned")["Status"] == "available")
    cloud.sql(cluster, "INSERT INTO shop.t VALUES (5, 'five')")
    cloud.members("cloned", 2)
    assert cloud.sql("cloned", "SELECT GROUP_CONCAT(v ORDER BY id) FROM shop.t") == (("one,two",),)
    cloud.sql("cloned", "INSERT INTO shop.t VALUES (6, 'six')")
    cloud.until(lambda: cloud.sql("cloned-1", "SELECT MAX(id) FROM shop.t") == ((6,),), 10)
    assert cloud.sql(cluster, "SELECT MAX(id) FROM shop.t") == ((5,),)
    # A cluster that loses its writer goes on with its reader.
    address = cloud.address("cloned")
    cloud.rds.delete_db_instance(DBInstanceIdentifier="cloned-0")
    cloud.sql(address, "INSERT INTO shop.t VALUES (7, 'seven')")
    cloud.delete_cluster("cloned")
    cloud.sql(cluster, "DELETE FROM shop.t WHERE id = 5")
    with pytest.raises(ClientError, match="UseLatestRestorableTime"):
        cloud.rds.restore_db_cluster_to_point_in_time(
            DBClusterIdentifier="past",
            SourceDBClusterIdentifier=cluster,
            RestoreToTime=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        )


def test_deletion_is_refused_where_aws_refuses_it(cloud: Cloud) -> None:
    name = cloud.cluster(DeletionProtection=True)
    with pytest.raises(ClientError, match="FinalDBSnapshotIdentifier is required"):
        cloud.rds.delete_db_cluster(DBClusterIdentifier=name)
    with pytest.raises(ClientError, match="protected Cluster"):
        cloud.rds.delete_db_cluster(DBClusterIdentifier=name, SkipFinalSnapshot=True)
    cloud.rds.modify_db_cluster(DBClusterIdentifier=name, DeletionProtection=False, ApplyImmediately=True)
    with pytest.raises(ClientError) as members:
        cloud.rds.delete_db_cluster(DBClusterIdentifier=name, SkipFinalSnapshot=True)
    assert refused(members) == "InvalidDBClusterStateFault"
    cloud.delete_cluster(name)
    with pytest.raises(ClientError) as gone:
        cloud.described(name)
    assert refused(gone) == "DBClusterNotFoundFault"


@pytest.mark.parametrize("started", [False, True], ids=["at once", "while its server starts"])
def test_an_instance_that_is_deleted_while_it_is_created_leaves_nothing(cloud: Cloud, started: bool) -> None:
    before = set(cloud.folder.glob("db-*"))
    cloud.rds.create_db_instance(
        DBInstanceIdentifier="hasty", Engine="mysql", EngineVersion="8.0.40", MasterUsername="m", MasterUserPassword="lab-secret",
        DBInstanceClass=CLASS, AllocatedStorage=20,
    )  # fmt: skip
    if started:
        cloud.until(lambda: set(cloud.folder.glob("db-*")) > before, 10)
    cloud.rds.delete_db_instance(DBInstanceIdentifier="hasty", SkipFinalSnapshot=True)
    time.sleep(2)  # what a thread that knows nothing of it would do, it would do now
    cloud.until(lambda: set(cloud.folder.glob("db-*")) <= before, 30)
    cloud.until(lambda: len(plane.servers_below(cloud.folder)) == len(before), 30)


def test_metrics_are_measured_on_the_servers(cloud: Cloud, cluster: str) -> None:
    clients = [cloud.connect(cluster) for _ in range(7)]

    cloud.until(lambda: cloud.metric("DatabaseConnections", f"{cluster}-0") == 7, 30)
    assert cloud.metric("AuroraBinlogReplicaLag", f"{cluster}-0") == -1  # it follows nobody
    for client in clients:
        client.close()


def test_the_log_of_an_instance_can_be_read_in_portions(cloud: Cloud, cluster: str) -> None:
    files = cloud.rds.describe_db_log_files(DBInstanceIdentifier=f"{cluster}-0")["DescribeDBLogFiles"]
    assert [file["LogFileName"] for file in files] == ["error/mysql-error.log"]
    first = cloud.rds.download_db_log_file_portion(
        DBInstanceIdentifier=f"{cluster}-0", LogFileName="error/mysql-error.log", Marker="0", NumberOfLines=2
    )
    assert first["LogFileData"].count("\n") == 2
    assert first["AdditionalDataPending"]
    with pytest.raises(ClientError) as missing:
        cloud.rds.download_db_log_file_portion(DBInstanceIdentifier=f"{cluster}-0", LogFileName="upgrade-prechecks.log")
    assert refused(missing) == "DBLogFileNotFoundFault"


def test_the_leak_check_names_everything_that_is_left(cloud: Cloud, cluster: str) -> None:
    found = leak.left(cloud.rds, cloud.folder)
    assert any(line.startswith(f"DBCluster {cluster} available (dbops:rehearsal=true)") for line in found)
    assert any(line.startswith(f"DBInstance {cluster}-0 ") for line in found)
    assert any(line.startswith("DBClusterParameterGroup g-") for line in found)
    assert sum(line.startswith("process") for line in found) == len(plane.servers_below(cloud.folder)) == 1
    assert not any("default." in line for line in found)


def test_nothing_is_left_when_all_is_deleted(cloud: Cloud, cluster: str) -> None:
    cloud.delete_cluster(cluster)
    for group in cloud.rds.describe_db_cluster_parameter_groups()["DBClusterParameterGroups"]:
        if not group["DBClusterParameterGroupName"].startswith("default."):
            cloud.rds.delete_db_cluster_parameter_group(
                DBClusterParameterGroupName=group["DBClusterParameterGroupName"]
            )
    assert leak.left(cloud.rds, cloud.folder) == []


def test_the_leak_check_fails_when_nobody_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_AWS_PORT", str(rds_kit.free_port()))
    assert leak.main() == 1
    assert "run `python -m lab up`" in capsys.readouterr().err


def test_a_killed_process_leaves_no_database_to_the_next_one(tmp_path: Path) -> None:
    with rds_kit.cloud(tmp_path / "rds") as first:
        first.instance(version="8.0.40")
        assert len(plane.servers_below(first.folder)) == 1
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
        assert len(plane.servers_below(first.folder)) == 1
        with rds_kit.cloud(tmp_path / "rds") as second:
            assert plane.servers_below(second.folder) == []
            assert second.rds.describe_db_instances()["DBInstances"] == []


def test_fault_switches_have_names(tmp_path: Path) -> None:
    with pytest.raises(config.LabError, match="no fault switch \\['banana'\\]"):
        plane.set_faults(tmp_path, banana=1)
