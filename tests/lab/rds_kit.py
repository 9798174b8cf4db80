"""A simulated RDS of its own for the tests that drive it: a process, a client, and the databases behind it."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import MySQLdb

from lab import aws, config
from lab.rds import plane

REHEARSAL = [{"Key": "dbops:rehearsal", "Value": "true"}]
OLD, NEW = "5.7.mysql_aurora.2.11.4", "8.0.mysql_aurora.3.08.2"
CLASS = "db.r6g.large"
START_S = 60
WAIT_S = 180


@dataclass
class Cloud:
    """An account with an RDS; everything that it is asked goes through the API, as in AWS."""

    folder: Path
    endpoint: str
    process: subprocess.Popen[bytes]
    rds: Any = field(init=False)
    cloudwatch: Any = field(init=False)

    def __post_init__(self) -> None:
        self.rds, self.cloudwatch = (aws.client(name, self.endpoint) for name in ("rds", "cloudwatch"))

    @contextmanager
    def faults(self, **switches: Any) -> Iterator[None]:
        """Fault switches of the block."""
        plane.set_faults(self.folder, **switches)
        try:
            yield
        finally:
            plane.set_faults(self.folder)

    def group(self, family: str = "aurora-mysql5.7", **parameters: str) -> str:
        """A new cluster parameter group."""
        name = f"g-{uuid.uuid4().hex[:8]}"
        self.rds.create_db_cluster_parameter_group(
            DBClusterParameterGroupName=name, DBParameterGroupFamily=family, Description="of a test", Tags=REHEARSAL
        )
        if parameters:
            self.set_group(name, **parameters)
        return name

    def set_group(self, name: str, method: str = "pending-reboot", **parameters: str) -> None:
        entries = [{"ParameterName": n, "ParameterValue": v, "ApplyMethod": method} for n, v in parameters.items()]
        self.rds.modify_db_cluster_parameter_group(DBClusterParameterGroupName=name, Parameters=entries)

    def cluster(self, readers: int = 0, version: str = OLD, **settings: Any) -> str:
        """A new cluster whose instances are available, with the schema shop; its binary log is on unless a group is given."""
        name = f"c-{uuid.uuid4().hex[:8]}"
        settings.setdefault("DBClusterParameterGroupName", "")
        group = settings.pop("DBClusterParameterGroupName") or self.group(
            f"aurora-mysql{version[:3]}", binlog_format="ROW"
        )
        self.rds.create_db_cluster(
            DBClusterIdentifier=name, Engine="aurora-mysql", EngineVersion=version, MasterUsername=config.RDS_USER,
            MasterUserPassword=config.MYSQL_PASSWORD, DatabaseName="shop", DBClusterParameterGroupName=group, Tags=REHEARSAL, **settings,
        )  # fmt: skip
        self.members(name, 1 + readers)
        return name

    def members(self, cluster: str, count: int) -> None:
        """Give a cluster its instances, and wait for them."""
        for number in range(count):
            self.rds.create_db_instance(
                DBInstanceIdentifier=f"{cluster}-{number}",
                DBClusterIdentifier=cluster,
                DBInstanceClass=CLASS,
                Engine="aurora-mysql",
            )
        self.until(lambda: self.are_available(cluster))

    def instance(self, version: str = "5.7.44", **settings: Any) -> str:
        """A new instance outside any cluster, with the schema shop."""
        name = f"i-{uuid.uuid4().hex[:8]}"
        self.rds.create_db_instance(
            DBInstanceIdentifier=name, Engine="mysql", EngineVersion=version, MasterUsername=config.RDS_USER, DBName="shop",
            MasterUserPassword=config.MYSQL_PASSWORD, DBInstanceClass=CLASS, AllocatedStorage=20, Tags=REHEARSAL, **settings,
        )  # fmt: skip
        self.until(lambda: self.database(name)["DBInstanceStatus"] == "available")
        return name

    def database(self, name: str) -> Any:
        return self.rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]

    def described(self, cluster: str) -> Any:
        return self.rds.describe_db_clusters(DBClusterIdentifier=cluster)["DBClusters"][0]

    def are_available(self, cluster: str) -> bool:
        found = self.rds.describe_db_instances(Filters=[{"Name": "db-cluster-id", "Values": [cluster]}])["DBInstances"]
        return bool(found) and all(each["DBInstanceStatus"] == "available" for each in found)

    def deploy(self, source: str, version: str = NEW, **settings: Any) -> str:
        """A blue/green deployment; returns its id at once."""
        made = self.rds.create_blue_green_deployment(
            BlueGreenDeploymentName=f"bg-{uuid.uuid4().hex[:8]}", Source=source, TargetEngineVersion=version, **settings
        )
        return str(made["BlueGreenDeployment"]["BlueGreenDeploymentIdentifier"])

    def deployed(self, source: str, version: str = NEW, **settings: Any) -> str:
        """A blue/green deployment that is ready to switch over."""
        deployment = self.deploy(source, version, **settings)
        self.until(lambda: self.deployment(deployment)["Status"] != "PROVISIONING")
        assert self.deployment(deployment)["Status"] == "AVAILABLE", self.deployment(deployment)
        return deployment

    def deployment(self, identifier: str) -> Any:
        found = self.rds.describe_blue_green_deployments(BlueGreenDeploymentIdentifier=identifier)
        return found["BlueGreenDeployments"][0]

    def switch(self, identifier: str, timeout_s: int = 60) -> Any:
        """Switch over, and return the deployment when that is over."""
        self.rds.switchover_blue_green_deployment(BlueGreenDeploymentIdentifier=identifier, SwitchoverTimeout=timeout_s)
        self.until(lambda: self.deployment(identifier)["Status"] != "SWITCHOVER_IN_PROGRESS")
        return self.deployment(identifier)

    def events(self, source: str, kind: str = "blue-green-deployment") -> list[str]:
        return [e["Message"] for e in self.rds.describe_events(SourceIdentifier=source, SourceType=kind)["Events"]]

    def truth(self, deployment: str) -> list[dict[str, Any]]:
        return [entry for entry in plane.read_truth(self.folder) if entry["deployment"] == deployment]

    def metric(self, name: str, instance: str) -> float | None:
        """Maximum of a metric over the last seconds; None when there is no datapoint."""
        now = dt.datetime.now(dt.UTC)
        points = self.cloudwatch.get_metric_statistics(
            Namespace="AWS/RDS", MetricName=name, Dimensions=[{"Name": "DBInstanceIdentifier", "Value": instance}],
            StartTime=now - dt.timedelta(seconds=8), EndTime=now + dt.timedelta(seconds=2), Period=60, Statistics=["Maximum"],
        )["Datapoints"]  # fmt: skip
        return float(points[0]["Maximum"]) if points else None

    def address(self, name: str) -> tuple[str, int]:
        """Host and port of an instance's endpoint, or of the writer endpoint of a cluster."""
        if name in {cluster["DBClusterIdentifier"] for cluster in self.rds.describe_db_clusters()["DBClusters"]}:
            return self.described(name)["Endpoint"], self.described(name)["Port"]
        endpoint = self.database(name)["Endpoint"]
        return endpoint["Address"], endpoint["Port"]

    def connect(self, where: str | tuple[str, int], user: str = config.RDS_USER, **options: Any) -> Any:
        host, port = self.address(where) if isinstance(where, str) else where
        return MySQLdb.connect(
            host=host,
            port=port,
            user=user,
            password=config.MYSQL_PASSWORD,
            connect_timeout=5,
            **{"autocommit": True, **options},
        )

    def sql(self, where: str | tuple[str, int], statement: str, **options: Any) -> tuple[tuple[Any, ...], ...]:
        """Run a statement over a connection of its own."""
        with closing(self.connect(where, **options)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    def until(self, holds: Callable[[], Any], seconds: float = WAIT_S) -> None:
        """Wait until something holds."""
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"did not come true within {seconds:.0f} s"
            time.sleep(0.1)

    def delete_cluster(self, name: str) -> None:
        for member in self.described(name)["DBClusterMembers"]:
            self.rds.delete_db_instance(DBInstanceIdentifier=member["DBInstanceIdentifier"])
        self.rds.delete_db_cluster(DBClusterIdentifier=name, SkipFinalSnapshot=True)


@contextmanager
def cloud(folder: Path) -> Iterator[Cloud]:
    """An RDS in a process of its own; it ends with the block, and no database outlives it."""
    port = free_port()
    command = [sys.executable, "-m", "lab.rds", "--port", str(port), "--folder", str(folder)]
    with (folder.parent / f"{folder.name}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=config.ROOT, stdout=log, stderr=log)
    made = Cloud(folder, f"http://{config.HOST}:{port}", process)
    try:
        made.until(lambda: process.poll() is not None or answers(made), START_S)
        assert process.poll() is None, Path(log.name).read_text()
        yield made
    finally:
        process.terminate()
        process.wait(30)
        assert plane.servers_below(folder) == []


def answers(made: Cloud) -> bool:
    try:
        made.rds.describe_db_instances()
    except Exception:  # whatever says that it does not answer as yet
        return False
    return True


def free_port() -> int:
    import socket

    with socket.create_server((config.HOST, 0)) as server:
        return int(server.getsockname()[1])
