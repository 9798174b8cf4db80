"""moto's RDS with real servers behind it; what moto leaves out or gets wrong about Blue/Green is set right here."""

from __future__ import annotations

import random
import string
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from moto.core.exceptions import ServiceException
from moto.core.utils import utcnow
from moto.rds import models
from moto.rds.exceptions import (
    BlueGreenDeploymentAlreadyExistsFault,
    BlueGreenDeploymentNotFoundFault,
    InvalidBlueGreenDeploymentStateFault,
    InvalidParameterCombination,
    InvalidParameterValue,
)

from lab import config
from lab.rds import catalogue, responses
from lab.rds.deployment import Deployment
from lab.rds.plane import MASTER_PRIVILEGES, Plane

TIMEOUT_S = range(30, 3601)
DEFAULT_TIMEOUT_S = 300
_plane: Plane


def install(folder: Path) -> Plane:
    """Put the data plane behind moto's RDS API of this process; call it before the first request.

    Args:
        folder: all state: data directories, ``faults.json``, ``truth.jsonl``; emptied but for the fault switches
    """
    global _plane
    _plane = Plane(folder.resolve())
    models.rds_backends.backend = Backend
    responses.install()
    # moto makes its models by their names, so what they show is replaced on the classes.
    models.DBInstance.address = property(lambda _: config.HOST)
    models.DBInstance.endpoint = property(lambda self: {"Address": config.HOST, "Port": self.port})
    models.DBCluster.endpoint = property(lambda _: config.HOST)
    models.DBCluster.reader_endpoint = property(lambda self: _plane.endpoint("reader", self.db_cluster_identifier).host)
    return _plane


class Event:
    """An entry of DescribeEvents."""

    def __init__(self, source: str, arn: str, kind: str, category: str, message: str) -> None:
        self.source_identifier, self.source_arn, self.source_type = source, arn, kind
        self.event_categories, self.message, self.date = [category], message, utcnow()


class Backend(models.RDSBackend):
    """RDS of one account and region."""

    __module__ = models.RDSBackend.__module__  # moto finds the URLs of a service beside the module of its backend

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.plane = _plane
        self.lock = threading.RLock()
        self.is_green = threading.local()  # while a deployment makes its instances, which it fills itself

    def create_db_cluster(self, kwargs: dict[str, Any]) -> Any:
        with self.lock:
            if kwargs["db_cluster_identifier"] in self.clusters:
                raise ServiceException("DBClusterAlreadyExistsFault", "DB Cluster already exists")
            _require_version(kwargs)
            cluster = super().create_db_cluster(kwargs)
            cluster.port = self.plane.endpoint("cluster", cluster.db_cluster_identifier).port
            self.plane.endpoint("reader", cluster.db_cluster_identifier)
        return cluster

    def create_db_instance(self, db_kwargs: dict[str, Any]) -> Any:
        with self.lock:
            if db_kwargs.get("db_cluster_identifier") is None:
                _require_version(db_kwargs)
            database = super().create_db_instance(db_kwargs)
            database.dbi_resource_id = "db-" + "".join(random.choices(string.ascii_uppercase + string.digits, k=26))
            database.port = self.plane.endpoint("db", database.db_instance_identifier).port
            database.status = "creating"
        if not getattr(self.is_green, "yes", False):
            self.in_background(lambda: self._fill(database))
        return database

    def _fill(self, database: Any) -> None:
        """Start an empty server for an instance, or a replica of the writer of its cluster."""
        cluster = getattr(database, "cluster", None)
        server = self.plane.server(database.dbi_resource_id, database.engine_version)
        server.initialise()
        server.start()
        if cluster is not None and not database.is_cluster_writer:
            replicate_from = self.plane.servers[cluster.writer.dbi_resource_id]
            Deployment.copy_and_follow(replicate_from, server, self.plane.folder / f"copy-{database.dbi_resource_id}")
            server.sql("SET GLOBAL read_only = 1")
        else:
            owner = cluster or database
            account = (owner.master_username, owner._master_user_password)
            with server.cursor() as cursor:
                cursor.execute("CREATE USER %s@'%%' IDENTIFIED WITH mysql_native_password BY %s", account)
                cursor.execute(f"GRANT {MASTER_PRIVILEGES} ON *.* TO %s@'%%' WITH GRANT OPTION", account[:1])
                if name := (cluster.database_name if cluster else database.db_name):
                    cursor.execute(f"CREATE DATABASE `{name}`")
        self.connect_endpoints(database)
        database.status = "available"

    def connect_endpoints(self, database: Any) -> None:
        """Lead the endpoints of an instance, and of its cluster, to its server."""
        port = self.plane.servers[database.dbi_resource_id].port
        self.plane.endpoint("db", database.db_instance_identifier).retarget(port)
        if database.db_cluster_identifier:
            name = database.db_cluster_identifier
            if database.is_cluster_writer:
                self.plane.endpoint("cluster", name).retarget(port)
            if not database.is_cluster_writer or not self.plane.endpoint("reader", name).target:
                self.plane.endpoint("reader", name).retarget(port)

    def delete_db_instance(self, db_instance_identifier: str, *args: Any, **kwargs: Any) -> Any:
        with self.lock:
            database = super().delete_db_instance(db_instance_identifier, *args, **kwargs)
        self.plane.forget("db", database.db_instance_identifier)
        if server := self.plane.servers.pop(database.dbi_resource_id, None):
            server.delete()
        return database

    def delete_db_cluster(self, cluster_identifier: str, snapshot_name: str | None = None) -> Any:
        with self.lock:
            cluster = super().delete_db_cluster(cluster_identifier, snapshot_name)
        self.plane.forget("cluster", cluster_identifier)
        self.plane.forget("reader", cluster_identifier)
        return cluster

    def reboot_db_instance(self, db_instance_identifier: str) -> Any:
        database = self.describe_db_instances(db_instance_identifier)[0]
        server = self.plane.servers[database.dbi_resource_id]

        def reboot() -> None:
            server.stop()
            server.start()  # without read_only: so an old blue side becomes writable
            if any(True for _ in server.rows("SHOW SLAVE STATUS")):
                server.sql("SET GLOBAL read_only = 1")
                server.sql("START SLAVE")
            database.status = "available"

        database.status = "rebooting"
        self.in_background(reboot)
        return database

    def record(self, source: str, arn: str, kind: str, category: str, message: str) -> None:
        """Add an event of a deployment, instance or cluster, unless the switch drop_events is on."""
        if not self.plane.fault("drop_events"):
            self.events.append(Event(source, arn, kind, category, message))  # type: ignore[arg-type]

    def describe_events(
        self,
        source_identifier: str | None = None,
        source_type: str | None = None,
        start_time: datetime | None = None,
        event_categories: list[str] | None = None,
        **_: Any,
    ) -> Any:
        return [
            event
            for event in super().describe_events(source_identifier, source_type)
            if (start_time is None or event.date >= start_time.replace(tzinfo=event.date.tzinfo))
            and (not event_categories or set(event_categories) & set(event.event_categories))
        ]

    def create_blue_green_deployment(self, bg_kwargs: dict[str, Any]) -> Any:
        self._throttle()
        name = bg_kwargs["blue_green_deployment_name"]
        with self.lock:
            if any(other.blue_green_deployment_name == name for other in self.blue_green_deployments.values()):
                raise BlueGreenDeploymentAlreadyExistsFault(name)
            deployment = Deployment(self, **bg_kwargs)
            self.blue_green_deployments[deployment.blue_green_deployment_identifier] = deployment
            answer = deployment.view()
        self.in_background(deployment.provision)
        return answer

    def describe_blue_green_deployments(self, *args: Any, **kwargs: Any) -> Any:
        self._throttle()
        found = super().describe_blue_green_deployments(*args, **kwargs)
        return [deployment.view(self.plane.fault("stale_describe_s")) for deployment in found]

    def switchover_blue_green_deployment(
        self, blue_green_deployment_identifier: str, switchover_timeout: int | None = DEFAULT_TIMEOUT_S
    ) -> Any:
        self._throttle()
        timeout_s = DEFAULT_TIMEOUT_S if switchover_timeout is None else switchover_timeout
        if timeout_s not in TIMEOUT_S:
            raise InvalidParameterValue(f"SwitchoverTimeout {timeout_s} is not between 30 and 3600 seconds.")
        with self.lock:
            deployment = self._deployment(blue_green_deployment_identifier)
            if deployment.status not in ("AVAILABLE", "SWITCHOVER_FAILED"):
                raise InvalidBlueGreenDeploymentStateFault(blue_green_deployment_identifier)
            deployment.set_status(Deployment.SupportedStates.SWITCHOVER_IN_PROGRESS)
            answer = deployment.view()
        self.in_background(lambda: deployment.switch(timeout_s))
        return answer

    def delete_blue_green_deployment(self, blue_green_deployment_identifier: str, delete_target: bool = False) -> Any:
        self._throttle()
        with self.lock:
            deployment = self._deployment(blue_green_deployment_identifier)
            completed = deployment.status == "SWITCHOVER_COMPLETED"
            if deployment.status in ("PROVISIONING", "SWITCHOVER_IN_PROGRESS") or (completed and delete_target):
                raise InvalidBlueGreenDeploymentStateFault(blue_green_deployment_identifier)
            if delete_target:
                deployment.require_deletable_target()
            deleted = super().delete_blue_green_deployment(blue_green_deployment_identifier, delete_target)
            deployment.ended.set()
        self.record(
            blue_green_deployment_identifier,
            deployment.arn,
            "blue-green-deployment",
            "deletion",
            "Blue/green deployment deleted.",
        )
        return deleted

    def used(self) -> dict[str, int]:
        """How much of each quota is taken."""
        held = {
            "DBInstances": self.databases,
            "DBClusters": self.clusters,
            "DBParameterGroups": self.db_parameter_groups,
            "DBClusterParameterGroups": self.db_cluster_parameter_groups,
            "ManualSnapshots": self.database_snapshots,
            "ManualClusterSnapshots": self.cluster_snapshots,
        }
        return {name: len(things) for name, things in held.items()}

    def quotas(self) -> dict[str, int]:
        """Limits of the account; the switch quotas lowers some."""
        return {**catalogue.QUOTAS, **self.plane.fault("quotas")}

    def in_background(self, work: Callable[[], None]) -> None:
        threading.Thread(target=work, daemon=True).start()

    def _deployment(self, identifier: str) -> Deployment:
        if identifier not in self.blue_green_deployments:
            raise BlueGreenDeploymentNotFoundFault(identifier)
        return self.blue_green_deployments[identifier]  # type: ignore[return-value]

    def _throttle(self) -> None:
        if random.uniform(0, 100) < self.plane.fault("throttle"):
            raise ServiceException("Throttling", "Rate exceeded")


def _require_version(asked: Any) -> None:
    """Fill in the version that AWS would take, and refuse one that it does not know."""
    name = asked["engine"]
    if name not in catalogue.VERSIONS:
        raise InvalidParameterValue(f"Engine {name} has no server in the lab: use one of {sorted(catalogue.VERSIONS)}")
    if not asked.get("engine_version"):
        asked["engine_version"] = catalogue.DEFAULTS[name]
    if not catalogue.known(name, asked["engine_version"]):
        raise InvalidParameterCombination(f"Cannot find version {asked['engine_version']} for {name}")
