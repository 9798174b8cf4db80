"""What the example specs in include/specs/backfill name, made in the lab: rows, a target, and an application that writes both stores.

In life all of that is there before anybody thinks of a backfill; no DAG makes it.
"""

from __future__ import annotations

import logging
import random
from contextlib import closing
from typing import Any

import redis
import sqlalchemy as sa
from botocore.exceptions import ClientError

from dbops import specs
from dbops.backfill.journal import Journal
from dbops.backfill.spec import BackfillSpec
from dbops.keyvalue import counting
from dbops.keyvalue.stores import DynamoStore, RedisStore, Store
from lab import config, dynamodb, mysql
from lab.config import HOST, MYSQL_PASSWORD, MYSQL_USER, LabError
from lab.migration import scene
from lab.migration.scene import PAYMENTS, RIDES, Subject
from lab.migration.traffic import Application, Keys, Session, make_view

SCHEMA = "carshare_move"
ROWS = {"rides": 4000, "payments": 2000}
SPECS = {"rides_dynamodb": RIDES, "payments_redis": PAYMENTS}
WRITES = 20
"""Rows that the application writes into both stores, each time."""


def provision() -> None:
    """Make what is missing, and let the application write and report once more; harmless when everything is there."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    _source()
    journal = Journal.open(sa.create_engine(_store_url()))  # its tables are there before anybody reports
    journal.engine.dispose()
    for name, subject in SPECS.items():
        _dual_writes(specs.load("backfill", name, BackfillSpec), subject)
        print(f'{SCHEMA}.{subject.name} is ready: airflow dags test backfill -c \'{{"spec": "{name}"}}\'')


def _store_url() -> str:
    address = f"{MYSQL_USER}:{MYSQL_PASSWORD}@{HOST}:{config.port('mysql80')}"
    return f"mysql+mysqldb://{address}/{config.STORE_SCHEMA}?charset=utf8mb4"


def _source() -> None:
    if not _is_whole():
        scene.drop(SCHEMA)
        scene.build(SCHEMA, ROWS, seed=7)
    mysql.execute(
        "mysql57",
        [f"GRANT SELECT, TRIGGER ON `{SCHEMA}`.* TO '{MYSQL_USER}'@'{host}'" for host in ("%", "localhost", HOST)],
    )


def _is_whole() -> bool:
    """Whether the rows are there: those of the last table are committed last."""
    with closing(mysql.root_connection("mysql57")) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = %s AND table_name = %s",
            (SCHEMA, PAYMENTS.name),
        )
        if not cursor.fetchone()[0]:
            return False
        cursor.execute(f"SELECT COUNT(*) FROM `{SCHEMA}`.`{PAYMENTS.name}`")
        return bool(cursor.fetchone()[0])


def _dual_writes(spec: BackfillSpec, subject: Subject) -> None:
    """The application changes some rows in MySQL and in the target, and reports that it did."""
    target = spec.target
    view = make_view(SCHEMA, subject, target.key if target.kind == "dynamodb" else {"key": target.key})
    store: Store
    if target.kind == "dynamodb":
        client = dynamodb.client()
        _table(client, target.table, list(target.key))
        store = DynamoStore(client, target.table)
    else:
        store = RedisStore(redis.Redis(HOST, config.port("redis")), view, target.prefix, target.layout)
    application = Application(SCHEMA, subject, view, store, Keys(subject, ROWS[subject.name]))
    one = random.Random()
    session = Session(application)
    repository = application.repository(session.load)
    reporters = [
        counting.Reporter(
            application.counters,
            lambda: mysql.root_connection("mysql80", config.STORE_SCHEMA),
            application=name,
            spec=spec.name,
        )
        for name in spec.live.applications
    ]
    with closing(session.connection):
        for number in one.sample(range(ROWS[subject.name]), WRITES):
            key, values = subject.key(number), subject.values(one)
            repository.save(lambda key=key, values=values: session.write("update", key, values))  # type: ignore[misc]
            repository.read(dict(zip(subject.key_columns, key, strict=True)))
    for reporter in reporters:
        if not reporter.report(is_last=True):
            raise LabError(f"{spec.name}: the application could not report to {config.STORE_SCHEMA}.{counting.TABLE}")


def _table(client: Any, name: str, keys: list[str]) -> None:
    try:
        client.create_table(
            TableName=name, BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in zip(keys, ("HASH", "RANGE"), strict=False)],
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
        )  # fmt: skip
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceInUseException":
            raise
