"""CloudWatch metrics of the simulated RDS, measured on its servers: replica lag and connections, in the namespace AWS/RDS."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import MySQLdb
from moto.cloudwatch.models import cloudwatch_backends

from lab.rds.server import ADMIN, Server

PERIOD_S = 5  # AWS puts them every minute; a rehearsal in the lab takes minutes


def run(plane: Any) -> None:
    """Put the metrics of every available instance until the plane ends."""
    while not plane.ended.wait(PERIOD_S):
        for backend in plane.backends:
            with backend.lock:
                databases = list(backend.databases.values())
            for database in databases:
                server = plane.servers.get(database.dbi_resource_id)
                if server is not None and database.status == "available" and not plane.fault("drop_metrics"):
                    with contextlib.suppress(MySQLdb.Error):  # it restarts, or is deleted just now
                        _put(backend, database, dict(_measured(server, database)))


def _put(backend: Any, database: Any, values: dict[str, float]) -> None:
    name, cluster = database.db_instance_identifier, database.db_cluster_identifier
    dimensions = [[{"Name": "DBInstanceIdentifier", "Value": name}]]
    if cluster:
        role = "WRITER" if database.is_cluster_writer else "READER"
        dimensions.append([{"Name": "DBClusterIdentifier", "Value": cluster}, {"Name": "Role", "Value": role}])
    data = [
        {
            "MetricName": metric,
            "Value": value,
            "Unit": "Count" if metric == "DatabaseConnections" else "Seconds",
            "Dimensions": each,
        }
        for metric, value in values.items()
        for each in dimensions
    ]
    cloudwatch_backends[backend.account_id][backend.region_name].put_metric_data("AWS/RDS", data)


def _measured(server: Server, database: Any) -> Iterator[tuple[str, float]]:
    clients = (
        "SELECT COUNT(*) FROM information_schema.processlist WHERE user NOT IN (%s, 'system user', 'event_scheduler')"
    )
    yield "DatabaseConnections", float(server.sql(clients, (ADMIN,))[0][0])
    state = server.rows("SHOW SLAVE STATUS")
    lag = state[0]["Seconds_Behind_Master"] if state else None
    if database.db_cluster_identifier is None:
        if state:
            yield "ReplicaLag", -1.0 if lag is None else float(lag)
    elif database.is_cluster_writer:
        yield "AuroraBinlogReplicaLag", -1.0 if lag is None else float(lag)  # AWS: -1 without replication
