"""MySQL 5.7 -> DMS -> Kinesis -> cdc_redis -> Redis, and the backfill of the same rows: the same bytes under every key."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dbops.backfill.redis_target import RedisTarget
from dbops.keyvalue import views
from dbops.keyvalue.codec import Policy
from dbops.keyvalue.stores import RedisStore
from dbops.keyvalue.views import Loaded, View
from dbops.mysql import read_table
from lab import config, lambda_runner
from lab.lambda_runner import Deployed, EventSource, Runner
from tests.backfill import redis_kit
from tests.lab.dms_kit import ROLE, Dms

pytestmark = pytest.mark.lab
TABLE = """
CREATE TABLE {s}.rides (
  id BIGINT UNSIGNED PRIMARY KEY, at DATETIME(6), day DATE, since DATETIME, seen TIMESTAMP(3) NULL, lasted TIME(3), price DECIMAL(12,2),
  huge DECIMAL(65,30), distance DOUBLE, ratio FLOAT, note MEDIUMTEXT, word VARCHAR(20) CHARACTER SET latin1, ticket VARBINARY(12),
  code BINARY(4), extras SET('child seat', 'roof box'), kind ENUM('a', 'b'), track JSON, active BIT(1), small TINYINT, y YEAR,
  row_version BIGINT NOT NULL
) CHARACTER SET utf8mb4
"""
ROWS = [
    {
        "id": 2**64 - 7, "at": "2024-01-11 10:20:30.123456", "day": "2024-02-29", "since": "2024-01-11 10:20:30",
        "seen": "2024-01-11 10:20:30.120", "lasted": "-12:59:59.5", "price": "12.50", "huge": "1.000000000000000000000000000001",
        "distance": "0.1", "ratio": "0.1", "note": "Köln 🚲", "word": "é", "ticket": b"\0\xff\0", "code": b"a",
        "extras": "roof box,child seat", "kind": "b", "track": '{"b": [1, 2.50, null], "a": "x"}', "active": 1, "small": -5,
        "y": 2024, "row_version": 1,
    },
    {"id": 2, "note": "", "extras": "", "ticket": b"", "track": "[]", "active": 0, "distance": "1e20", "price": "-0.00", "row_version": 2},
    {"id": 3, "row_version": 3},
    {"id": 4, "price": "9999999999.99", "distance": "-2.5e-7", "note": "x" * 3000, "row_version": 4},
]  # fmt: skip
GIVEN_UP_S = 120


@pytest.fixture
def lab(dms_account: Dms) -> Iterator[Dms]:
    with dms_account.settled():
        yield dms_account


def make_task(lab: Dms, schema: str) -> str:
    kinesis = lab.client("kinesis")
    kinesis.create_stream(StreamName=schema, ShardCount=2)
    arn = kinesis.describe_stream_summary(StreamName=schema)["StreamDescriptionSummary"]["StreamARN"]
    endpoint = lab.make_endpoint("target", EngineName="kinesis", KinesisSettings={
        "StreamArn": arn, "MessageFormat": "json", "ServiceAccessRoleArn": ROLE, "IncludeTransactionDetails": True,
        "IncludeNullAndEmpty": True, "UseLargeIntegerValue": True, "PartitionIncludeSchemaTable": True,
    })  # fmt: skip
    by_key = {
        "rule-type": "object-mapping", "rule-action": "map-record-to-record",
        "object-locator": {"schema-name": schema, "table-name": "%"},
        "mapping-parameters": {"partition-key-type": "primary-key"},
    }  # fmt: skip
    return lab.task(
        schema, endpoint, rules=[by_key],
        BeforeImageSettings={"EnableBeforeImage": True, "FieldName": "before-image", "ColumnFilter": "pk-only"},
        TargetMetadata={"LobMaxSize": 1000},
    )  # fmt: skip


def execute(lab: Dms, statement: str, *arguments: Any) -> None:
    with closing(lab.source.connect(init_command="SET sql_log_bin = 1", autocommit=True)) as connection:
        connection.cursor().execute(statement, arguments)


def insert(lab: Dms, schema: str, row: dict[str, Any]) -> None:
    places = ", ".join(["%s"] * len(row))
    execute(lab, f"INSERT INTO {schema}.rides ({', '.join(row)}) VALUES ({places})", *row.values())


def read(lab: Dms, schema: str, view: View) -> dict[int, Loaded]:
    """The rows as a backfill reads them."""
    columns = ", ".join(f"{codec.select_sql}" for codec in view.codecs)
    with closing(lab.source.connect(init_command="SET time_zone = '+00:00'", charset="utf8mb4")) as connection:
        cursor = connection.cursor()
        cursor.execute(f"SELECT row_version, {columns} FROM {schema}.rides")
        return {row[1]: Loaded(dict(zip(view.by_name, row[1:], strict=True)), row[0]) for row in cursor.fetchall()}


@pytest.mark.parametrize("layout", ["hash", "string"])
def test_stream_and_backfill_leave_the_same_bytes(lab: Dms, layout: Any, tmp_path: Path) -> None:
    schema, prefix = lab.schema(TABLE), f"{uuid.uuid4().hex}:"
    for row in ROWS[:2]:
        insert(lab, schema, row)
    with closing(lab.source.connect(charset="utf8mb4")) as connection:
        columns = [each for each in read_table(connection, schema, "rides").columns if each.name != "row_version"]
    policy = {"nulls": "null", "json": "text"}  # NULL of a JSON column is one thing then
    view = views.view(columns, {"key": "{id}"}, policy=Policy(**policy))  # type: ignore[arg-type]
    types = {each.name: f"{each.column_type}{'' if each.nullable else ' not null'}" for each in columns}
    table = {
        "prefix": prefix, "layout": layout, "key": "{id}", "columns": types, "version": {"column": "row_version"}, "policy": policy,
        "lobs": {"note": 1000, "track": 1000},
    }  # fmt: skip
    address = {"host": config.HOST, "port": config.port("redis"), "ssl": False, "cluster": True}
    told = {"tables": {f"{schema}.rides": table}, "redis": address}
    function = Deployed(
        lambda_runner.package_cdc_redis(tmp_path / "cdc_redis.zip"), "cdc_redis.handler.lambda_handler",
        {"CDC_SETTINGS": json.dumps(told)}, tmp_path / "function.log", 60,
    )  # fmt: skip
    client = redis_kit.Server(config.port("redis"), tmp_path).client()
    task, kinesis = make_task(lab, schema), lab.client("kinesis")
    try:
        with Runner(kinesis, function, EventSource(schema, 100, maximum_retry_attempts=3)) as runner:
            lab.run(task)
            lab.until(lambda: lab.is_loaded(task), GIVEN_UP_S)
            for row in ROWS[2:]:
                insert(lab, schema, row)
            insert(lab, schema, {"id": 5, "row_version": 5})
            execute(lab, f"UPDATE {schema}.rides SET note = 'changed', row_version = 6 WHERE id = 2")
            execute(lab, f"DELETE FROM {schema}.rides WHERE id = 5")
            execute(lab, f"UPDATE {schema}.rides SET id = 30, row_version = 7 WHERE id = 3")
            lab.until(lambda: client.exists(f"{prefix}30") and is_tombstone(client, f"{prefix}5", layout), GIVEN_UP_S)
            runner.drain(GIVEN_UP_S)
    finally:
        function.close()
        lab.stop(task)
    assert "rejected" not in (tmp_path / "function.log").read_text()
    found = read(lab, schema, view)
    assert found.keys() == {2**64 - 7, 2, 30, 4}
    own = f"{uuid.uuid4().hex}:"
    target = RedisTarget(RedisStore(client, view, own, layout), 1)
    sent = target.write([view.write(each) for each in found.values()], redis_kit.Steady())
    assert all(each.is_written for each in sent.outcomes)
    for number in found:
        assert raw(client, f"{prefix}{number}", layout) == raw(client, f"{own}{number}", layout)
    assert {key for key in (3, 5) if is_tombstone(client, f"{prefix}{key}", layout)} == {3, 5}
    late = RedisTarget(RedisStore(client, view, prefix, layout), 1)
    sent = late.write([view.write(each, stamp="plan") for each in found.values()], redis_kit.Steady())
    assert [each.reason for each in sent.outcomes] == ["equal"] * 4


def is_tombstone(client: Any, key: str, layout: str) -> bool:
    return bool(client.hexists(key, "_deleted") if layout == "hash" else b'"_deleted":' in (client.get(key) or b""))


def raw(client: Any, key: str, layout: str) -> Any:
    found = client.hgetall(key) if layout == "hash" else client.get(key)
    assert found
    return found
