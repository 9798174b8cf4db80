"""A simulated DMS of its own for the tests that drive it: MySQL 5.7 and 8.0 servers, a process with the API, and clients."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import MySQLdb

from lab import aws, config, dynamodb
from lab.dms import faults
from lab.rds.server import ADMIN, Server
from tests.lab.rds_kit import free_port

START_S, WAIT_S = 120, 120
NEVER = 10**6  # seconds of a switch that holds a state for as long as it is on
METRIC_S = 5
ROLE = "arn:aws:iam::123456789012:role/dms"


@dataclass
class Dms:
    """An account with a DMS, a source (MySQL 5.7) and a target (MySQL 8.0)."""

    folder: Path
    endpoint: str
    source: Server
    sink: Server
    process: subprocess.Popen[bytes]
    dms: Any = field(init=False)
    instance: str = field(init=False)
    made: dict[str, str] = field(default_factory=dict)
    clients: dict[str, Any] = field(default_factory=dict)

    def start(self) -> None:
        """What every test needs: an instance, and endpoints of both servers."""
        self.dms = self.client("dms")
        self.instance = self.make_instance("lab")
        self.made["mysql57"] = self.mysql("source", self.source)
        self.made["mysql80"] = self.mysql("target", self.sink)

    def client(self, service: str) -> Any:
        """The one client of a service; a test that polls must not make one each time. Tables are in the lab's DynamoDB."""
        if service not in self.clients:
            made = dynamodb.client() if service == "dynamodb" else aws.client(service, self.endpoint)
            self.clients[service] = made
        return self.clients[service]

    def make_instance(self, name: str, version: str = "3.5.4") -> str:
        made = self.dms.create_replication_instance(
            ReplicationInstanceIdentifier=name, ReplicationInstanceClass="dms.t3.medium", EngineVersion=version
        )
        return str(made["ReplicationInstance"]["ReplicationInstanceArn"])

    def mysql(self, kind: str, server: Server, **settings: Any) -> str:
        return self.make_endpoint(
            kind,
            EngineName="mysql",
            ServerName=config.HOST,
            Port=server.port,
            Username=ADMIN,
            Password=config.MYSQL_PASSWORD,
            **settings,
        )

    def make_endpoint(self, kind: str, **settings: Any) -> str:
        """A new endpoint; returns its ARN."""
        name = f"{kind}-{uuid.uuid4().hex[:8]}"
        made = self.dms.create_endpoint(EndpointIdentifier=name, EndpointType=kind, **settings)
        return str(made["Endpoint"]["EndpointArn"])

    def test(self, *endpoints: str) -> None:
        """Test connections from the instance; all of them have to be good."""
        for arn in endpoints:
            self.dms.test_connection(ReplicationInstanceArn=self.instance, EndpointArn=arn)
        for arn in endpoints:
            self.until(lambda arn=arn: self.connection(arn)["Status"] != "testing")  # type: ignore[misc]
            assert self.connection(arn)["Status"] == "successful", self.connection(arn)

    def connection(self, endpoint: str) -> Any:
        filters = [{"Name": "endpoint-arn", "Values": [endpoint]}]
        return self.dms.describe_connections(Filters=filters)["Connections"][0]

    def task(
        self,
        schema: str,
        target: str = "",
        kind: str = "full-load-and-cdc",
        rules: Any = (),
        source: str = "",
        **settings: Any,
    ) -> str:
        """A new task for every table of a schema, ready to start; returns its ARN.

        Args:
            schema: of the source
            target: ARN of an endpoint; MySQL 8.0 by default
            kind: the migration type
            rules: rules beside the one that selects the schema
            source: ARN of an endpoint; MySQL 5.7 by default
            settings: sections of the task settings
        """
        source, target = source or self.made["mysql57"], target or self.made["mysql80"]
        self.test(source, target)
        made = self.dms.create_replication_task(
            ReplicationTaskIdentifier=f"t-{uuid.uuid4().hex[:8]}",
            SourceEndpointArn=source,
            TargetEndpointArn=target,
            ReplicationInstanceArn=self.instance,
            MigrationType=kind,
            TableMappings=mappings(schema, *rules),
            ReplicationTaskSettings=json.dumps(settings),
        )
        arn = str(made["ReplicationTask"]["ReplicationTaskArn"])
        self.until(lambda: self.status(arn) == "ready")
        return arn

    def make_replication(self, name: str, schema: str, kind: str = "full-load-and-cdc", **settings: Any) -> str:
        """A new replication config from MySQL 5.7 to MySQL 8.0; returns its ARN."""
        made = self.dms.create_replication_config(
            ReplicationConfigIdentifier=name,
            SourceEndpointArn=self.made["mysql57"],
            TargetEndpointArn=self.made["mysql80"],
            ComputeConfig={"MinCapacityUnits": 2, "MaxCapacityUnits": 4},
            ReplicationType=kind,
            TableMappings=mappings(schema),
            ReplicationSettings=json.dumps(settings),
        )
        return str(made["ReplicationConfig"]["ReplicationConfigArn"])

    def run(self, arn: str, kind: str = "start-replication", **settings: Any) -> None:
        self.dms.start_replication_task(ReplicationTaskArn=arn, StartReplicationTaskType=kind, **settings)

    def stop(self, arn: str) -> Any:
        """Stop a running task; returns it when it has ended."""
        self.dms.stop_replication_task(ReplicationTaskArn=arn)
        return self.ended(arn)

    def ended(self, arn: str) -> Any:
        """The task when it has stopped or failed."""
        self.until(lambda: self.status(arn) in {"stopped", "failed"})
        return self.described(arn)

    def replicating(self, arn: str) -> None:
        """Wait until the full load is over and the log is followed."""
        self.until(lambda: self.status(arn) == "running" and self.is_loaded(arn))

    def is_loaded(self, arn: str) -> bool:
        return bool(self.tables(arn)) and all(each["TableState"] != "Full load" for each in self.tables(arn).values()) and (
            "Before load" not in {each["TableState"] for each in self.tables(arn).values()}
        )  # fmt: skip

    def described(self, arn: str) -> Any:
        filters = [{"Name": "replication-task-arn", "Values": [arn]}]
        return self.dms.describe_replication_tasks(Filters=filters)["ReplicationTasks"][0]

    def task_arns(self) -> set[str]:
        """Every task of the account."""
        pages = self.dms.get_paginator("describe_replication_tasks").paginate(WithoutSettings=True)
        return {task["ReplicationTaskArn"] for page in pages for task in page["ReplicationTasks"]}

    def status(self, arn: str) -> str:
        return str(self.described(arn)["Status"])

    def tables(self, arn: str) -> dict[str, Any]:
        """Table statistics by name of the table."""
        pages = self.dms.get_paginator("describe_table_statistics").paginate(ReplicationTaskArn=arn)
        return {row["TableName"]: row for page in pages for row in page["TableStatistics"]}

    def table(self, arn: str) -> Any:
        (only,) = self.tables(arn).values()
        return only

    def events(self, arn: str) -> list[str]:
        name = self.described(arn)["ReplicationTaskIdentifier"]
        found = self.dms.describe_events(SourceIdentifier=name, SourceType="replication-task")
        return [event["Message"] for event in found["Events"]]

    def log(self, arn: str) -> list[str]:
        """What a task has written to CloudWatch Logs."""
        logs = self.client("logs")
        place = {"logGroupName": "dms-tasks-lab", "logStreamName": f"dms-task-{arn.rpartition(':')[2]}"}
        try:
            return [str(line["message"]) for line in logs.get_log_events(**place, startFromHead=True)["events"]]
        except logs.exceptions.ResourceNotFoundException:  # it has written nothing
            return []

    def pid(self, arn: str) -> int:
        """Process of a running task."""
        state = json.loads((self.folder / "dms" / arn.rpartition(":")[2] / "state.json").read_text())
        return int(state["pid"])

    def schema(self, *tables: str) -> str:
        """A new schema of the source with these tables; ``{s}`` stands for its name."""
        name = f"s_{uuid.uuid4().hex[:8]}"
        self.write(f"CREATE DATABASE {name}", *(text.format(s=name) for text in tables))
        return name

    def write(self, *statements: str) -> None:
        """Statements on the source, in one transaction as far as they can be."""
        connection = self.source.connect(init_command="SET sql_log_bin = 1", autocommit=False)
        try:
            for statement in statements:
                connection.query(statement)
            connection.commit()
        finally:
            connection.close()

    def differences(self, schema: str, table: str, to: str = "") -> list[Any]:
        """Rows that are not the same on source and target; read here, by nothing that a task uses."""
        columns = [
            f"HEX(CAST(`{row['c']}` AS BINARY))"
            for row in self.source.rows(
                "SELECT column_name AS c FROM information_schema.columns WHERE table_schema = %s AND table_name = %s "
                "ORDER BY ordinal_position",
                (schema, table),
            )
        ]
        statement = "SELECT {} FROM `{}`.`{}`"
        left = set(self.source.sql(statement.format(", ".join(columns), schema, table)))
        right = set(self.sink.sql(statement.format(", ".join(columns), to or schema, table)))
        return sorted(left ^ right, key=str)

    def metric(self, name: str, arn: str) -> float | None:
        """Maximum of a metric over the last seconds; None when there is no datapoint."""
        now = dt.datetime.now(dt.UTC)
        names = {"ReplicationTaskIdentifier": arn.rpartition(":")[2], "ReplicationInstanceIdentifier": "lab"}
        metric = {
            "Namespace": "AWS/DMS",
            "MetricName": name,
            "Dimensions": [{"Name": key, "Value": value} for key, value in names.items()],
        }
        answer = self.client("cloudwatch").get_metric_data(
            MetricDataQueries=[{"Id": "m", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Maximum"}}],
            StartTime=now - dt.timedelta(seconds=METRIC_S),
            EndTime=now + dt.timedelta(seconds=2),
        )
        (result,) = answer["MetricDataResults"]
        return max((float(value) for value in result["Values"]), default=None)

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Nothing of the block runs on after it, also when it fails."""
        try:
            yield
        finally:
            faults.set_faults(self.folder / "dms")
            tasks = self.dms.get_paginator("describe_replication_tasks").paginate(WithoutSettings=True)
            for task in [each for page in tasks for each in page["ReplicationTasks"]]:
                if task["Status"] in {"running", "starting"}:
                    self.dms.stop_replication_task(ReplicationTaskArn=task["ReplicationTaskArn"])
                    with contextlib.suppress(self.dms.exceptions.ResourceNotFoundFault):
                        self.ended(task["ReplicationTaskArn"])

    @contextmanager
    def faults(self, **switches: Any) -> Iterator[None]:
        """Fault switches of the block."""
        faults.set_faults(self.folder / "dms", **switches)
        try:
            yield
        finally:
            faults.set_faults(self.folder / "dms")

    def until(self, holds: Callable[[], Any], seconds: float = WAIT_S) -> None:
        """Wait until something holds."""
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"did not come true within {seconds:.0f} s"
            time.sleep(0.1)


def mappings(schema: str, *rules: Any) -> str:
    """Every table of a schema, and what else the rules say; they need no number and no name."""
    first = {
        "rule-type": "selection",
        "rule-action": "include",
        "object-locator": {"schema-name": schema, "table-name": "%"},
    }
    numbered = [{"rule-id": str(n), "rule-name": str(n), **rule} for n, rule in enumerate([first, *rules], 1)]
    return json.dumps({"rules": numbered})


@contextmanager
def account(folder: Path) -> Iterator[Dms]:
    """Two servers and a process with the API; all of them end with the block."""
    servers = [Server(folder / name, version, number) for name, version, number in (("a", "5.7", 1), ("b", "8.0", 2))]
    port, store = free_port(), dynamodb.client()
    tables = set(store.list_tables()["TableNames"])
    rds = folder / "rds"
    rds.mkdir(parents=True)
    command = [sys.executable, "-m", "lab.rds", "--port", str(port), "--folder", str(rds)]
    with (folder / "aws.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=config.ROOT, stdout=log, stderr=log)
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(_bring_up, servers))
        made = Dms(rds, f"http://{config.HOST}:{port}", servers[0], servers[1], process)
        made.until(lambda: process.poll() is not None or _answers(made), START_S)
        assert process.poll() is None, Path(log.name).read_text()
        made.start()
        yield made
    finally:
        process.terminate()
        process.wait(30)
        for server in servers:
            server.delete()
        for table in set(store.list_tables()["TableNames"]) - tables:
            store.delete_table(TableName=table)


def _bring_up(server: Server) -> None:
    small = {"innodb-buffer-pool-size": "64M", "innodb-log-file-size": "16M"}
    server.configure({**small, "sync-binlog": "0", "innodb-flush-log-at-trx-commit": "2"})
    server.initialise()
    server.start()


def _answers(made: Dms) -> bool:
    try:
        made.client("dms").describe_replication_instances()
    except Exception:  # whatever says that it does not answer as yet
        return False
    return True


def reachable(server: Server) -> bool:
    try:
        server.connect().close()
    except MySQLdb.Error:
        return False
    return True
