"""A worker of a copy as a process that can be killed; the rows that it copies. Arguments and result are JSON."""

from __future__ import annotations

import json
import signal
import sys
import threading
from contextlib import closing
from dataclasses import asdict
from typing import Any

import boto3
import sqlalchemy as sa
from botocore.config import Config

from dbops.backfill import copying, dynamodb
from dbops.backfill.journal import Journal
from dbops.backfill.source import open_source
from dbops.backfill.spec import BackfillSpec
from lab import config, mysql
from tests.backfill.dynamo_kit import Purse

SERVER, SCHEMA = "mysql57", "backfill_copy"


def make(rows: int) -> None:
    """Users 1 to n; the version of a row is its number."""
    with closing(mysql.root_connection(SERVER)) as conn, conn.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {SCHEMA}")
        cursor.execute(f"CREATE DATABASE {SCHEMA}")
        cursor.execute(
            f"CREATE TABLE {SCHEMA}.users (id BIGINT PRIMARY KEY, name VARCHAR(40) NOT NULL, version BIGINT NOT NULL)"
        )
        cursor.executemany(
            f"INSERT INTO {SCHEMA}.users VALUES (%s, %s, %s)", [(n, f"name {n}", n) for n in range(1, rows + 1)]
        )
        conn.commit()


def connect() -> Any:
    """As `dbops.connections.mysql` would, without Airflow, which takes seconds to load."""
    conn = mysql.root_connection(SERVER)
    conn.autocommit(True)
    with conn.cursor() as cursor:
        cursor.execute("SET SESSION time_zone = '+00:00', sql_mode = ''")
    return conn


def spec(page_rows: int) -> BackfillSpec:
    """Users."""
    return BackfillSpec.model_validate({
        "name": "users", "description": "users of the test", "owner": "test",
        "view": {
            "sql": f"SELECT u.id, u.name, u.version FROM {SCHEMA}.users AS u WHERE {{chunk}}", "table": f"{SCHEMA}.users", "alias": "u",
        },
        "version": {"column": "version"},
        "target": {"kind": "dynamodb", "table": "users", "key": {"pk": "USER#{id}"}},
        "limits": {"page_rows": page_rows, "page_s": 0.05, "chunk_rows": 400, "threads": 2, "max_lag_s": None},
        "live": {"since": "2026-01-01T00:00:00Z", "applications": ["test"], "stream": "none"},
    })  # fmt: skip


def client(account: str) -> Any:
    """A client of DynamoDB Local with the target's own settings."""
    return boto3.client(
        "dynamodb", endpoint_url=config.dynamodb_endpoint(), region_name=config.AWS_REGION, aws_access_key_id=account,
        aws_secret_access_key=config.AWS_SECRET, config=dynamodb.client_config(4).merge(Config(proxies={})),
    )  # fmt: skip


def main(arguments: dict[str, Any]) -> None:
    """Copy until nothing is left or SIGTERM comes."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    journal = Journal(sa.create_engine(f"sqlite:///{arguments['journal']}", connect_args={"timeout": 60}))
    with closing(connect()) as conn:
        source = open_source(conn, spec(arguments["page_rows"]))
    with dynamodb.DynamoTarget(client(arguments["account"]), "users", source.view, threads=2) as target:
        done = copying.copy(
            journal, source, connect, target, Purse(), lambda: 0.0, arguments["plan_id"], arguments["owner"], stop=stop,
            lease_s=arguments["lease_s"],
        )  # fmt: skip
    print(json.dumps(asdict(done), default=str))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
