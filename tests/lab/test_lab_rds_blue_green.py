"""Blue/green deployments of a cluster in the simulated RDS: what a switchover does, when it rolls back, and what the fault switches do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import MySQLdb
import pytest
from botocore.exceptions import ClientError

from tests.lab import rds_kit
from tests.lab.rds_kit import REHEARSAL, Cloud

pytestmark = pytest.mark.lab
FAST = 0.1  # a SwitchoverTimeout of 60 seconds lasts 6
READ_ONLY = 1290


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with rds_kit.cloud(tmp_path_factory.mktemp("rds") / "rds") as made:
        yield made


@pytest.fixture(scope="module")
def blue(cloud: Cloud) -> str:
    """A cluster with a reader, a table and a plain user."""
    name = cloud.cluster(readers=1)
    for statement in (
        "CREATE TABLE shop.t (id INT PRIMARY KEY AUTO_INCREMENT, v INT)",
        "INSERT INTO shop.t (v) VALUES (1), (2), (3)",
        "CREATE USER plain@'%' IDENTIFIED BY 'lab-secret'",
        "GRANT ALL ON shop.* TO plain@'%'",
    ):
        cloud.sql(name, statement)
    return name


@pytest.fixture(scope="module")
def deployment(cloud: Cloud, blue: str) -> str:
    return cloud.deployed(cloud.described(blue)["DBClusterArn"], Tags=REHEARSAL)


def green(cloud: Cloud, deployment: str) -> str:
    return str(cloud.deployment(deployment)["Target"].rpartition(":")[2])


def rows(cloud: Cloud, where: Any) -> Any:
    return cloud.sql(where, "SELECT COUNT(*), SUM(id), SUM(v) FROM shop.t")


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_green_is_a_newer_copy_that_follows_and_refuses_plain_writes(cloud: Cloud, blue: str, deployment: str) -> None:
    made, there = cloud.deployment(deployment), green(cloud, deployment)
    assert {task["Status"] for task in made["Tasks"]} == {"COMPLETED"}
    assert [d["Status"] for d in made["SwitchoverDetails"]] == ["AVAILABLE"] * 3
    assert made["TagList"] == REHEARSAL
    assert cloud.sql(there, "SELECT @@version LIKE '8.0%%'") == ((1,),)
    cloud.sql(blue, "INSERT INTO shop.t (v) VALUES (4)")
    cloud.until(lambda: rows(cloud, there) == rows(cloud, blue), 10)
    with pytest.raises(MySQLdb.OperationalError) as refused:
        cloud.sql(there, "INSERT INTO shop.t (v) VALUES (5)", user="plain")
    assert refused.value.args[0] == READ_ONLY
    cloud.until(lambda: cloud.sql(cloud.described(there)["DBClusterMembers"][1]["DBInstanceIdentifier"],
                                  "SELECT COUNT(*) FROM shop.t") == ((4,),), 10)  # fmt: skip


def test_a_source_has_one_deployment_and_a_name_is_used_once(cloud: Cloud, blue: str, deployment: str) -> None:
    with pytest.raises(ClientError) as second:
        cloud.deploy(cloud.described(blue)["DBClusterArn"])
    assert code(second) == "SourceClusterNotSupportedFault"
    with pytest.raises(ClientError) as same:
        cloud.rds.create_blue_green_deployment(
            BlueGreenDeploymentName=cloud.deployment(deployment)["BlueGreenDeploymentName"],
            Source="arn:aws:rds:eu-central-1:1:cluster:x",
        )
    assert code(same) == "BlueGreenDeploymentAlreadyExistsFault"


def test_members_of_a_deployment_cannot_be_deleted(cloud: Cloud, blue: str, deployment: str) -> None:
    for name in (blue, green(cloud, deployment)):
        member = cloud.described(name)["DBClusterMembers"][0]["DBInstanceIdentifier"]
        with pytest.raises(ClientError, match="part of blue/green deployment"):
            cloud.rds.delete_db_instance(DBInstanceIdentifier=member)


def test_a_deployment_can_be_tagged(cloud: Cloud, deployment: str) -> None:
    arn = f"arn:aws:rds:eu-central-1:123456789012:deployment:{deployment}"
    cloud.rds.add_tags_to_resource(ResourceName=arn, Tags=[{"Key": "a", "Value": "b"}])
    assert {"Key": "a", "Value": "b"} in cloud.rds.list_tags_for_resource(ResourceName=arn)["TagList"]
    cloud.rds.remove_tags_from_resource(ResourceName=arn, TagKeys=["a"])
    assert cloud.deployment(deployment)["TagList"] == REHEARSAL


def test_timeouts_outside_the_limits_are_refused(cloud: Cloud, deployment: str) -> None:
    with pytest.raises(ClientError, match="between 30 and 3600"):
        cloud.switch(deployment, 3601)
    assert cloud.deployment(deployment)["Status"] == "AVAILABLE"


@contextmanager
def asking(cloud: Cloud) -> Iterator[list[list[str]]]:
    """Ask for all clusters again and again; gives the identifiers of each answer."""
    ended, answers = threading.Event(), list[list[str]]()

    def ask() -> None:
        while not ended.is_set():
            found = cloud.rds.describe_db_clusters()["DBClusters"]
            answers.append([each["DBClusterIdentifier"] for each in found])
            assert all(len(each["DBClusterMembers"]) == 2 for each in found)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    yield answers
    ended.set()
    for thread in threads:
        thread.join()


def rolled_back(
    cloud: Cloud, blue: str, deployment: str, before: Any, reason: str, timeout_s: int = 60
) -> list[dict[str, Any]]:
    """Switch over, check that everything is as it was, and return the truth of this attempt."""
    seen = len(cloud.truth(deployment))
    cloud.switch(deployment, timeout_s)
    rolled_back_state(cloud, blue, deployment, before, reason)
    return cloud.truth(deployment)[seen:]


def rolled_back_state(cloud: Cloud, blue: str, deployment: str, before: Any, reason: str) -> None:
    """Everything is as it was before the switchover, and events say why."""
    after = cloud.deployment(deployment)
    assert after["Status"] == "AVAILABLE", after
    assert {d["Status"] for d in after["SwitchoverDetails"]} == {"AVAILABLE"}
    assert reason in after["StatusDetails"]
    assert after["Source"] == before["Source"]
    assert after["Target"] == before["Target"]
    assert reason in cloud.events(deployment)[-1]
    assert "canceled" in cloud.events(deployment)[-1]
    assert reason in cloud.events(blue, "db-cluster")[-1]
    assert cloud.sql(blue, "SELECT @@version LIKE '5.7%%'") == ((1,),)
    cloud.sql(blue, "INSERT INTO shop.t (v) VALUES (10)", user="plain")
    with pytest.raises(MySQLdb.OperationalError):
        cloud.sql(green(cloud, deployment), "INSERT INTO shop.t (v) VALUES (11)", user="plain")
    cloud.until(lambda: rows(cloud, blue) == rows(cloud, green(cloud, deployment)), 60)


def test_a_long_transaction_holds_a_switchover_up_until_it_rolls_back(cloud: Cloud, blue: str, deployment: str) -> None:
    before = cloud.deployment(deployment)
    with (
        closing(cloud.connect(blue, autocommit=False)) as holder,
        holder.cursor() as cursor,
        cloud.faults(timeout_scale=0.2),
    ):
        cursor.execute("UPDATE shop.t SET v = v + 1 WHERE id = 1")
        thread = holder.thread_id()
        time.sleep(5.5)  # younger transactions would be cut, as by AWS
        truth = rolled_back(cloud, blue, deployment, before, f"connection {thread} of rehearsal", 30)
        holder.rollback()
    assert [entry["event"] for entry in truth] == ["switchover_started", "writes_allowed"]  # writes were never refused
    assert 6 <= truth[-1]["monotonic_s"] - truth[0]["monotonic_s"] < 8


def run_until_killed(connection: Any, statement: str) -> threading.Thread:
    """Run a statement in a thread; it is expected to be killed."""

    def run() -> None:
        with closing(connection), connection.cursor() as cursor, pytest.raises(MySQLdb.OperationalError) as killed:
            cursor.execute(statement)
        assert killed.value.args[0] in (1317, 2013), killed.value

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_running_ddl_holds_a_switchover_up(cloud: Cloud, blue: str, deployment: str) -> None:
    before = cloud.deployment(deployment)
    cloud.sql(blue, "CREATE TABLE shop.u (id INT)")
    with closing(cloud.connect(blue, autocommit=False)) as reader, reader.cursor() as cursor:
        cursor.execute("SELECT * FROM shop.u")  # a DDL of this table waits now
        connection = cloud.connect(blue)
        number = connection.thread_id()
        ddl = run_until_killed(connection, "ALTER TABLE shop.u ADD COLUMN v INT")
        time.sleep(5.5)
        with cloud.faults(timeout_scale=FAST):
            rolled_back(cloud, blue, deployment, before, "ALTER TABLE shop.u", 30)
        cloud.sql(blue, f"KILL {number}")
        ddl.join()


def test_a_green_side_that_lags_beyond_the_limit_is_not_waited_for(cloud: Cloud, blue: str, deployment: str) -> None:
    before = cloud.deployment(deployment)
    writer = cloud.described(green(cloud, deployment))["DBClusterMembers"][0]["DBInstanceIdentifier"]
    assert cloud.metric("AuroraBinlogReplicaLag", writer) == 0
    with cloud.faults(replica_lag_s=20):
        time.sleep(1)  # the deployment looks at the switch ten times a second
        cloud.sql(blue, "INSERT INTO shop.t (v) VALUES (20)")
        time.sleep(16.5)
        assert (cloud.metric("AuroraBinlogReplicaLag", writer) or 0) >= 8
        seen = len(cloud.truth(deployment))
        cloud.switch(deployment, 30)
    truth = cloud.truth(deployment)[seen:]
    rolled_back_state(cloud, blue, deployment, before, "is above the limit of 15 s")
    assert truth[-1]["monotonic_s"] - truth[0]["monotonic_s"] < 2


def test_a_catch_up_that_takes_too_long_costs_writes_and_is_rolled_back(
    cloud: Cloud, blue: str, deployment: str
) -> None:
    before = cloud.deployment(deployment)
    with cloud.faults(replica_lag_s=30, timeout_scale=FAST):
        time.sleep(1)
        cloud.sql(blue, "INSERT INTO shop.t (v) VALUES (30)")
        seen = len(cloud.truth(deployment))
        cloud.switch(deployment, 30)
    truth = cloud.truth(deployment)[seen:]
    rolled_back_state(cloud, blue, deployment, before, "catching up with blue")
    times = {entry["event"]: entry["monotonic_s"] for entry in truth}
    assert 2.5 < times["writes_allowed"] - times["writes_refused"] < 4


def test_a_statement_that_cannot_be_stopped_counts_against_the_timeout(
    cloud: Cloud, blue: str, deployment: str
) -> None:
    before, connection = cloud.deployment(deployment), cloud.connect(blue)
    number = connection.thread_id()
    update = run_until_killed(connection, "UPDATE shop.t SET v = v + SLEEP(30) WHERE id = 2")
    time.sleep(0.5)  # young enough to pass the guardrails
    with cloud.faults(timeout_scale=FAST):
        assert cloud.switch(deployment, 30)["Status"] == "AVAILABLE"
    cloud.sql(blue, f"KILL {number}")
    update.join()
    rolled_back_state(cloud, blue, deployment, before, "held up the stop of writes")


@pytest.mark.parametrize("fault", [{"connection_cost_s": 2000}, {"table_cost_s": 4000}], ids=["connections", "tables"])
def test_many_connections_or_tables_may_take_longer_than_the_timeout(
    cloud: Cloud, blue: str, deployment: str, fault: dict[str, float]
) -> None:
    before = cloud.deployment(deployment)
    clients = [cloud.connect(blue) for _ in range(3)]
    with cloud.faults(timeout_scale=FAST, **fault):
        truth = rolled_back(cloud, blue, deployment, before, "were taken care of", 30)
    dropped = next(entry for entry in truth if entry["event"] == "connections_dropped")
    assert dropped["connections"] >= 3
    for client in clients:
        with pytest.raises(MySQLdb.OperationalError):
            client.query("SELECT 1")


def test_the_status_after_a_roll_back_and_its_events_are_as_the_switches_say(cloud: Cloud, deployment: str) -> None:
    count = len(cloud.events(deployment))
    switches = {"connection_cost_s": 0, "table_cost_s": 4000, "timeout_scale": FAST}
    with cloud.faults(rollback_status="SWITCHOVER_FAILED", drop_events=True, **switches):
        after = cloud.switch(deployment, 30)
    assert after["Status"] == "SWITCHOVER_FAILED"
    assert "taken care of" in after["StatusDetails"]
    assert len(cloud.events(deployment)) == count


def test_an_old_status_is_shown_for_a_while(cloud: Cloud, deployment: str) -> None:
    with cloud.faults(stale_describe_s=2, table_cost_s=4000, timeout_scale=FAST):
        cloud.rds.switchover_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment, SwitchoverTimeout=30)
        assert cloud.deployment(deployment)["Status"] == "SWITCHOVER_FAILED"  # of the attempt before
        cloud.until(lambda: cloud.deployment(deployment)["Status"] == "SWITCHOVER_IN_PROGRESS", 3)
        cloud.until(lambda: cloud.deployment(deployment)["Status"] == "AVAILABLE", 10)


def test_calls_are_throttled(cloud: Cloud, deployment: str) -> None:
    with cloud.faults(throttle=100), pytest.raises(ClientError) as throttled:
        cloud.deployment(deployment)
    assert code(throttled) == "Throttling"
    assert cloud.deployment(deployment)["Status"] == "AVAILABLE"


def test_a_switchover_gives_blues_names_and_endpoints_to_green(cloud: Cloud, blue: str, deployment: str) -> None:
    address, reader = cloud.address(blue), (cloud.described(blue)["ReaderEndpoint"], cloud.described(blue)["Port"])
    there, before = green(cloud, deployment), rows(cloud, blue)
    ids = {name: cloud.described(name)["DbClusterResourceId"] for name in (blue, there)}
    client = cloud.connect(blue)
    with asking(cloud) as answers:
        after = cloud.switch(deployment)
    # Whoever asks meanwhile sees the members before or after, never in between.
    assert {tuple(sorted(names)) for names in answers} <= {
        tuple(sorted(names)) for names in ((blue, there), (f"{blue}-old1", blue))
    }  # fmt: skip
    assert after["Status"] == "SWITCHOVER_COMPLETED", after
    assert {d["Status"] for d in after["SwitchoverDetails"]} == {"SWITCHOVER_COMPLETED"}
    assert [d["SourceMember"].endswith("-old1") for d in after["SwitchoverDetails"]] == [True] * 3
    assert cloud.described(blue)["DbClusterResourceId"] == ids[there]
    assert cloud.described(f"{blue}-old1")["DbClusterResourceId"] == ids[blue]
    assert [m["DBInstanceIdentifier"] for m in cloud.described(blue)["DBClusterMembers"]] == [f"{blue}-0", f"{blue}-1"]
    assert cloud.address(blue) == address
    for where in (address, reader):
        assert cloud.sql(where, "SELECT @@version LIKE '8.0%%'") == ((1,),)
        assert rows(cloud, where) == before
    cloud.sql(address, "INSERT INTO shop.t (v) VALUES (40)", user="plain")
    cloud.until(lambda: rows(cloud, reader) == rows(cloud, address), 10)
    with pytest.raises(MySQLdb.OperationalError):
        client.query("SELECT 1")
    assert any("Binary log coordinates" in each for each in cloud.events(f"{blue}-0-green", "db-instance")) or any(
        "Binary log coordinates" in e["Message"] for e in cloud.rds.describe_events(SourceType="db-instance")["Events"]
    )
    assert "completed" in cloud.events(deployment)[-1]
    assert cloud.described(blue)["TagList"] == REHEARSAL


def test_the_old_side_is_read_only_until_its_writer_is_rebooted(cloud: Cloud, blue: str, deployment: str) -> None:
    old = f"{blue}-0-old1"
    with pytest.raises(MySQLdb.OperationalError) as refused:
        cloud.sql(old, "INSERT INTO shop.t (v) VALUES (50)")
    assert refused.value.args[0] == READ_ONLY
    cloud.rds.reboot_db_instance(DBInstanceIdentifier=old)
    cloud.until(lambda: cloud.database(old)["DBInstanceStatus"] == "available")
    cloud.sql(old, "INSERT INTO shop.t (v) VALUES (50)")
    assert cloud.sql(blue, "SELECT COUNT(*) FROM shop.t WHERE v = 50") == ((0,),)


def test_after_a_switchover_the_target_is_not_deleted_with_the_deployment(
    cloud: Cloud, blue: str, deployment: str
) -> None:
    with pytest.raises(ClientError) as refused:
        cloud.rds.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment, DeleteTarget=True)
    assert code(refused) == "InvalidBlueGreenDeploymentStateFault"
    cloud.rds.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment)
    with pytest.raises(ClientError) as gone:
        cloud.deployment(deployment)
    assert code(gone) == "BlueGreenDeploymentNotFoundFault"
    assert rows(cloud, blue)[0][0] > 0
    for name in (f"{blue}-old1", blue):
        cloud.delete_cluster(name)
    assert not list(Path(cloud.folder).glob("db-*"))


def test_a_member_may_be_left_behind(cloud: Cloud) -> None:
    name = cloud.cluster(readers=1)
    deployment = cloud.deployed(cloud.described(name)["DBClusterArn"])
    with cloud.faults(member_fails=True):
        after = cloud.switch(deployment)
    assert after["Status"] == "SWITCHOVER_COMPLETED"
    assert [d["Status"] for d in after["SwitchoverDetails"]] == [
        "SWITCHOVER_COMPLETED",
        "SWITCHOVER_COMPLETED",
        "SWITCHOVER_FAILED",
    ]
    assert cloud.database(f"{name}-1")["EngineVersion"] == rds_kit.OLD
    cloud.rds.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment)
    for each in (f"{name}-old1", name):
        cloud.delete_cluster(each)


def test_a_creation_that_fails_says_why(cloud: Cloud) -> None:
    name = cloud.cluster()
    arn = cloud.described(name)["DBClusterArn"]
    with cloud.faults(create_fails="the lab says no"):
        deployment = cloud.deploy(arn)
        cloud.until(lambda: cloud.deployment(deployment)["Status"] == "INVALID_CONFIGURATION")
    made = cloud.deployment(deployment)
    assert [task["Status"] for task in made["Tasks"]] == ["FAILED", "PENDING", "PENDING"]
    assert "the lab says no" in cloud.events(deployment)[-1]
    with pytest.raises(ClientError) as refused:
        cloud.switch(deployment)
    assert code(refused) == "InvalidBlueGreenDeploymentStateFault"
    cloud.rds.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment, DeleteTarget=True)
    cloud.sql(name, "CREATE PROCEDURE shop.p() SELECT ENCRYPT('a')")
    deployment = cloud.deploy(arn)
    cloud.until(lambda: cloud.deployment(deployment)["Status"] == "INVALID_CONFIGURATION")
    assert "removedFunctionsCheck: shop.p" in cloud.deployment(deployment)["StatusDetails"]
    member = cloud.described(green(cloud, deployment))["DBClusterMembers"][0]["DBInstanceIdentifier"]
    log, marker, pending = "", "0", True
    while pending:
        part = cloud.rds.download_db_log_file_portion(
            DBInstanceIdentifier=member, LogFileName="upgrade-prechecks.log", Marker=marker, NumberOfLines=50
        )
        log, marker, pending = log + part["LogFileData"], part["Marker"], part["AdditionalDataPending"]
    assert '"errorCount": 1' in log
    cloud.rds.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment, DeleteTarget=True)
    cloud.delete_cluster(name)
