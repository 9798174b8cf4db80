"""The key-value stores of the lab refuse what DynamoDB and MemoryDB refuse. Needs `python -m lab up`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError, ParamValidationError

from dbops import connections
from lab import config, dynamodb, env, processes, redis

pytestmark = pytest.mark.lab
KEY = {"id": {"S": "a"}}


@pytest.fixture
def store() -> Any:
    """An account of its own."""
    return dynamodb.client(f"test{uuid.uuid4().hex}")


@pytest.fixture
def table(store: Any) -> str:
    store.create_table(
        TableName="rides", BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )  # fmt: skip
    return "rides"


def refused(code: str, call: Any, **arguments: Any) -> Any:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert caught.value.response["Error"]["Code"] == code, caught.value
    return caught.value.response


@pytest.mark.parametrize("name", ["dynamodb", "redis"])
def test_a_store_listens_on_the_loopback_only(name: str) -> None:
    process = processes.find(name)
    assert process is not None
    listening = {each.laddr.ip for each in process.net_connections() if each.status == psutil.CONN_LISTEN}
    assert {ip.removeprefix("::ffff:") for ip in listening} == {config.HOST}


def test_the_connection_of_the_dags_leads_to_the_store_and_not_to_moto(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"lab-test-{uuid.uuid4().hex[:8]}"
    client = connections.aws_client("dynamodb")
    client.create_table(
        TableName=name, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )  # fmt: skip
    try:
        assert dynamodb.client().describe_table(TableName=name)["Table"]["TableStatus"] == "ACTIVE"
        assert name not in dynamodb.client(endpoint=config.aws_endpoint()).list_tables()["TableNames"]
        assert name not in dynamodb.client(region="us-east-1").list_tables()["TableNames"]
        assert name not in dynamodb.client("somebody").list_tables()["TableNames"]
    finally:
        client.delete_table(TableName=name)


def test_limits_of_items_and_keys(store: Any, table: str) -> None:
    def put(**attributes: Any) -> Any:
        return {"TableName": table, "Item": {**KEY, **attributes}}

    store.put_item(**put(text={"S": "x" * (400 * 1024 - 10)}))
    for attributes in (
        {"text": {"S": "x" * (400 * 1024)}}, {"id": {"S": ""}}, {"id": {"N": "1"}}, {"id": {"S": "x" * 2049}},
        {"number": {"N": "9" * 39}}, {"number": {"N": "1e126"}}, {"set": {"SS": []}}, {"set": {"SS": ["a", "a"]}},
    ):  # fmt: skip
        refused("ValidationException", store.put_item, **put(**attributes))
    deep: Any = {"S": "x"}
    for _ in range(32):
        deep = {"L": [deep]}
    refused("ValidationException", store.put_item, **put(deep=deep))


def test_conditions_return_what_is_there(store: Any, table: str) -> None:
    put = {
        "TableName": table, "ConditionExpression": "attribute_not_exists(id) OR v < :v",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD", "ReturnConsumedCapacity": "TOTAL",
    }  # fmt: skip
    done = store.put_item(**put, Item={**KEY, "v": {"N": "2"}}, ExpressionAttributeValues={":v": {"N": "2"}})
    assert done["ConsumedCapacity"]["CapacityUnits"] == 1
    arguments = {"Item": {**KEY, "v": {"N": "1"}}, "ExpressionAttributeValues": {":v": {"N": "1"}}}
    there = refused("ConditionalCheckFailedException", store.put_item, **put, **arguments)
    assert there["Item"] == {**KEY, "v": {"N": "2"}}
    unused = {**arguments["ExpressionAttributeValues"], ":w": {"N": "1"}}
    refused("ValidationException", store.put_item, **put, **{**arguments, "ExpressionAttributeValues": unused})


def test_batches_and_partiql(store: Any, table: str) -> None:
    def puts(*ids: str) -> dict[str, Any]:
        return {"RequestItems": {table: [{"PutRequest": {"Item": {"id": {"S": each}}}} for each in ids]}}

    store.batch_write_item(**puts(*(str(n) for n in range(25))))
    refused("ValidationException", store.batch_write_item, **puts("a", "a"))
    with pytest.raises((ClientError, ParamValidationError)):
        store.batch_write_item(**puts(*(str(n) for n in range(26))))
    insert = {"Statement": f"INSERT INTO \"{table}\" VALUE {{'id': ?}}"}
    answers = store.batch_execute_statement(
        Statements=[{**insert, "Parameters": [{"S": each}]} for each in ("24", "new")]
    )["Responses"]
    assert [each.get("Error", {}).get("Code") for each in answers] == ["DuplicateItem", None]


def test_a_store_takes_no_key_that_has_more_than_letters_and_digits() -> None:
    refused("UnrecognizedClientException", dynamodb.client("lab-key").list_tables)
    assert config.AWS_KEY.isalnum()


@pytest.fixture
def key() -> Iterator[str]:
    name = f"lab-test-{uuid.uuid4().hex}"
    yield name
    redis.ask(f"DEL {name}")


def test_redis_is_a_cluster_that_keeps_nothing(key: str) -> None:
    assert redis.ask(f"SET {key} 1") == b"+OK\r\n"
    assert redis.ask(f"MSET {key} 1 other 2").startswith(b"-CROSSSLOT")
    assert redis.ask("SELECT 1").startswith(b"-ERR")
    assert b"noeviction" in redis.ask("CONFIG GET maxmemory-policy")
    assert redis.ask("CONFIG GET save").endswith(b"$0\r\n\r\n")
    assert {entry.name for entry in (config.home() / "redis").iterdir()} <= {
        "nodes.conf",
        "redis-server",
        "dump.rdb",
    }, "the last one for a replica that a test was; a new process does not read it"


def test_the_connection_of_memorydb_leads_to_redis() -> None:
    connection = json.loads(env.environment()["AIRFLOW_CONN_MEMORYDB_DEFAULT"])
    assert (connection["host"], connection["port"]) == (config.HOST, config.port("redis"))
    assert connections.is_defined("memorydb_default")
    assert connections.extra("memorydb_default") == {"ssl": False, "dbops_backfill_allow": ["carshare:*"]}
