"""Records as DMS writes them, a table to apply them to, and an account that answers like DynamoDB."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from botocore.exceptions import ClientError
from cdc_apply import settings as told
from cdc_apply.handler import Batch
from cdc_apply.settings import Settings

SHARD = "shardId-000000000000"
NOW = 1_700_000_000.0
_numbers = itertools.count(49_600_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000_000)


def metadata(operation: str, table: str = "shop.rides", **more: Any) -> dict[str, Any]:
    schema, _, name = table.partition(".")
    return {
        "timestamp": "2026-11-29T10:00:00.000000Z",
        "record-type": "data",
        "operation": operation,
        "partition-key-type": "primary-key",
        "schema-name": schema,
        "table-name": name,
        **more,
    }


def change(
    operation: str, at: int, data: Mapping[str, Any], before: Mapping[str, Any] | None = None, **more: Any
) -> Any:
    """A record of CDC at an offset of the binary log."""
    place = {
        "transaction-id": (7 << 32) + at,
        "transaction-record-id": 1,
        "commit-timestamp": "2023-11-14T22:13:10.000000Z",
        "stream-position": f"mysql-bin-changelog.000007:{at}:-1:{at + 40}:{(7 << 32) + at}:mysql-bin-changelog.000007:{at - 60}",
    }
    made = {"data": {**data}, "metadata": metadata(operation, **{**place, **more})}
    if operation == "update":
        made["before-image"] = {**(before or {})}
    return made


def load(data: Mapping[str, Any], read_at: str = "2026-11-29T10:00:00.000000Z", **more: Any) -> Any:
    return {"data": {**data}, "metadata": metadata("load", timestamp=read_at, **more)}


def event(said: Any, sequence: int | None = None) -> dict[str, Any]:
    """The Kinesis record of a function's event; text and bytes are taken as they are."""
    data = said if isinstance(said, bytes) else (said if isinstance(said, str) else json.dumps(said)).encode()
    number = str(next(_numbers) if sequence is None else sequence)
    kinesis = {
        "kinesisSchemaVersion": "1.0",
        "partitionKey": "k",
        "sequenceNumber": number,
        "data": base64.b64encode(data).decode(),
        "approximateArrivalTimestamp": NOW,
    }
    return {
        "kinesis": kinesis,
        "eventID": f"{SHARD}:{number}",
        "eventSource": "aws:kinesis",
        "eventName": "aws:kinesis:record",
    }


def settings(table: Mapping[str, Any] | None = None, **more: Any) -> Settings:
    """Settings of the table shop.rides."""
    return told.parse({"tables": {"shop.rides": {"target": "rides", "key": {"pk": "{id}"}, **(table or {})}}, **more})


class Kept:
    """Where rejects go."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def put(self, table: str, sequence: str, event: Any, reason: str) -> None:
        self.found[sequence] = reason


def apply(client: Any, records: Iterable[Any], using: Settings, rejects: Any = None, remaining_ms: Any = None) -> Batch:
    """Apply records, or events that have their sequence number, in one batch."""
    batch = Batch(using, client, rejects, NOW, remaining_ms or (lambda: 60_000), io.StringIO())
    batch.response = batch.apply(
        each if isinstance(each, dict) and "kinesis" in each else event(each) for each in records
    )  # type: ignore[attr-defined]
    return batch


def error(code: str, message: str = "", **more: Any) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}, **more}, "PutItem")  # type: ignore[arg-type]


class FakeDynamo:
    """PutItem with the grammar of conditions that the function uses, and DynamoDB's order: types are not compared with each other."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], dict[str, Any]] = {}
        self.puts = 0

    def put_item(self, **asked: Any) -> None:
        self.puts += 1
        names, values = asked["ExpressionAttributeNames"], asked["ExpressionAttributeValues"]
        keys = [name for name in ("pk", "sk") if name in asked["Item"]]
        where = (asked["TableName"], json.dumps([asked["Item"][name] for name in keys], default=str))
        there = self.items.get(where, {})

        def value(name: str) -> Any:
            return there.get(names[name]) if name.startswith("#") else values[name]

        def compared(left: str, sign: str, right: str) -> bool:
            a, b = value(left), value(right)
            if a is None or b is None or a.keys() != b.keys():
                return False
            ((kind, x),), ((_, y),) = a.items(), b.items()
            x, y = (Decimal(x), Decimal(y)) if kind == "N" else (x, y)
            return bool(x < y if sign == "<" else x == y)

        text = asked["ConditionExpression"]
        text = re.sub(r"attribute_not_exists\((#\w+)\)", lambda m: str(value(m[1]) is None), text)
        text = re.sub(r"attribute_type\((#\w+), (:\w+)\)", lambda m: str(value(m[2])["S"] in (value(m[1]) or {})), text)
        text = re.sub(r"(#\w+) ([<=]) (:\w+)", lambda m: str(compared(m[1], m[2], m[3])), text)
        assert re.fullmatch(r"(True|False|AND|OR|[() ])+", text), text
        if not eval(text.replace("AND", "and").replace("OR", "or")):  # noqa: S307 - what it may hold was just checked
            raise error("ConditionalCheckFailedException", Item=there)
        self.items[where] = asked["Item"]

    def item(self, key: Any, table: str = "rides") -> dict[str, Any] | None:
        return self.items.get((table, json.dumps([key])))

    def hold(self, item: Any, table: str = "rides") -> None:
        """Somebody else's item."""
        self.items[table, json.dumps([item["pk"]])] = item


class Store:
    """The same face of the lab's DynamoDB, with the table ``rides`` whose key ``pk`` is a number."""

    def __init__(self, client: Any) -> None:
        self.client, self.puts = client, 0

    @contextmanager
    def table(self, name: str = "rides", kind: str = "N") -> Iterator[None]:
        self.client.create_table(
            TableName=name, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": kind}],
        )  # fmt: skip
        try:
            yield
        finally:
            self.client.delete_table(TableName=name)

    def put_item(self, **asked: Any) -> None:
        self.puts += 1
        self.client.put_item(**asked)

    def item(self, key: Any, table: str = "rides") -> Any:
        return self.client.get_item(TableName=table, Key={"pk": key}, ConsistentRead=True).get("Item")

    def hold(self, item: Any, table: str = "rides") -> None:
        self.client.put_item(TableName=table, Item=item)
