"""moto's DMS with tasks that copy: connections that are really made, assessments that look at the source, and events."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moto.dms import models
from moto.dms.exceptions import (
    InvalidResourceStateFault,
    ResourceAlreadyExistsFault,
    ResourceNotFoundFault,
)
from moto.logs.models import logs_backends
from moto.secretsmanager.models import secretsmanager_backends

from lab import aws, config
from lab.dms import faults, metrics, responses
from lab.dms.assessment import Assessment
from lab.dms.serverless import Replication
from lab.dms.source import LostError, Source
from lab.dms.targets.mysql import MySQLTarget
from lab.dms.task import POLL_S, Task, invalid

RELATIONAL = {"mysql", "aurora", "mariadb"}
ENGINES = {*RELATIONAL, "dynamodb", "kinesis", "s3"}
UNTESTED = (
    "Test connection for replication instance and endpoint should be successful for starting the replication task"
)
SETTINGS = {"kinesis": "kinesis_settings", "s3": "s3_settings", "dynamodb": "dynamo_db_settings"}
_folder: Path
_urls: dict[str, str]


def install(folder: Path, port: int, urls: Mapping[str, str] | None = None) -> None:
    """Put the data plane behind moto's DMS API of this process; call it before the first request.

    Args:
        folder: all state of the tasks, and ``faults.json``
        port: of this very simulator, to whose other services tasks write
        urls: of services that are elsewhere, such as ``{"dynamodb": "http://127.0.0.1:18400"}``
    """
    global _folder, _urls
    here = f"http://{config.HOST}:{port}"
    _folder, _urls = folder.resolve(), {"": here, **(urls or {})}
    _folder.mkdir(parents=True, exist_ok=True)
    models.dms_backends.backend = Backend
    responses.install()
    metrics.install()
    threading.Thread(target=metrics.run, args=(_backends,), daemon=True).start()


_backends: list[Any] = []


class Connection:
    """A test of an endpoint from a replication instance."""

    def __init__(self, instance: Any, endpoint: Any) -> None:
        self.instance, self.endpoint = instance, endpoint
        self.replication_instance_arn, self.endpoint_arn = instance.arn, endpoint.endpoint_arn
        self.status, self.failure = "testing", ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "ReplicationInstanceArn": self.replication_instance_arn,
            "EndpointArn": self.endpoint_arn,
            "Status": self.status,
            "LastFailureMessage": self.failure,
            "EndpointIdentifier": self.endpoint.endpoint_identifier,
            "ReplicationInstanceIdentifier": self.instance.id,
        }


class Backend(models.DatabaseMigrationServiceBackend):
    """DMS of one account and region."""

    __module__ = (
        models.DatabaseMigrationServiceBackend.__module__
    )  # moto finds the URLs of a service beside its backend

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.folder = _folder
        self.lock = threading.RLock()
        self.events: list[dict[str, Any]] = []
        self.assessments: dict[str, Assessment] = {}
        self.tasks: dict[str, Task] = self.replication_tasks
        self.replications: dict[str, Replication] = {}
        if self not in _backends:  # a reset of moto makes it anew in place
            _backends.append(self)

    def reset(self) -> None:
        for task in [*self.tasks.values(), *self.replications.values()]:
            task.forget()
        super().reset()

    @staticmethod
    def url(service: str) -> str:
        """Where a service answers."""
        return _urls.get(service, _urls[""])

    def fault(self, name: str, task: str = "") -> Any:
        return faults.value(self.folder, name, task)

    def delay(self, task: str = "") -> None:
        """Return when a state on the way has lasted as long as the switch says now: whoever holds it lets it go by turning that off."""
        begin = time.monotonic()
        while time.monotonic() - begin < float(self.fault("slow_s", task)):
            time.sleep(POLL_S)

    def record(self, kind: str, source: str, category: str, text: str) -> None:
        if not self.fault("drop_events"):
            self.events.append(
                {
                    "SourceIdentifier": source,
                    "SourceType": kind,
                    "Message": text,
                    "EventCategories": [category],
                    "Date": time.time(),
                }
            )

    def log(self, task: Task, at: float, text: str) -> None:
        """A line in CloudWatch Logs, where DMS puts it."""
        instance = self.replication_instances.get(task.replication_instance_arn)
        group = f"dms-tasks-{instance.id}" if instance else f"dms-serverless-replication-{task.resource_id}"
        stream = f"dms-task-{task.resource_id}"
        store = logs_backends[self.account_id][self.region_name]
        if group not in store.groups:
            store.create_log_group(group, {})
        if stream not in store.groups[group].streams:
            store.create_log_stream(group, stream)
        store.put_log_events(group, stream, [{"timestamp": int(at * 1000), "message": text}])

    # What is where

    def instance(self, arn: str) -> Any:
        if arn not in self.replication_instances:
            raise ResourceNotFoundFault("Replication Instance not found.")
        return self.replication_instances[arn]

    def endpoint(self, arn: str) -> Any:
        found = [each for each in self.endpoints.values() if each.endpoint_arn == arn]
        if not found:
            raise ResourceNotFoundFault("Endpoint not found.")
        return found[0]

    def task(self, arn: str) -> Task:
        if arn not in self.tasks:
            raise ResourceNotFoundFault(f"Replication Task not found: {arn}")
        return self.tasks[arn]

    def address(self, arn: str) -> dict[str, Any]:
        """Host, port, user and password of an endpoint; of its secret, when it has one."""
        endpoint = self.endpoint(arn)
        given = {
            "host": endpoint.server_name,
            "port": endpoint.port,
            "user": endpoint.username,
            "password": endpoint.password,
        }
        if secret := (endpoint.my_sql_settings or {}).get("SecretsManagerSecretId"):
            store = secretsmanager_backends[self.account_id][self.region_name]
            read = json.loads(store.get_secret_value(secret, None, None)["SecretString"])
            given = {"host": read["host"], "port": read["port"], "user": read["username"], "password": read["password"]}
        return {**given, "port": int(given["port"] or 3306)}

    def target(self, arn: str) -> dict[str, Any]:
        """What a task has to know of its target."""
        endpoint = self.endpoint(arn)
        engine = endpoint.engine_name
        given = getattr(endpoint, SETTINGS.get(engine, ""), None) or {}
        made: dict[str, Any] = {"engine": engine, "url": self.url(engine), "settings": given}
        if engine in RELATIONAL:
            attributes = dict(
                part.split("=", 1) for part in (endpoint.extra_connection_attributes or "").split(";") if "=" in part
            )
            script = (endpoint.my_sql_settings or {}).get("AfterConnectScript")
            made |= {"address": self.address(arn), "initial": script or attributes.get("initstmt", "")}
        return made

    # Connections

    def start_test(self, instance_arn: str, endpoint_arn: str) -> Connection:
        made = Connection(self.instance(instance_arn), self.endpoint(endpoint_arn))
        same = {(made.replication_instance_arn, made.endpoint_arn)}
        self.connections = [c for c in self.connections if (c.replication_instance_arn, c.endpoint_arn) not in same]
        self.connections.append(made)  # type: ignore[arg-type]
        threading.Thread(target=self._test, args=(made,), daemon=True).start()
        return made

    def _test(self, connection: Connection) -> None:
        endpoint = connection.endpoint
        self.delay()
        try:
            if endpoint.endpoint_identifier in self.fault("connection_fails"):
                raise LostError("Cannot connect to ODBC provider (fault switch connection_fails)")
            self._reach(endpoint)
        except Exception as error:  # whatever keeps it from the endpoint
            connection.failure = f"Test Endpoint failed: Application-Status: 1020912, Application-Message: {error}"
            connection.status = "failed"
        else:
            connection.status = "successful"

    def _reach(self, endpoint: Any) -> None:
        given = getattr(endpoint, SETTINGS.get(endpoint.engine_name, ""), None) or {}
        if endpoint.engine_name in RELATIONAL and endpoint.endpoint_type == "source":
            Source(**self.address(endpoint.endpoint_arn)).connect().close()
        elif endpoint.engine_name in RELATIONAL:
            MySQLTarget(self.address(endpoint.endpoint_arn), "", "").connection.close()
        else:
            client = aws.client(endpoint.engine_name, self.url(endpoint.engine_name))
            if endpoint.engine_name == "kinesis":
                client.describe_stream_summary(StreamARN=given["StreamArn"])
            elif endpoint.engine_name == "s3":
                client.head_bucket(Bucket=given["BucketName"])
            else:
                client.list_tables(Limit=1)

    def require_connections(self, task: Task) -> None:
        """AWS starts no task whose endpoints have not been tested from its instance."""
        good = {
            (each.replication_instance_arn, each.endpoint_arn)
            for each in self.connections
            if each.status == "successful"
        }
        for arn in (task.source_endpoint_arn, task.target_endpoint_arn):
            if (task.replication_instance_arn, arn) not in good:
                raise InvalidResourceStateFault(UNTESTED)

    # Tasks, instances and endpoints

    def make_task(self, given: dict[str, Any]) -> Task:
        with self.lock:
            if given["ReplicationTaskIdentifier"] in {task.id for task in self.tasks.values()}:
                raise ResourceAlreadyExistsFault("The resource you are attempting to create already exists.")
            self.instance(given["ReplicationInstanceArn"])
            self._require_endpoints(given)
            task = Task(self, given)
            self.tasks[task.arn] = task
            if tags := given.get("Tags"):
                self.tagger.tag_resource(task.arn, tags)
        return task

    def replication(self, arn: str) -> Replication:
        if arn not in self.replications:
            raise ResourceNotFoundFault(f"Replication config not found: {arn}")
        return self.replications[arn]

    def make_replication(self, given: dict[str, Any]) -> Replication:
        """A replication config."""
        with self.lock:
            if given["ReplicationConfigIdentifier"] in {each.id for each in self.replications.values()}:
                raise ResourceAlreadyExistsFault("The resource you are attempting to create already exists.")
            self._require_endpoints(given)
            made = Replication(self, given)
            self.replications[made.arn] = made
            if tags := given.get("Tags"):
                self.tagger.tag_resource(made.arn, tags)
        return made

    def remove_task(self, task: Task) -> None:
        """Delete a task or a replication config."""
        task.remove()

        def remove() -> None:
            self.delay(task.id)
            task.forget()
            self.record("replication-task", task.id, "deletion", "Replication task has been deleted.")
            self.tasks.pop(task.arn, None)
            self.replications.pop(task.arn, None)

        threading.Thread(target=remove, daemon=True).start()

    def make_endpoint(self, given: dict[str, Any], make: Any) -> Any:
        """``make`` is what moto does."""
        if given["EndpointIdentifier"] in self.endpoints:
            raise ResourceAlreadyExistsFault("The resource you are attempting to create already exists.")
        if given["EngineName"] not in ENGINES:
            raise invalid(f"The lab has no engine {given['EngineName']}: use one of {', '.join(sorted(ENGINES))}")
        made = make()
        self.endpoints[given["EndpointIdentifier"]].status = "active"
        return made

    def _require_endpoints(self, given: dict[str, Any]) -> None:
        for name, kind in (("SourceEndpointArn", "source"), ("TargetEndpointArn", "target")):
            if self.endpoint(given[name]).endpoint_type != kind:
                raise invalid(f"{given[name]} is not a {kind} endpoint")

    def require_unused(self, arn: str) -> None:
        for task in [*self.tasks.values(), *self.replications.values()]:
            if arn in {task.source_endpoint_arn, task.target_endpoint_arn, task.replication_instance_arn}:
                raise InvalidResourceStateFault(f"{arn} is in use by the replication task {task.id}")

    def start_assessment(self, given: dict[str, Any]) -> Assessment:
        task = self.task(given["ReplicationTaskArn"])
        if task.status not in {"ready", "stopped", "failed"}:
            raise InvalidResourceStateFault(
                f"Replication Task {task.arn} is {task.status}: an assessment needs it not running"
            )
        self.require_connections(task)
        made = Assessment(self, task, given)
        self.assessments[made.arn] = made
        return made

    def is_throttled(self) -> bool:
        return random.random() * 100 < float(self.fault("api_throttle"))
