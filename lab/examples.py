"""What the example specs in include/specs/dms name, made in the lab: logins, canary tables, secrets, an instance, a stream.

In life a DBA makes these once, by hand or as code; no DAG does.
"""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import ClientError

from lab import aws, config, mysql
from lab.config import HOST, MYSQL_PASSWORD, MYSQL_USER

DMS_USER = "dms"
CANARY_SCHEMA = "dbops_canary"
TARGET_SCHEMA = "carshare_dms"
CANARIES = ("rides_dynamodb", "rides_kinesis", "fleet_mysql80", "positions_serverless")
INSTANCE = "carshare-dms"
STREAM = "carshare-cdc"
SECRETS = {"carshare-dms-source": "mysql57", "carshare-dms-target": "mysql80"}
CANARY = """CREATE TABLE IF NOT EXISTS `{schema}`.`{table}` (
  id INT NOT NULL PRIMARY KEY,
  token VARCHAR(64) CHARACTER SET ascii NOT NULL,
  written_at DATETIME(6) NOT NULL
) ENGINE = InnoDB"""
# DMS logs in by itself, so it has a user of its own; docs/dms.md says the same.
SOURCE_GRANTS = (
    "GRANT REPLICATION CLIENT, REPLICATION SLAVE ON *.* TO {user}",
    f"GRANT SELECT ON `{config.SOURCE_SCHEMA}`.* TO {{user}}",
    f"GRANT SELECT ON `{CANARY_SCHEMA}`.* TO {{user}}",
)
TARGET_GRANTS = tuple(
    f"GRANT ALL PRIVILEGES ON `{schema}`.* TO {{user}}" for schema in (TARGET_SCHEMA, "awsdms_control")
)
OUR_GRANTS = {
    "mysql57": (f"GRANT SELECT, INSERT, UPDATE ON `{CANARY_SCHEMA}`.* TO {{user}}",),
    "mysql80": (f"GRANT SELECT, TRIGGER ON `{TARGET_SCHEMA}`.* TO {{user}}",),
}


def provision() -> None:
    """Make what is missing; harmless when everything is there.

    The tables of the source come from `lab seed`. Existing DMS endpoints and tasks are left alone.
    """
    _source()
    _target()
    _account()


def _source() -> None:
    # DMS reads a log without checksums only; its own user guide says so.
    statements = ["SET GLOBAL binlog_checksum = NONE", f"CREATE DATABASE IF NOT EXISTS `{CANARY_SCHEMA}`"]
    statements += [CANARY.format(schema=CANARY_SCHEMA, table=table) for table in CANARIES]
    mysql.execute("mysql57", [*statements, *_logins("mysql57", SOURCE_GRANTS)])


def _target() -> None:
    statements = [f"CREATE DATABASE IF NOT EXISTS `{TARGET_SCHEMA}`"]
    mysql.execute("mysql80", [*statements, *_logins("mysql80", TARGET_GRANTS)])


def _logins(server: str, grants: tuple[str, ...]) -> list[str]:
    found = []
    for host in ("%", "localhost", HOST):
        user = f"'{DMS_USER}'@'{host}'"
        found.append(f"CREATE USER IF NOT EXISTS {user} IDENTIFIED WITH mysql_native_password BY '{MYSQL_PASSWORD}'")
        found += [grant.format(user=user) for grant in grants]
        found += [grant.format(user=f"'{MYSQL_USER}'@'{host}'") for grant in OUR_GRANTS[server]]
    return found


def _account() -> None:
    secrets, dms, kinesis = (aws.client(name) for name in ("secretsmanager", "dms", "kinesis"))
    for name, server in SECRETS.items():
        held = {"host": HOST, "port": config.port(server), "username": DMS_USER, "password": MYSQL_PASSWORD}
        if not _made(secrets.create_secret, Name=name, SecretString=json.dumps(held)):
            secrets.put_secret_value(SecretId=name, SecretString=json.dumps(held))
    _made(
        dms.create_replication_instance,
        ReplicationInstanceIdentifier=INSTANCE,
        ReplicationInstanceClass="dms.t3.medium",
        EngineVersion="3.5.4",
    )
    _made(kinesis.create_stream, StreamName=STREAM, ShardCount=2)


def _made(create: Any, **given: Any) -> bool:
    """Whether it was made; False when it is there already."""
    try:
        create(**given)
    except ClientError as error:
        if not error.response["Error"]["Code"].startswith(("ResourceExists", "ResourceAlreadyExists", "ResourceInUse")):
            raise
        return False
    return True
