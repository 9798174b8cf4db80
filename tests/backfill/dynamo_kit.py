"""A DynamoDB in memory, under the rules themselves, that turns calls away as it is told to; and what a copy needs beside it."""

from __future__ import annotations

import re
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from dbops.backfill import dynamodb
from dbops.backfill.target import Pressure
from dbops.keyvalue import rules, views
from dbops.keyvalue.items import ITEM_BYTES, Item, canonical, item_size
from dbops.keyvalue.rules import Condition, Names, Version, Write
from dbops.mysql import Column

NAMES = Names()
VIEW = views.view(
    [Column("id", "bigint", "bigint(20)", nullable=False), Column("name", "varchar", "varchar(40)", nullable=True)],
    {"pk": "USER#{id}"},
)
Answer = dict[str, Any]
Fault = Callable[[Answer, Callable[[], Answer]], Answer]
"""Gets the arguments of a call and what carries it out."""


def key(number: int) -> Item:
    return {"pk": {"S": f"USER#{number}"}}


def write(number: int, version: int = 1, name: str = "Ann", stamp: str = "run") -> Write:
    return Write(key(number), Version(version), {"id": {"N": str(number)}, "name": {"S": name}}, stamp)


def tombstone(number: int, version: int = 1) -> Write:
    return Write(key(number), Version(version))


def client_error(
    code: str, message: str = "no", status: int = 400, reasons: Sequence[tuple[str, str]] = (), item: Item | None = None
) -> ClientError:
    response: Answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    if reasons:
        response["ThrottlingReasons"] = [{"reason": reason, "resource": resource} for reason, resource in reasons]
    if item is not None:
        response["Item"] = item
    return ClientError(response, "Call")  # type: ignore[arg-type]


def refused(code: str, message: str = "no", status: int = 400, reasons: Sequence[tuple[str, str]] = ()) -> Fault:
    """The call fails, and nothing was done."""

    def fault(arguments: Answer, carry_out: Callable[[], Answer]) -> Answer:
        raise client_error(code, message, status, reasons)

    return fault


def lost_answer(arguments: Answer, carry_out: Callable[[], Answer]) -> Answer:
    """The call is carried out, and nobody hears of it."""
    carry_out()
    raise ReadTimeoutError(endpoint_url="http://dynamodb")


def broken(arguments: Answer, carry_out: Callable[[], Answer]) -> Answer:
    """The connection breaks before anything is done."""
    raise ConnectionClosedError(endpoint_url="http://dynamodb")


def statements(errors: dict[int, tuple[str, str]]) -> Fault:
    """Statements at these places fail with code and message; the others are carried out."""

    def fault(arguments: Answer, carry_out: Callable[[], Answer]) -> Answer:
        asked = arguments["Statements"]
        good = [each for place, each in enumerate(asked) if place not in errors]
        arguments["Statements"] = good
        answers = iter(carry_out()["Responses"] if good else [])
        made = []
        for place in range(len(asked)):
            if place in errors:
                code, message = errors[place]
                made.append({"Error": {"Code": code, "Message": message}})
            else:
                made.append(next(answers))
        return {"Responses": made}

    return fault


@dataclass
class FakeDynamo:
    """The calls of the client that the target uses."""

    items: dict[str, Item] = field(default_factory=dict)
    faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    """Operation -> what happens to its next calls."""
    calls: Counter[str] = field(default_factory=Counter)
    sizes: list[int] = field(default_factory=list)
    """Statements of each batch."""
    history: dict[str, list[Item]] = field(default_factory=lambda: defaultdict(list))
    """Every state that an item had."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def seed(self, item: Item) -> None:
        self.items[canonical({"pk": item["pk"]})] = item

    def item(self, number: int) -> Item | None:
        return self.items.get(canonical(key(number)))

    def batch_execute_statement(self, **arguments: Any) -> Answer:
        return self._call("batch_execute_statement", arguments, self._statements)

    def put_item(self, **arguments: Any) -> Answer:
        return self._call("put_item", arguments, self._put)

    def batch_get_item(self, **arguments: Any) -> Answer:
        return self._call("batch_get_item", arguments, self._get)

    def scan(self, **arguments: Any) -> Answer:
        return self._call("scan", arguments, lambda _: {"Items": list(self.items.values())})

    def delete_item(self, **arguments: Any) -> Answer:
        return self._call("delete_item", arguments, self._delete)

    def _call(self, operation: str, arguments: Answer, carry_out: Callable[[Answer], Answer]) -> Answer:
        with self.lock:
            self.calls[operation] += 1
            fault = self.faults[operation].popleft() if self.faults[operation] else None
            if fault is not None:
                return fault(arguments, lambda: carry_out(arguments))
            return carry_out(arguments)

    def _statements(self, arguments: Answer) -> Answer:
        asked = arguments["Statements"]
        self.sizes.append(len(asked))
        if not 1 <= len(asked) <= 25 or any(len(each["Statement"]) > 8192 for each in asked):
            raise client_error("ValidationException", "Member must have length less than or equal to")
        items = [self._inserted(each) for each in asked]
        if len({canonical({"pk": item["pk"]}) for item in items}) < len(items):
            raise client_error("ValidationException", "Provided list of item keys contains duplicates")
        if any(item.get("name") == {"N": "1e400"} for item in items):
            raise client_error("ValidationException", "Number overflow. 1e400")
        return {"Responses": [self._insert(item) for item in items]}

    def _inserted(self, asked: Answer) -> Item:
        names = re.findall(r"'((?:[^']|'')*)': \?", asked["Statement"])
        return dict(zip(names, asked["Parameters"], strict=True))

    def _insert(self, item: Item) -> Answer:
        if item_size(item) > ITEM_BYTES:
            return {
                "Error": {
                    "Code": "ValidationError",
                    "Message": "Item size has exceeded the maximum allowed size",
                }
            }
        if canonical({"pk": item["pk"]}) in self.items:
            return {"Error": {"Code": "DuplicateItem", "Message": "Duplicate primary key exists in table"}}
        self._keep(item)
        return {"TableName": "users"}

    def _put(self, arguments: Answer) -> Answer:
        item = arguments["Item"]
        if item.get("name") == {"N": "1e400"}:
            raise client_error("ValidationException", "Number overflow. 1e400")
        there = self.items.get(canonical({"pk": item["pk"]}))
        version = rules.version_of(item, NAMES)
        assert version is not None
        meant = Write({"pk": item["pk"]}, version, None if NAMES.deleted in item else {})
        if not rules.holds(Condition.NEWER, there, meant, NAMES):
            raise client_error("ConditionalCheckFailedException", item=there)
        self._keep(item)
        return {}

    def _delete(self, arguments: Answer) -> Answer:
        there, asked = self.items.get(canonical(arguments["Key"])), arguments["ExpressionAttributeValues"]
        mine = {NAMES.stamp: asked[":stamp"], NAMES.version: asked[":version"]}
        if there is None or NAMES.deleted in there or not mine.items() <= there.items():
            raise client_error("ConditionalCheckFailedException", item=there)
        del self.items[canonical(arguments["Key"])]
        return {}

    def _keep(self, item: Item) -> None:
        place = canonical({"pk": item["pk"]})
        self.items[place] = item
        self.history[place].append(item)

    def _get(self, arguments: Answer) -> Answer:
        ((table, asked),) = arguments["RequestItems"].items()
        assert asked["ConsistentRead"]
        assert len(asked["Keys"]) <= 100
        found = [self.items[canonical(each)] for each in asked["Keys"] if canonical(each) in self.items]
        return {"Responses": {table: list(reversed(found))}}


@dataclass
class Purse:
    """A pace that only counts."""

    units: float = 0.0
    spent: list[float] = field(default_factory=list)
    eased_by: list[tuple[Pressure, float]] = field(default_factory=list)

    def spend(self, units: float) -> None:
        self.units += units
        self.spent.append(units)

    def eased(self, pressure: Pressure, refused_units: float) -> None:
        self.eased_by.append((pressure, refused_units))


def target(
    client: FakeDynamo, *, max_wait_s: float = 60.0, threads: int = 4, reads: Purse | None = None
) -> dynamodb.DynamoTarget:
    """A target whose pauses take no time but on its own clock."""
    clock = [0.0]

    def pause(seconds: float) -> None:
        clock[0] += seconds

    return dynamodb.DynamoTarget(
        client, "users", VIEW, threads=threads, reads=reads, max_wait_s=max_wait_s, monotonic=lambda: clock[0], pause=pause,
        jitter=lambda: 1.0,
    )  # fmt: skip
