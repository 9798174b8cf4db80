"""The judge. It shares nothing with what it judges: a client of its own, conversions of its own, and the store's own word about every state
that an item ever had. It imports nothing of dbops.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import MySQLdb

from lab import aws, config, dynamodb
from lab.config import HOST

Item = dict[str, Any]
Kinds = Mapping[str, str]
MARKS = frozenset({"_v", "_deleted", "_exp", "_bf"})
CLASSES = ("equal", "source_newer", "target_newer", "missing", "extra", "converter", "unversioned")
PLACE = re.compile(r"\{(\w+)(:pad)?\}")
DIGITS = 20


@dataclass(frozen=True)
class Finding:
    """Something that must not be."""

    what: str
    key: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.key} {self.detail}".rstrip()


@dataclass(frozen=True)
class Verdict:
    """What the judge found."""

    classes: Counter[str]
    """Rows and items by class, in the words of the backfill's verification."""
    states: int
    """States of items that were looked at."""
    items: int
    """That there are, with tombstones."""
    tombstones: int
    findings: tuple[Finding, ...]


# --- a row of MySQL as the item that there has to be --------------------------------------------------------------------


def rows(schema: str, table: str, columns: Iterable[str], port: int) -> list[dict[str, Any]]:
    """Every row, as MySQL has it now."""
    names = [*columns, "row_version"]
    texts = {"at", "paid_at", "track"}
    selected = ", ".join(f"CAST(`{name}` AS CHAR)" if name in texts else f"`{name}`" for name in names)
    with (
        closing(
            MySQLdb.connect(
                host=HOST, port=port, user="root", charset="utf8mb4", init_command="SET time_zone = '+00:00'"
            )
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(f"SELECT {selected} FROM `{schema}`.`{table}`")
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def item_of(row: Mapping[str, Any], kinds: Kinds) -> Item:
    """The attributes of a row, without key and version."""
    return {name: made for name, kind in kinds.items() if (made := attribute(kind, row[name])) is not None}


def attribute(kind: str, value: Any) -> dict[str, Any] | None:
    """A value as DynamoDB has to have it; None for an attribute that is left out."""
    if value is None or (kind == "set" and not value):
        return None
    if kind in ("integer", "number"):
        return {"N": plain(value)}
    if kind == "json":
        return document(json.loads(value, parse_float=Decimal) if isinstance(value, str | bytes) else value)
    if kind == "boolean":
        return {"BOOL": value not in (0, b"\x00")}
    if kind == "set":
        return {"SS": sorted(value.split(",") if isinstance(value, str) else value)}
    if kind == "binary":
        return {"B": bytes(value)}
    return {"S": text(value)}


def text(value: Any) -> str:
    """Times have six decimals and a Z."""
    if isinstance(value, datetime):
        return value.isoformat("T", "microseconds") + "Z"
    if re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}", value):
        return str(value).replace(" ", "T") + "Z"
    return str(value)


def plain(number: Any) -> str:
    """Without exponent, and without zeros at the end."""
    found = f"{Decimal(repr(number) if isinstance(number, float) else number):f}"
    return (found.rstrip("0").rstrip(".") or "0") if "." in found else found


def document(value: Any) -> dict[str, Any]:
    """JSON."""
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case int() | Decimal():
            return {"N": plain(value)}
        case str():
            return {"S": value}
        case list():
            return {"L": [document(each) for each in value]}
    return {"M": {name: document(each) for name, each in value.items()}}


def key_of(template: Mapping[str, str], row: Mapping[str, Any]) -> str:
    """The key as one text; numbers need no escape."""
    return "|".join(
        PLACE.sub(lambda found: str(row[found[1]]).rjust(DIGITS if found[2] else 0, "0"), text)
        for text in template.values()
    )


def canonical(value: Any) -> Any:
    """Numbers in one form, sets in order."""
    if isinstance(value, dict):
        return {
            name: plain(Decimal(each)) if name == "N" and isinstance(each, str)
            else sorted(each) if name == "SS" else canonical(each)
            for name, each in value.items()
        }  # fmt: skip
    return [canonical(each) for each in value] if isinstance(value, list) else value


# --- what there is, and what there has been -----------------------------------------------------------------------------


class DynamoTable:
    """A table of DynamoDB with its stream.

    Args:
        table: name of it
        names: of its key attributes
        key: access key of the account
    """

    def __init__(self, table: str, names: Iterable[str], key: str) -> None:
        self.table, self.names = table, tuple(names)
        self.client = dynamodb.client(key)
        self.streams = aws.client("dynamodbstreams", config.dynamodb_endpoint(), key=key)

    def items(self) -> dict[str, Item]:
        """All items by key."""
        pages = self.client.get_paginator("scan").paginate(TableName=self.table, ConsistentRead=True)
        return {self._key(item): item for page in pages for item in page["Items"]}

    def history(self) -> list[tuple[str, Item | None, Item | None]]:
        """Every change: key, the item before and after it."""
        arn, found = self.client.describe_table(TableName=self.table)["Table"]["LatestStreamArn"], []
        for shard in self._shards(arn):
            where = {"StreamArn": arn, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
            iterator = self.streams.get_shard_iterator(**where)["ShardIterator"]
            while iterator:
                answer = self.streams.get_records(ShardIterator=iterator, Limit=1000)
                for each in answer["Records"]:
                    told = each["dynamodb"]
                    found.append((self._key(told["Keys"]), told.get("OldImage"), told.get("NewImage")))
                iterator = answer.get("NextShardIterator") if answer["Records"] else None
        return found

    def _shards(self, arn: str) -> list[str]:
        shards: list[str] = []
        asked = {"StreamArn": arn}
        while asked:
            page = self.streams.describe_stream(**asked)["StreamDescription"]
            shards += [each["ShardId"] for each in page["Shards"]]
            last = page.get("LastEvaluatedShardId")
            asked = {"StreamArn": arn, "ExclusiveStartShardId": last} if last else {}
        return shards

    def _key(self, item: Item) -> str:
        return "|".join(item[name]["S"] for name in self.names)


def rank(item: Item) -> tuple[Decimal, bool]:
    """How new a state is: the version; of one version the deletion is the newer."""
    return Decimal(item["_v"]["N"]), "_deleted" in item


def past(history: Iterable[tuple[str, Item | None, Item | None]]) -> list[Finding]:
    """What no item may ever have gone through."""
    found = []
    for key, old, new in history:
        if new is None:
            found.append(Finding("removed", key, "an item was taken away: a tombstone has to stay"))
        elif "N" not in new.get("_v", {}):
            found.append(Finding("unversioned write", key))
        elif old is not None and rank(new) <= rank(old):
            is_back = "_deleted" in old and "_deleted" not in new
            what = "resurrected" if is_back else "older over newer" if rank(new) < rank(old) else "rewritten"
            found.append(Finding(what, key, f"{rank(old)[0]} -> {rank(new)[0]}"))
    return found


def strange(
    history: Iterable[tuple[str, Item | None, Item | None]],
    states: Mapping[tuple[str, int], Item],
    names: Iterable[str],
) -> list[Finding]:
    """Live items that MySQL never had: of a transaction that was rolled back, or with parts of two versions.

    Args:
        history: every change of the store
        states: what MySQL has had, by key and version
        names: key attributes
    """
    found, keys = [], {*names, *MARKS}
    for key, _, new in history:
        if new is None or "_deleted" in new or "N" not in new.get("_v", {}):
            continue
        had = states.get((key, int(new["_v"]["N"])))
        content = {name: value for name, value in new.items() if name not in keys}
        if had is None or canonical(content) != canonical(had):
            found.append(Finding("never in MySQL", key, f"version {new['_v']['N']}"))
    return found


# --- the verdict --------------------------------------------------------------------------------------------------------


def classify(expected: Item | None, version: int, item: Item | None, names: Iterable[str]) -> str:
    """One row and one item."""
    if item is None or (expected is None and "_deleted" in item):
        return "missing" if expected is not None else "equal"
    if expected is None:
        return "extra"
    if "N" not in item.get("_v", {}):
        return "unversioned"
    there = int(item["_v"]["N"])
    if there != version:
        return "source_newer" if there < version else "target_newer"
    if "_deleted" in item:
        return "missing"
    found = {name: value for name, value in item.items() if name not in MARKS and name not in names}
    return "equal" if canonical(found) == canonical(expected) else "converter"


def judge(
    expected: Mapping[str, tuple[Item, int | None]],
    items: Mapping[str, Item],
    history: Iterable[tuple[str, Item | None, Item | None]],
    names: Iterable[str],
    find: Callable[[str], bool] = lambda found: found != "equal",
) -> Verdict:
    """Compare every key of both sides.

    Args:
        expected: attributes and version by key; a version of None says that only the content counts
        items: what the store has
        history: every change of the store
        names: key attributes
        find: which classes are findings
    """
    names, changes = tuple(names), list(history)
    classes: Counter[str] = Counter(dict.fromkeys(CLASSES, 0))
    found = past(changes)
    for key in expected.keys() | items.keys():
        row, version = expected.get(key, (None, 0))
        item = items.get(key)
        at = version if version is not None else int((item or {}).get("_v", {"N": "0"}).get("N", 0))
        classed = classify(row, at, item, names)
        classes[classed] += 1
        if find(classed):
            found.append(Finding(classed, key, f"row {version}, item {(item or {}).get('_v')}"))
    buried = sum("_deleted" in item for item in items.values())
    return Verdict(classes, len(changes), len(items), buried, tuple(found))
