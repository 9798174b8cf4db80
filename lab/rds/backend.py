"""moto's RDS with real servers behind it; what moto leaves out or gets wrong about Blue/Green is set right here."""

from __future__ import annotations

import random
import string
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import MySQLdb
from moto.core.utils import utcnow
from moto.rds import models
from moto.rds.exceptions import (
    BlueGreenDeploymentAlreadyExistsFault,
    BlueGreenDeploymentNotFoundFault,
    InvalidBlueGreenDeploymentStateFault,
    InvalidParameterCombination,
    InvalidParameterValue,
    RDSClientError,
)

from lab import config
from lab.rds import catalogue, groups, metrics, parameters, responses
from lab.rds.deployment import Deployment
from lab.rds.endpoint import READER_HOST
from lab.rds.groups import Groups
from lab.rds.plane import MASTER_PRIVILEGES, Plane
from lab.rds.server import Server
from lab.rds.snapshots import Snapshots

TIMEOUT_S = range(30, 3601)
DEFAULT_TIMEOUT_S = 300
WRITER_S = 3600
_plane: Plane
_moto_cluster_status = models.DBCluster.status.fget


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
    models.DBCluster.status = property(_cluster_status, models.DBCluster.status.fset)
    groups.install()
    models.DBCluster.reader_endpoint = property(lambda _: READER_HOST)
    threading.Thread(target=metrics.run, args=(_plane,), daemon=True).start()
    return _plane


def _cluster_status(cluster: Any) -> str:
    """As moto has it, but a clone is creating until what it was cloned from is on disk."""
    stored = getattr(cluster, "stored", None)
    if stored is not None and not stored.ready.is_set():
        return "creating"
    return str(_moto_cluster_status(cluster))


class Event:
    """An entry of DescribeEvents."""

    def __init__(self, source: str, arn: str, kind: str, category: str, message: str) -> None:
        self.source_identifier, self.source_arn, self.source_type = source, arn, kind
        self.event_categories, self.message, self.date = [category], message, utcnow()


class Backend(Snapshots, Groups):
    """RDS of one account and region."""

    __module__ = models.RDSBackend.__module__  # moto finds the URLs of a service beside the module of its backend

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.plane = _plane
        self.lock = threading.RLock()
        self.is_green = threading.local()  # while a deployment makes its instances, which it fills itself
        self.restoring = threading.local()
        if self not in self.plane.backends:  # a reset of moto makes it anew in place
            self.plane.backends.append(self)

    def reset(self) -> None:
        for database in self.databases.values():
            if server := self.plane.servers.pop(database.dbi_resource_id, None):
                server.delete()
        self.plane.forget_all()
        super().reset()

    def create_db_cluster(self, kwargs: dict[str, Any]) -> Any:
        with self.lock:
            if kwargs["db_cluster_identifier"] in self.clusters:
                raise RDSClientError("DBClusterAlreadyExistsFault", "DB Cluster already exists")
            self._require_quota("DBClusters", "DBClusterQuotaExceededFault")
            _require_version(kwargs)
            name = kwargs.get("db_cluster_parameter_group_name") or _default_group(kwargs)
            parameters.require_family(parameters.cluster_group(self, name), kwargs["engine"], kwargs["engine_version"])
            kwargs["db_cluster_parameter_group_name"] = name
            cluster = super().create_db_cluster(kwargs)
            stored = getattr(self.restoring, "stored", None)
            cluster.stored = stored.hold() if stored else None
            cluster.port = self.plane.endpoint("cluster", cluster.db_cluster_identifier).port
            self.plane.endpoint("reader", cluster.db_cluster_identifier)
        return cluster

    def create_db_instance(self, db_kwargs: dict[str, Any]) -> Any:
        with self.lock:
            self._require_quota("DBInstances", "InstanceQuotaExceededFault")
            if db_kwargs.get("db_cluster_identifier") is None:
                _require_version(db_kwargs)
                version = db_kwargs["engine_version"]
            elif cluster := self.clusters.get(db_kwargs["db_cluster_identifier"]):
                version = cluster.engine_version
            if name := db_kwargs.get("db_parameter_group_name"):
                parameters.require_family(parameters.instance_group(self, name), db_kwargs["engine"], version)
            database = super().create_db_instance(db_kwargs)
            database.dbi_resource_id = "db-" + "".join(random.choices(string.ascii_uppercase + string.digits, k=26))
            database.port = self.plane.endpoint("db", database.db_instance_identifier).port
            database.status = "creating"
            cluster = getattr(database, "cluster", None)
            stored = cluster.stored if cluster else getattr(self.restoring, "stored", None)
            is_first = cluster is None or database.is_cluster_writer
            database.stored = stored.hold() if stored and is_first else None
        if not getattr(self.is_green, "yes", False):
            self.in_background(lambda: self._create(database))
        return database

    def _create(self, database: Any) -> None:
        try:
            self._fill(database)
        except (MySQLdb.Error, OSError, config.LabError) as error:
            if (
                database.db_instance_identifier in self.databases
            ):  # else it was deleted meanwhile, which ends its server
                database.status = "incompatible-restore" if database.stored else "failed"
                name = database.db_instance_identifier
                self.record(name, database.arn, "db-instance", "failure", f"DB instance could not be created: {error}")
        finally:
            if database.stored:
                database.stored.release()

    def _fill(self, database: Any) -> None:
        """Start the server of an instance: empty, with the content of a snapshot, or as a replica of the cluster's writer."""
        cluster = getattr(database, "cluster", None)
        is_reader = cluster is not None and not database.is_cluster_writer
        if is_reader:
            self._await_writer(cluster)
        server = self.new_server(database, is_replica=is_reader)
        if is_reader:
            writer = self.plane.servers[cluster.writer.dbi_resource_id]
            Deployment.copy_and_follow(writer, server, self.plane.folder / f"copy-{database.dbi_resource_id}")
            server.sql("SET GLOBAL read_only = 1")
        elif database.stored:
            database.stored.load(server)
            if cluster is not None and cluster.stored:  # what the cluster was made from is in its writer now
                cluster.stored.release()
                cluster.stored = None
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

    def _await_writer(self, cluster: Any) -> None:
        until = time.monotonic() + WRITER_S
        while cluster.writer is None or cluster.writer.status != "available":
            if time.monotonic() > until or cluster.writer is None or cluster.writer.status != "creating":
                raise config.LabError(f"the writer of {cluster.db_cluster_identifier} is not available")
            time.sleep(0.1)

    def new_server(self, database: Any, is_replica: bool) -> Server:
        """A running, empty server for an instance, with the options of its parameter groups."""
        with self.lock:
            if database.db_instance_identifier not in self.databases:
                raise config.LabError(f"{database.db_instance_identifier} is deleted")
            server = self.plane.server(database.dbi_resource_id, database.engine_version)
        self._configure(server, database, is_replica)
        server.initialise()
        server.start()
        return server

    @staticmethod
    def _configure(server: Server, database: Any, is_replica: bool) -> None:
        server.configure(parameters.start_options(database))
        if is_replica:  # events run where they are made, and their rows come along
            server.options.pop("loose-event-scheduler", None)

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
            if database := self.databases.get(db_instance_identifier):
                self._require_deletable(database)
            database = super().delete_db_instance(db_instance_identifier, *args, **kwargs)
        self.plane.forget("db", database.db_instance_identifier)
        if server := self.plane.servers.pop(database.dbi_resource_id, None):
            server.delete()
        cluster = self.clusters.get(database.db_cluster_identifier or "")
        if cluster is not None and database.is_cluster_writer and cluster.members:
            self._promote(cluster.writer)
        return database

    def _require_deletable(self, database: Any) -> None:
        for deployment in self.blue_green_deployments.values():
            if deployment.status != "SWITCHOVER_COMPLETED" and deployment.holds(database):
                raise RDSClientError(
                    "InvalidDBInstanceStateFault",
                    f"DB instance {database.db_instance_identifier} is part of blue/green deployment "
                    f"{deployment.blue_green_deployment_identifier}: delete that first.",
                )

    def _promote(self, reader: Any) -> None:
        """What is left of a cluster goes on with another writer."""
        server = self.plane.servers[reader.dbi_resource_id]
        with server.cursor() as cursor:
            cursor.execute("STOP SLAVE")
            cursor.execute("RESET SLAVE ALL")
            cursor.execute("SET GLOBAL super_read_only = 0")
            cursor.execute("SET GLOBAL read_only = 0")
        self.connect_endpoints(reader)
        for other in reader.cluster.members:
            if other is not reader:
                Deployment.follow(server, self.plane.servers[other.dbi_resource_id])

    def delete_db_cluster(self, cluster_identifier: str, snapshot_name: str | None = None) -> Any:
        with self.lock:
            cluster = super().delete_db_cluster(cluster_identifier, snapshot_name)
        self.plane.forget("reader", cluster_identifier)
        self.plane.forget("cluster", cluster_identifier)
        if cluster.stored:
            cluster.stored.release()
        return cluster

    def reboot_db_instance(self, db_instance_identifier: str) -> Any:
        database = self.describe_db_instances(db_instance_identifier)[0]
        if database.status != "available":
            raise RDSClientError(
                "InvalidDBInstanceStateFault", f"Instance {db_instance_identifier} is {database.status}, not available."
            )
        database.status = "rebooting"
        self.in_background(lambda: self._reboot(database))
        return database

    def _reboot(self, database: Any) -> None:
        name, server = database.db_instance_identifier, self.plane.servers[database.dbi_resource_id]
        is_green = any(
            deployment.status != "SWITCHOVER_COMPLETED" and any(pair.green is database for pair in deployment.pairs)
            for deployment in self.blue_green_deployments.values()
        )
        is_replica = is_green or not getattr(database, "is_cluster_writer", True)
        try:
            server.stop()
            self._configure(server, database, is_replica)
            server.start()  # without read_only: so an old blue side becomes writable
            if server.rows("SHOW SLAVE STATUS"):
                server.sql("SET GLOBAL read_only = 1")
                server.sql("START SLAVE")
        except (MySQLdb.Error, OSError, config.LabError) as error:
            database.status = "failed"
            self.record(name, database.arn, "db-instance", "failure", f"DB instance could not be restarted: {error}")
            return
        database.status = "available"
        self.record(name, database.arn, "db-instance", "availability", "DB instance restarted")

    def modify_db_cluster(self, kwargs: dict[str, Any]) -> Any:
        cluster = self.describe_db_clusters(kwargs["db_cluster_identifier"])[0]
        if name := kwargs.get("db_cluster_parameter_group_name"):
            parameters.require_family(parameters.cluster_group(self, name), cluster.engine, cluster.engine_version)
        if password := kwargs.get("master_user_password"):
            self._set_password(cluster, cluster.writer, password)
        return super().modify_db_cluster(kwargs)

    def modify_db_instance(self, db_instance_identifier: str, db_kwargs: dict[str, Any]) -> Any:
        database = self.describe_db_instances(db_instance_identifier)[0]
        if name := db_kwargs.get("db_parameter_group_name"):
            parameters.require_family(parameters.instance_group(self, name), database.engine, database.engine_version)
        if password := db_kwargs.get("master_user_password"):
            self._set_password(database, database, password)
        return super().modify_db_instance(db_instance_identifier, db_kwargs)

    def _set_password(self, owner: Any, writer: Any, password: str) -> None:
        if writer is not None and (server := self.plane.servers.get(writer.dbi_resource_id)):
            server.sql("ALTER USER %s@'%%' IDENTIFIED BY %s", (owner.master_username, password))

    def record(self, source: str, arn: str, kind: str, category: str, message: str) -> None:
        """Add an event of a deployment, instance or cluster, unless the switch drop_events is on."""
        if not self.plane.fault("drop_events"):
            self.events.append(Event(source, arn, kind, category, message))  # type: ignore[arg-type]

    def describe_db_log_files(self, db_instance_identifier: str, **_: Any) -> Any:
        return [
            {"LogFileName": name, "LastWritten": int(utcnow().timestamp() * 1000), "Size": len(text)}
            for name, text in self.logs(db_instance_identifier).items()
        ]

    def logs(self, db_instance_identifier: str) -> dict[str, str]:
        """Log files of an instance by their names: what its mysqld says, and of a green side the prechecks of its upgrade."""
        database = self.describe_db_instances(db_instance_identifier)[0]
        server = self.plane.servers.get(database.dbi_resource_id)
        log = server.folder / "log" if server else None
        found = {"error/mysql-error.log": log.read_text(errors="replace")} if log and log.is_file() else {}
        return {**found, **getattr(database, "extra_logs", {})}

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

    def _get_resource_for_tagging(self, arn: str) -> Any:
        kind, _, name = arn.rpartition(":")
        if kind.endswith(":deployment"):  # which moto does not know
            return self._deployment(name)
        return super()._get_resource_for_tagging(arn)

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
            "DBParameterGroups": _own(self.db_parameter_groups),
            "DBClusterParameterGroups": _own(self.db_cluster_parameter_groups),
            "ManualSnapshots": self.database_snapshots,
            "ManualClusterSnapshots": self.cluster_snapshots,
        }
        return {name: len(things) for name, things in held.items()}

    def _require_quota(self, name: str, fault: str) -> None:
        if self.used()[name] >= self.quotas()[name]:
            raise RDSClientError(fault, f"The request would exceed the quota of {self.quotas()[name]} {name}.")

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
            raise RDSClientError("Throttling", "Rate exceeded")


def _own(groups: Mapping[str, Any]) -> list[str]:
    return [name for name in groups if not name.startswith("default.")]


def _default_group(asked: Any) -> str:
    return f"default.{catalogue.family(asked['engine'], asked['engine_version'])}"


def _require_version(asked: Any) -> None:
    """Fill in the version that AWS would take, and refuse one that it does not know."""
    name = asked["engine"]
    if name not in catalogue.VERSIONS:
        raise InvalidParameterValue(f"Engine {name} has no server in the lab: use one of {sorted(catalogue.VERSIONS)}")
    if not asked.get("engine_version"):
        asked["engine_version"] = catalogue.DEFAULTS[name]
    if not catalogue.known(name, asked["engine_version"]):
        raise InvalidParameterCombination(f"Cannot find version {asked['engine_version']} for {name}")
