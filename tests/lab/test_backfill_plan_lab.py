"""The walk on MySQL 5.7 and 8.0: keys of several columns, collations, cold rows, joins that find too much."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from dbops.backfill import plan, source
from dbops.backfill.source import ViewError
from lab import mysql
from tests.backfill.source_kit import declared

pytestmark = pytest.mark.lab


@pytest.fixture(params=["mysql57", "mysql80"])
def server(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A connection as `connections.mysql` opens it, in a schema of its own with parts of rides."""
    schema = f"k{uuid.uuid4().hex[:10]}"
    rng = random.Random(11)
    with closing(mysql.root_connection(request.param)) as made, made.cursor() as cursor:
        cursor.execute("SET time_zone = '+00:00', sql_mode = ''")
        cursor.execute(f"CREATE DATABASE {schema} DEFAULT CHARACTER SET utf8mb4")
        cursor.execute(f"USE {schema}")
        cursor.execute(
            "CREATE TABLE parts (ride BIGINT UNSIGNED NOT NULL, code VARCHAR(10) NOT NULL, kind INT NOT NULL, version BIGINT NOT NULL, "
            "PRIMARY KEY (ride, code))"
        )
        cursor.execute("CREATE TABLE kinds (kind INT NOT NULL, name VARCHAR(10), version BIGINT NOT NULL, KEY (kind))")
        rows = {(rng.randrange(40), "aBcdé fgh'\\ü"[rng.randrange(11)] * rng.randrange(1, 4)) for _ in range(700)}
        unique = {(ride, code.lower()): (ride, code) for ride, code in rows}
        cursor.executemany(
            "INSERT IGNORE INTO parts VALUES (%s, %s, %s, 1)", [(*key, key[0] % 3) for key in unique.values()]
        )
        cursor.execute("INSERT INTO kinds VALUES (0, 'zero', 1), (1, 'one', 1), (2, 'two', 1)")
        made.commit()
        made.schema = schema
        try:
            yield made
        finally:
            cursor.execute(f"DROP DATABASE {schema}")


def opened(server: Any, **more: Any) -> source.Source:
    sql = (
        "SELECT p.ride, p.code, k.name, GREATEST(p.version, COALESCE(k.version, 0)) AS version FROM shop.parts AS p "
        "LEFT JOIN shop.kinds AS k ON k.kind = p.kind WHERE {chunk}"
    ).replace("shop.", f"{server.schema}.")
    target = {"kind": "dynamodb", "table": "parts", "key": {"pk": "RIDE#{ride}", "sk": "{code}"}}
    view = {"table": f"{server.schema}.parts", "alias": "p"}
    return source.open_source(server, declared(sql, view=view, version={"scope": "shared"}, target=target, **more))


def scalar(server: Any, statement: str) -> int:
    with server.cursor() as cursor:
        cursor.execute(statement)
        return int(cursor.fetchone()[0])


def test_chunks_hold_every_row_once_whatever_their_size(server: Any) -> None:
    found = opened(server)
    rows = scalar(server, "SELECT COUNT(*) FROM parts")
    for chunk_rows in (1, 7, rows - 1, rows, rows + 1):
        walk = plan.walk(server, found, chunk_rows)
        assert walk.rows == walk.view_rows == walk.cold_rows == rows
        assert [chunk.rows for chunk in walk.chunks[:-1]] == [chunk_rows] * (len(walk.chunks) - 1)
        assert len(walk.chunks) == -(-rows // chunk_rows)
        seen = [row.key for chunk in walk.chunks for row in found.page(server, chunk.low, chunk.high, 10_000, "p").rows]
        assert len(seen) == len(set(seen)) == rows


def test_cold_chunks_are_told_from_hot_ones(server: Any) -> None:
    walk = plan.walk(server, opened(server, cold={"where": "p.ride < 20", "only": False}), 10)
    cold = scalar(server, "SELECT COUNT(*) FROM parts WHERE ride < 20")
    assert walk.cold_rows == cold < walk.rows
    assert 0 < sum(chunk.is_cold for chunk in walk.chunks) < len(walk.chunks)
    assert [chunk.is_cold for chunk in walk.chunks] == sorted((chunk.is_cold for chunk in walk.chunks), reverse=True)
    only = plan.walk(server, opened(server, cold={"where": "p.ride < 20"}), 10)
    assert only.rows == only.cold_rows == cold
    assert all(chunk.is_cold for chunk in only.chunks)


def test_an_empty_table_has_no_chunk(server: Any) -> None:
    with server.cursor() as cursor:
        cursor.execute("DELETE FROM parts")
    assert plan.walk(server, opened(server), 10) == plan.Walk([], 0, 0, 0)


def test_a_join_that_finds_several_partners_is_refused(server: Any) -> None:
    with server.cursor() as cursor:
        cursor.execute("INSERT INTO kinds VALUES (2, 'also two', 1)")
    with pytest.raises(ViewError, match=r"a join finds several partners"):
        plan.walk(server, opened(server), 50)
