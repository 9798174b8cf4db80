"""Two tables in a schema of their own, their rows at random, and how they are declared to the backfill and to cdc_apply.

A sequence in MySQL gives the versions. It is raised first thing in every transaction and stays locked until that commits, so versions rise
in the order of the commits over both tables, over the whole life of a key: a row that comes back after its deletion has a higher one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any

from lab import mysql

WIDTH = 20
"""Digits of BIGINT UNSIGNED, at which both `{id:pad}` and cdc_apply's `{id:20}` write an id."""
VERSION = "row_version"
BIG = 2**64 - 10**9
"""Ids of 20 digits: a change stream rounds them unless it is told otherwise."""
USERS = 500
UNITS_PER_S = 5_000
APPLICATION = "carshare"
LEASE_S = 5
"""What a killed worker had is taken by the next one after so long."""
DRAIN_S = 30
CHUNK_ROWS, PAGE_ROWS = 1000, 250
"""Of the backfill: small, so that a worker can be killed at any of many places."""

Row = dict[str, Any]
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Subject:
    """A table that moves."""

    name: str
    ddl: str
    key_columns: tuple[str, ...]
    columns: Mapping[str, str]
    """Kind by column, as cdc_apply is told; the version is not among them."""
    template: Mapping[str, str]
    """Key attribute -> template."""
    values: Callable[[random.Random], Row] = field(repr=False)
    """All columns beside key and version."""
    redis: str = ""
    """Template of the key in Redis."""

    @property
    def of_cdc(self) -> dict[str, str]:
        """The template in the words of cdc_apply."""
        return {name: text.replace(":pad", f":{WIDTH}") for name, text in self.template.items()}

    @cached_property
    def changing(self) -> tuple[str, ...]:
        """Columns that an update may change."""
        return tuple(name for name in self.columns if name not in self.key_columns)

    def key(self, number: int) -> Key:
        """The key of the n-th row."""
        return (100 + number % USERS, BIG + number) if len(self.key_columns) == 2 else (BIG + number,)


def _moment(one: random.Random) -> datetime:
    return datetime(2024, 1, 1) + timedelta(microseconds=one.randrange(10**14))


def _ride(one: random.Random) -> Row:
    return {
        "at": one.choice([None, _moment(one)]),
        "price": one.choice([None, Decimal(one.randrange(10**9)) / 100]),
        "distance": one.choice([None, 0.1, 1e20, -2.5e-7, round(one.random() * 1000, 9)]),
        "note": one.choice([None, "", "Köln 🚲", "x" * one.randrange(120)]),
        "ticket": one.choice([None, b"", b"\x00\xff\x00", bytes(one.randrange(256) for _ in range(12))]),
        "extras": one.choice([None, "child seat", "child seat,roof box"]),
        "track": one.choice([None, json.dumps({"points": [[one.randrange(900), 2], []], "ok": True, "by": None})]),
        "shared": one.choice([0, 1]),
    }


def _payment(one: random.Random) -> Row:
    return {
        "user_id": 100 + one.randrange(USERS),
        "amount": Decimal(one.randrange(-(10**7), 10**7)) / 100,
        "currency": one.choice(["EUR", "CHF", "SEK"]),
        "status": one.choice(["open", "paid", "refunded"]),
        "paid_at": one.choice([None, _moment(one)]),
    }


RIDES = Subject(
    "rides",
    """CREATE TABLE {s}.rides (
  user_id INT NOT NULL, id BIGINT UNSIGNED NOT NULL, at DATETIME(6), price DECIMAL(12,2), distance DOUBLE, note VARCHAR(200),
  ticket VARBINARY(12), extras SET('child seat', 'roof box'), track JSON, shared BIT(1) NOT NULL, row_version BIGINT NOT NULL,
  PRIMARY KEY (user_id, id)
) CHARACTER SET utf8mb4""",
    ("user_id", "id"),
    {
        "user_id": "integer", "id": "integer", "at": "string", "price": "number", "distance": "number", "note": "string",
        "ticket": "binary", "extras": "set", "track": "json", "shared": "boolean",
    },
    {"pk": "USER#{user_id}", "sk": "RIDE#{id:pad}"},
    _ride,
    "{user_id}#{id}",
)  # fmt: skip
PAYMENTS = Subject(
    "payments",
    """CREATE TABLE {s}.payments (
  id BIGINT UNSIGNED NOT NULL, user_id INT NOT NULL, amount DECIMAL(12,2) NOT NULL, currency CHAR(3) NOT NULL,
  status ENUM('open', 'paid', 'refunded') NOT NULL, paid_at DATETIME(6), row_version BIGINT NOT NULL, PRIMARY KEY (id)
) CHARACTER SET utf8mb4""",
    ("id",),
    {
        "id": "integer", "user_id": "integer", "amount": "number", "currency": "string", "status": "string",
        "paid_at": "string",
    },
    {"pk": "PAYMENT#{id}"},
    _payment,
    "{id}",
)  # fmt: skip
SUBJECTS = (RIDES, PAYMENTS)
SEQUENCE = "CREATE TABLE {s}.sequence (one TINYINT NOT NULL PRIMARY KEY, value BIGINT NOT NULL)"
DRAW = "UPDATE {s}.sequence SET value = LAST_INSERT_ID(value + 1)"


def connect(schema: str = "", server: str = "mysql57") -> Any:
    """A connection of an application: transactions, UTC."""
    made = mysql.root_connection(server, schema or None)
    made.autocommit(False)
    return made


def build(schema: str, rows: Mapping[str, int], seed: int, server: str = "mysql57") -> None:
    """Make the schema and its first rows, before there is any dual write."""
    mysql.execute(server, [f"CREATE DATABASE {schema}", SEQUENCE.format(s=schema)])
    one = random.Random(seed)
    connection = connect(schema, server)
    try:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO sequence VALUES (1, 1)")
            for subject in SUBJECTS:
                cursor.execute(subject.ddl.format(s=schema))
                names = [*subject.columns, VERSION]
                statement = f"INSERT INTO {subject.name} ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))})"
                made = []
                for number in range(rows[subject.name]):
                    row = dict(zip(subject.key_columns, subject.key(number), strict=True)) | subject.values(one)
                    made.append([*(row[name] for name in subject.columns), 1])
                cursor.executemany(statement, made)
        connection.commit()
    finally:
        connection.close()


def drop(schema: str, server: str = "mysql57") -> None:
    """Remove the schema, and what anybody may do there."""
    with closing(mysql.root_connection(server)) as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS `{schema}`")
        cursor.execute("SELECT user, host FROM mysql.db WHERE db = %s", (schema,))
        for user, host in cursor.fetchall():
            cursor.execute(f"REVOKE ALL PRIVILEGES ON `{schema}`.* FROM '{user}'@'{host}'")


def cdc_settings(schema: str, tables: Mapping[str, str]) -> dict[str, Any]:
    """CDC_SETTINGS of cdc_apply.

    Args:
        schema: of the source
        tables: table of the source -> table of DynamoDB
    """
    return {
        "tables": {
            f"{schema}.{each.name}": {
                "target": tables[each.name],
                "key": each.of_cdc,
                "version": {"column": VERSION},
                "columns": dict(each.columns),
                "exclude": [VERSION],  # it is the item's _v, as the backfill writes it
            }
            for each in SUBJECTS
            if each.name in tables
        }
    }


def spec(schema: str, subject: Subject, target: Mapping[str, Any], since: datetime, **more: Any) -> dict[str, Any]:
    """The spec of the backfill as a DBA writes it."""
    columns = ", ".join(f"t.{name}" for name in (*subject.columns, VERSION))
    return {
        "name": f"{schema}_{subject.name}",
        "description": f"{subject.name} of the demo",
        "owner": "dba",
        "connection": "mysql_default",
        "view": {
            "sql": f"SELECT {columns} FROM {schema}.{subject.name} AS t WHERE {{chunk}}",
            "table": f"{schema}.{subject.name}",
            "alias": "t",
            "policy": {"empty_set": "null"},
        },
        "version": {"column": VERSION, "raised_by": "the application, from the table sequence"},
        "target": dict(target),
        "limits": {
            "chunk_rows": CHUNK_ROWS,
            "page_rows": PAGE_ROWS,
            "page_s": 0.5,
            "threads": 4,
            "units_per_s": UNITS_PER_S,
            "max_lag_s": None,
            "max_threads_running": None,
            "tasks": 1,  # `airflow dags test` runs one after the other anyway
            "lease_s": LEASE_S,
        },
        "live": {"since": since.isoformat(), "applications": [APPLICATION], "stream": "DMS, Kinesis, Lambda"},
        "verify": {"drain_s": DRAIN_S},
        **more,
    }
