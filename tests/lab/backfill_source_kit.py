"""Schemas of their own on both servers of the lab, with rides and members, and views of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from dbops.backfill import source
from dbops.backfill.source import Source
from lab import mysql
from tests.backfill.source_kit import declared

LAST = ("9" * 18,)
DYNAMO = {"kind": "dynamodb", "table": "rides"}


@pytest.fixture(params=["mysql57", "mysql80"])
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A connection as `connections.mysql` opens it, in a schema of its own."""
    schema = f"k{uuid.uuid4().hex[:10]}"
    with closing(mysql.root_connection(request.param)) as made, made.cursor() as cursor:
        cursor.execute("SET time_zone = '+00:00', sql_mode = ''")
        cursor.execute(f"CREATE DATABASE {schema} DEFAULT CHARACTER SET utf8mb4")
        cursor.execute(f"USE {schema}")
        made.schema = schema
        try:
            yield made
        finally:
            cursor.execute(f"DROP DATABASE {schema}")


def run(server: Any, *statements: str) -> None:
    with server.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
            cursor.fetchall()


def opened(server: Any, sql: str, table: str = "rides", alias: str = "r", **more: Any) -> Source:
    view = {"table": f"{server.schema}.{table}", "alias": alias, **more.pop("view", {})}
    return source.open_source(server, declared(sql.replace("shop.", f"{server.schema}."), view=view, **more))


def fleet(server: Any, rides: int = 1000) -> None:
    """Rides with gaps in their keys, of members of whom some are unknown."""
    run(
        server,
        "CREATE TABLE members (id BIGINT UNSIGNED NOT NULL PRIMARY KEY, full_name VARCHAR(40) NOT NULL, version BIGINT NOT NULL)",
        "CREATE TABLE rides (id BIGINT UNSIGNED NOT NULL PRIMARY KEY, member_id BIGINT UNSIGNED, status VARCHAR(10) NOT NULL, "
        "price DECIMAL(10,2), version BIGINT NOT NULL, deleted_at DATETIME, KEY (member_id), KEY (status))",
        "INSERT INTO members VALUES (1, 'Ann', 50), (2, 'Bob', 5000), (3, 'Çem', 70)",
    )
    with server.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO rides VALUES (%s, %s, %s, %s, %s, %s)",
            [
                (
                    3 * n,
                    n % 5 or None,
                    "abc"[n % 3],
                    None if n % 7 == 0 else n,
                    n,
                    "2026-01-01" if n % 10 == 0 else None,
                )
                for n in range(1, rides + 1)
            ],
        )
    run(server, "ANALYZE TABLE rides, members")


JOIN = (
    "SELECT r.id AS ride, r.status, r.price, m.full_name AS member, GREATEST(r.version, COALESCE(m.version, 0)) AS version, "
    "r.deleted_at IS NOT NULL AS is_deleted FROM shop.rides AS r {join} shop.members AS m ON m.id = r.member_id "
    "WHERE {{chunk}} AND r.status <> 'c'"
)
KEY = {"target": {**DYNAMO, "key": {"pk": "RIDE#{ride}"}}, "tombstone": {"column": "is_deleted"}}
