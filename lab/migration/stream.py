"""The change stream: MySQL's binary log -> DMS -> Kinesis -> Lambda -> the store, from a position on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import aws, config, lambda_runner, mysql
from lab.config import HOST, MYSQL_PASSWORD, LabError
from lab.migration.scene import SUBJECTS, Subject

ROLE = f"arn:aws:iam::{config.AWS_ACCOUNT}:role/dms"
DMS_USER = "dms_move"
SHARDS = 2
BATCH = 200
LOB_KB = 64
WAIT_S = 60


@dataclass(frozen=True)
class Consumer:
    """A function of include/lambda and what it is told."""

    package: Callable[[Path], Path]
    """Makes its zip."""
    handler: str
    environment: dict[str, str]


def cdc_apply(settings: dict[str, Any], key: str) -> Consumer:
    """Into DynamoDB, in the account of this access key."""
    return Consumer(
        lambda to: lambda_runner.package(config.ROOT / "include" / "lambda" / "cdc_apply", to),
        "cdc_apply.handler.lambda_handler",
        {
            "CDC_SETTINGS": json.dumps(settings),
            "AWS_ENDPOINT_URL": config.aws_endpoint(),
            "AWS_ENDPOINT_URL_DYNAMODB": config.dynamodb_endpoint(),
            "AWS_ACCESS_KEY_ID": key,
        },
    )


def cdc_redis(settings: dict[str, Any]) -> Consumer:
    """Into Redis."""
    return Consumer(
        lambda_runner.package_cdc_redis, "cdc_redis.handler.lambda_handler", {"CDC_SETTINGS": json.dumps(settings)}
    )


@dataclass
class Stream:
    """A DMS task of changes only, a Kinesis stream, and an event source mapping in a process of its own."""

    schema: str
    folder: Path
    consumer: Consumer
    subjects: tuple[Subject, ...] = SUBJECTS
    server: str = "mysql57"
    task: str = ""
    queue: str = ""
    made: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.name = f"move-{self.schema}-{uuid.uuid4().hex[:6]}".replace("_", "-")
        self.dms, self.kinesis, self.sqs = (aws.client(each) for each in ("dms", "kinesis", "sqs"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state = self.folder / "mapping.json"

    def start(self, position: str) -> None:
        """Follow the log from a position on. Returns when the task is running.

        Args:
            position: ``file:offset``
        """
        mysql.execute(
            self.server,
            [
                statement.format(user=f"'{DMS_USER}'@'{host}'")
                for host in ("%", HOST)
                for statement in (
                    f"CREATE USER IF NOT EXISTS {{user}} IDENTIFIED WITH mysql_native_password BY '{MYSQL_PASSWORD}'",
                    "GRANT REPLICATION CLIENT, REPLICATION SLAVE ON *.* TO {user}",
                    f"GRANT SELECT ON `{self.schema}`.* TO {{user}}",
                )
            ],
        )
        self.kinesis.create_stream(StreamName=self.name, ShardCount=SHARDS)
        arn = self.kinesis.describe_stream_summary(StreamName=self.name)["StreamDescriptionSummary"]["StreamARN"]
        instance = self.dms.create_replication_instance(
            ReplicationInstanceIdentifier=self.name, ReplicationInstanceClass="dms.t3.medium", EngineVersion="3.5.4"
        )["ReplicationInstance"]["ReplicationInstanceArn"]
        self.made.append(("delete_replication_instance", {"ReplicationInstanceArn": instance}))
        source = self._endpoint(
            "source", EngineName="mysql", ServerName=HOST, Port=config.port(self.server), Username=DMS_USER,
            Password=MYSQL_PASSWORD,
        )  # fmt: skip
        target = self._endpoint("target", EngineName="kinesis", KinesisSettings={
            "StreamArn": arn, "MessageFormat": "json", "ServiceAccessRoleArn": ROLE, "IncludeTransactionDetails": True,
            "IncludeNullAndEmpty": True, "IncludeControlDetails": True, "IncludeTableAlterOperations": True,
            "UseLargeIntegerValue": True, "PartitionIncludeSchemaTable": True,
        })  # fmt: skip
        for endpoint in (source, target):
            self.dms.test_connection(ReplicationInstanceArn=instance, EndpointArn=endpoint)
        until(lambda: all(self._tested(endpoint) for endpoint in (source, target)), "the endpoints were not tested")
        self._run(instance, source, target, position)
        self._serve()

    def _endpoint(self, kind: str, **settings: Any) -> str:
        made = self.dms.create_endpoint(EndpointIdentifier=f"{self.name}-{kind}", EndpointType=kind, **settings)
        arn = str(made["Endpoint"]["EndpointArn"])
        self.made.append(("delete_endpoint", {"EndpointArn": arn}))
        return arn

    def _tested(self, endpoint: str) -> bool:
        filters = [{"Name": "endpoint-arn", "Values": [endpoint]}]
        found = self.dms.describe_connections(Filters=filters)["Connections"][0]
        if found["Status"] == "failed":
            raise LabError(f"DMS cannot reach {endpoint}: {found.get('LastFailureMessage')}")
        return bool(found["Status"] == "successful")

    def _run(self, instance: str, source: str, target: str, position: str) -> None:
        places = [{"schema-name": self.schema, "table-name": each.name} for each in self.subjects]
        rules: list[dict[str, Any]] = [
            {"rule-type": "selection", "rule-action": "include", "object-locator": place} for place in places
        ]
        rules += [
            {
                "rule-type": "object-mapping", "rule-action": "map-record-to-record", "object-locator": place,
                "mapping-parameters": {"partition-key-type": "primary-key"},
            }
            for place in places
        ]  # fmt: skip
        numbered = [{"rule-id": str(n), "rule-name": str(n), **rule} for n, rule in enumerate(rules, 1)]
        settings = {
            "BeforeImageSettings": {"EnableBeforeImage": True, "FieldName": "before-image", "ColumnFilter": "pk-only"},
            "TargetMetadata": {"LobMaxSize": LOB_KB},
        }
        made = self.dms.create_replication_task(
            ReplicationTaskIdentifier=self.name, SourceEndpointArn=source, TargetEndpointArn=target,
            ReplicationInstanceArn=instance, MigrationType="cdc", TableMappings=json.dumps({"rules": numbered}),
            ReplicationTaskSettings=json.dumps(settings),
        )  # fmt: skip
        self.task = str(made["ReplicationTask"]["ReplicationTaskArn"])
        until(lambda: self.status() == "ready", "the DMS task was not made")
        self.dms.start_replication_task(
            ReplicationTaskArn=self.task, StartReplicationTaskType="start-replication", CdcStartPosition=position
        )
        until(lambda: self.status() == "running", "the DMS task did not start")

    def status(self) -> str:
        """Of the DMS task."""
        found = self._described()
        if found["Status"] == "failed":
            raise LabError(f"the DMS task failed: {found.get('LastFailureMessage')}")
        return str(found["Status"])

    def _described(self) -> dict[str, Any]:
        filters = [{"Name": "replication-task-arn", "Values": [self.task]}]
        found: dict[str, Any] = self.dms.describe_replication_tasks(Filters=filters)["ReplicationTasks"][0]
        return found

    def _state(self) -> str:
        return str(self._described()["Status"])

    def _serve(self) -> None:
        archive = self.consumer.package(self.folder / "function.zip")
        self.queue = self.sqs.create_queue(QueueName=self.name)["QueueUrl"]
        job = self.folder / "mapping-job.json"
        job.write_text(json.dumps({
            "endpoint": config.aws_endpoint(), "archive": str(archive), "handler": self.consumer.handler,
            "environment": self.consumer.environment, "timeout_s": 60, "queue": self.queue, "state": str(self.state),
            "source": {"stream": self.name, "batch_size": BATCH, "bisect_on_error": True, "maximum_retry_attempts": 1000},
            "log": str(self.folder / "function.log"),
        }))  # fmt: skip
        with (self.folder / "mapping.log").open("ab") as log:
            command = [sys.executable, "-m", "lab.lambda_runner", str(job)]
            self.process = subprocess.Popen(command, cwd=config.ROOT, stdout=log, stderr=log)

    def drain(self, is_there: Callable[[], Any], seconds: float = WAIT_S) -> None:
        """Wait until all that MySQL had committed has been delivered.

        Args:
            is_there: whether the store has what was written to MySQL last; DMS keeps the order, so all else is in the stream by then
            seconds: given up after that

        Raises:
            LabError: it was not delivered in that time
        """
        until(is_there, "the last change did not arrive", seconds, self._require_alive)
        newest = {shard["ShardId"]: self._newest(shard["ShardId"]) for shard in self._shards()}
        until(lambda: self._is_past(newest), "the stream was not read to its end", seconds, self._require_alive)

    def lost(self) -> int:
        """Records that the mapping gave up: it must be 0."""
        answer = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["ApproximateNumberOfMessages"])
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])

    def _require_alive(self) -> None:
        assert self.process is not None
        if self.process.poll() is not None:
            raise LabError(f"the event source mapping ended:\n{(self.folder / 'mapping.log').read_text()[-2000:]}")
        self.status()

    def _is_past(self, newest: dict[str, int]) -> bool:
        reached = json.loads(self.state.read_text()) if self.state.is_file() else {}
        return all(int(reached.get(shard, 0)) >= number for shard, number in newest.items())

    def _shards(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.kinesis.list_shards(StreamName=self.name)["Shards"]
        return found

    def _newest(self, shard: str) -> int:
        begin = self.kinesis.get_shard_iterator(StreamName=self.name, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
        iterator, newest = begin["ShardIterator"], 0
        while iterator:
            answer = self.kinesis.get_records(ShardIterator=iterator, Limit=10_000)
            if not answer["Records"]:
                break
            newest, iterator = int(answer["Records"][-1]["SequenceNumber"]), answer.get("NextShardIterator")
        return newest

    def stop(self) -> None:
        """End the mapping and the task, and remove what was made, however far `start` came."""
        with ExitStack() as last_first:  # each of them, whatever another one raises
            last_first.callback(self._remove_streams)
            for call, arguments in self.made:
                last_first.callback(getattr(self.dms, call), **arguments)
            last_first.callback(self._remove_task)
            if self.process is not None:
                last_first.callback(self.process.wait, 60)
                last_first.callback(self.process.terminate)

    def _remove_streams(self) -> None:
        with suppress(self.kinesis.exceptions.ResourceNotFoundException):
            self.kinesis.delete_stream(StreamName=self.name)
        if self.queue:
            self.sqs.delete_queue(QueueUrl=self.queue)

    def _remove_task(self) -> None:
        if not self.task:
            return
        until(lambda: self._state() not in ("creating", "starting"), "the DMS task did not start")
        if self._state() == "running":
            self.dms.stop_replication_task(ReplicationTaskArn=self.task)
            until(lambda: self._state() != "stopping", "the DMS task did not stop")
        self.dms.delete_replication_task(ReplicationTaskArn=self.task)
        until(self._is_gone, "the DMS task was not deleted")

    def _is_gone(self) -> bool:
        try:
            self._described()
        except self.dms.exceptions.ResourceNotFoundFault:
            return True
        return False


def position(server: str = "mysql57") -> str:
    """Where the binary log is now, as ``file:offset``."""
    with closing(mysql.root_connection(server)) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW MASTER STATUS")
        file, offset, *_ = cursor.fetchone()
    return f"{file}:{offset}"


def until(
    holds: Callable[[], Any], otherwise: str, seconds: float = WAIT_S, check: Callable[[], object] = lambda: None
) -> None:
    """Wait until something holds.

    Raises:
        LabError: it did not in that time
    """
    end = time.monotonic() + seconds
    while not holds():
        check()
        if time.monotonic() > end:
            raise LabError(f"{otherwise} within {seconds:.0f} s")
        time.sleep(0.05)
