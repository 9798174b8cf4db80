"""The rules on DynamoDB Local and Redis in cluster mode: conditions, PartiQL, limits, and the state machine of a move."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from dbops.keyvalue import rules
from dbops.keyvalue.items import ITEM_BYTES, Item, Reject, canonical, item_size
from dbops.keyvalue.rules import Change, Condition, Names, Version, Write
from dbops.keyvalue.stores import DynamoStore, MemoryStore, RedisStore
from lab import config, dynamodb
from tests.keyvalue import keyvalue_kit as kit
from tests.keyvalue.keyvalue_machine import VIEW, Moving

pytestmark = pytest.mark.lab

NAMES = Names()
KEY: Item = {"pk": {"S": "USER#1"}}
ROW: Item = {"id": {"N": "1"}, "name": {"S": "Ann"}, "photo": {"B": b"\0\xff"}, "tags": {"SS": ["a", "b"]}}
QUICK = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


@pytest.fixture
def table() -> Iterator[DynamoStore]:
    client = dynamodb.client(f"k{uuid.uuid4().hex[:12]}")
    with kit.dynamodb_table(client, VIEW) as name:
        yield DynamoStore(client, name)


@pytest.fixture
def redis_client() -> Iterator[Any]:
    import redis

    client = redis.Redis(config.HOST, config.port("redis"))
    yield client
    client.close()


def items() -> Iterator[Item | None]:
    yield None
    for version, is_deleted in itertools.product(
        [None, Version(1), Version(2), Version(3), Version("000002")], (False, True)
    ):
        item: Item = {**KEY, "_deleted": {"BOOL": True}} if is_deleted else {**KEY, **ROW}
        yield {**item, **({"_v": version.attribute} if version else {})}


def test_dynamodb_takes_exactly_what_the_rules_take(table: DynamoStore) -> None:
    writes = [Write(KEY, Version(2), {"id": {"N": "1"}, "name": {"S": "new"}}), Write(KEY, Version(2))]
    for there, write, condition in itertools.product(items(), writes, Condition):
        seed(table, there)
        seen = Version(2) if condition is Condition.UNCHANGED else None
        expected, outcome = rules.put(condition, there, write, NAMES, seen=seen)
        found = table.put(write, condition, seen)
        assert found.reason == outcome.reason, (there, write, condition)
        assert canonical(table.get(KEY) or {}) == canonical(expected or {})
        assert outcome.is_written or canonical(found.there or {}) == canonical(there or {})


def test_dynamodb_changes_exactly_what_the_rules_change(table: DynamoStore) -> None:
    asked = Change(KEY, {"name": {"S": "new"}, "score": {"N": "1.5"}}, frozenset({"photo", "born"}))
    for there in items():
        seed(table, there)
        expected, outcome = rules.change(there, asked, NAMES)
        found = table.change(asked)
        assert found.reason == outcome.reason
        assert canonical(table.get(KEY) or {}) == canonical(expected or {})


def seed(table: DynamoStore, item: Item | None) -> None:
    table.client.delete_item(TableName=table.table, Key=KEY)
    if item is not None:
        table.client.put_item(TableName=table.table, Item=item)


def test_partiql_insert_is_attribute_not_exists(table: DynamoStore) -> None:
    write = Write(KEY, Version(1), {**ROW, "it's": {"S": "quoted"}}, "run")
    statement = rules.partiql_insert(table.table, write, NAMES)
    answer = table.client.batch_execute_statement(Statements=[statement])
    assert "Error" not in answer["Responses"][0]
    assert canonical(table.get(KEY) or {}) == canonical(rules.document(write, NAMES))
    answer = table.client.batch_execute_statement(Statements=[statement])
    assert answer["Responses"][0]["Error"]["Code"] == "DuplicateItem"


def test_partiql_replace_is_the_version_compare(table: DynamoStore) -> None:
    statement = rules.partiql_replace(
        table.table, Write(KEY, Version(2), {"name": {"S": "new"}}), VIEW.attribute_names, NAMES
    )
    for there in items():
        seed(table, there)
        version = rules.version_of(there, NAMES)
        try:
            table.client.execute_statement(**statement)
        except table.client.exceptions.ConditionalCheckFailedException:
            assert canonical(table.get(KEY) or {}) == canonical(there or {})
            assert version != Version(1)
        else:
            assert version == Version(1)
            assert canonical(table.get(KEY) or {}) == canonical({**KEY, "_v": {"N": "2"}, "name": {"S": "new"}})


@pytest.mark.parametrize(
    "item",
    [
        {"v": {"S": ""}}, {"v": {"S": "ü"}, "n": {"NULL": True}, "b": {"BOOL": False}}, {"n": {"N": "1"}}, {"n": {"N": "-123456789.5"}},
        {"n": {"N": "100"}}, {"n": {"N": "0"}}, {"n": {"N": "0.001"}}, {"n": {"N": "12345678901234567890123456789012345678"}},
        {"s": {"SS": ["a", "ü"]}, "m": {"NS": ["1", "2.5"]}}, {"l": {"L": []}, "m": {"M": {}}},
        {"m": {"M": {"a": {"L": [{"N": "1"}, {"S": "x"}, {"M": {"b": {"NULL": True}}}]}}}},
    ],
    ids=str,
)  # fmt: skip
def test_an_item_of_the_limit_is_taken_and_one_byte_more_is_not(table: DynamoStore, item: Item) -> None:
    """Where our count and the store's differ, it is the store that must take more: a row must not be rejected for nothing."""
    base: Item = {**KEY, "_v": {"N": "1"}, **item, "fill": {"B": b""}}
    fill = ITEM_BYTES - item_size(base)
    accepted = [size for size in range(fill - 12, fill + 12) if is_taken(table, {**base, "fill": {"B": b"x" * size}})]
    assert max(accepted) - fill in range(5)


def is_taken(table: DynamoStore, item: Item) -> bool:
    try:
        table.client.put_item(TableName=table.table, Item=item)
    except table.client.exceptions.ClientError as error:
        if "size has exceeded" in str(error):
            return False
        raise
    return True


def test_an_item_that_is_too_large_is_a_reject(table: DynamoStore) -> None:
    with pytest.raises(Reject, match="400 KB"):
        table.put(Write(KEY, Version(1), {"photo": {"B": b"x" * 420_000}}))


def test_a_move_on_dynamodb(table: DynamoStore) -> None:
    class OnDynamo(Moving):
        @staticmethod
        def make_store() -> DynamoStore:
            for item in table.client.scan(TableName=table.table, ConsistentRead=True)["Items"]:
                table.client.delete_item(TableName=table.table, Key={"pk": item["pk"]})
            return table

    run_state_machine_as_test(OnDynamo, settings=QUICK)


@pytest.mark.parametrize("layout", ["hash", "string"])
def test_a_move_on_redis(redis_client: Any, layout: Any) -> None:
    class OnRedis(Moving):
        @staticmethod
        def make_store() -> RedisStore:
            return RedisStore(redis_client, VIEW, f"{uuid.uuid4().hex}:", layout)

    run_state_machine_as_test(OnRedis, settings=QUICK)


@pytest.mark.parametrize("layout", ["hash", "string"])
def test_redis_in_cluster_mode_takes_exactly_what_memory_takes(redis_client: Any, layout: Any) -> None:
    redis_client.script_flush()
    store, memory = RedisStore(redis_client, VIEW, f"{uuid.uuid4().hex}:", layout), MemoryStore()
    for version, is_deleted, condition in itertools.product(
        (1, 3, 2, 3, 4), (False, True), (Condition.ABSENT, Condition.NEWER)
    ):
        write = Write(KEY, Version(version), None if is_deleted else ROW)
        assert store.put(write, condition).reason == memory.put(write, condition).reason
        assert canonical(store.get(KEY) or {}) == canonical(memory.get(KEY) or {})
