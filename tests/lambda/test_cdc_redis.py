"""The function that applies DMS's Kinesis records to Redis: the same final state as cdc_apply's, the same bytes as a backfill's."""

from __future__ import annotations

import io
import json
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import cdc_kit
import pytest
from cdc_apply.settings import SettingsError
from cdc_kit import FakeDynamo, Kept, change, load
from cdc_redis import handler, settings
from cdc_redis.settings import Settings
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from dbops.backfill.redis_target import RedisTarget
from dbops.keyvalue import rules, views
from dbops.keyvalue.items import canonical
from dbops.keyvalue.stores import RedisStore
from dbops.keyvalue.views import Loaded
from lab import config
from tests.backfill import redis_kit

START = 1000
COLUMNS = {"id": "bigint(20) unsigned", "value": "int(11)", "city": "varchar(40)"}
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "update", "delete", "move"]), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2)
    ),
    max_size=12,
)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with redis_kit.server() as server:
        yield server.client()


def told(**table: Any) -> Settings:
    plain = {"prefix": f"{uuid.uuid4().hex}:", "key": "{id}", "columns": COLUMNS, **table}
    return settings.parse({"tables": {"shop.rides": plain}, "redis": {"host": "h"}, "threads": 2})


def apply(using: Settings, client: Any, records: Sequence[Any], rejects: Any = None, **more: Any) -> handler.Batch:
    batch = handler.Batch(
        using.cdc, None, rejects, more.get("now_s", cdc_kit.NOW), more.get("remaining_ms", lambda: 60_000), io.StringIO(),
        tables=using.tables, stores=handler.stores(using, client),
    )  # fmt: skip
    events = [each if isinstance(each, dict) and "kinesis" in each else cdc_kit.event(each) for each in records]
    batch.response = batch.apply(events)  # type: ignore[attr-defined]
    return batch


def items(using: Settings, client: Any) -> dict[str, Any]:
    table = using.tables["shop.rides"]
    target = RedisTarget(RedisStore(client, table.view, table.prefix, table.layout), 1)  # type: ignore[arg-type]
    return {item["key"]["N"]: item for page in target.scan(0, 1) for item in page.items}


class Source:
    """A table with a binary log; `records` is what DMS makes of it."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self.at, self.rev, self.records = START, 0, list[Any]()

    def run(self, steps: Sequence[tuple[str, int, int, int]]) -> None:
        for operation, key, other, value in steps:
            self.at += 50
            self.rev += 1
            there, row = (
                self.rows.get(key),
                {"id": key, "value": value or None, "city": f"city {value}", "rev": self.rev},
            )
            if operation in ("insert", "update") and (there is None) == (operation == "insert"):
                self.rows[key] = row
                self.records.append(change(operation, self.at, row))
            elif operation == "delete" and there is not None:
                self.records.append(change("delete", self.at, self.rows.pop(key)))
            elif operation == "move" and there is not None and other not in self.rows:
                del self.rows[key]
                self.rows[other] = {**row, "id": other}
                self.records.append(change("update", self.at, self.rows[other], {"id": key}))

    def load(self, read_at: int) -> None:
        self.records += [load(row, f"2026-11-29T10:00:00.{read_at:06d}Z") for row in self.rows.values()]


def delivered(records: Sequence[Any], data: st.DataObject) -> list[Any]:
    again = data.draw(st.lists(st.sampled_from(records), max_size=6)) if records else []
    return [cdc_kit.event(each, 100 + n) for n, each in enumerate(data.draw(st.permutations([*records, *again])))]


@pytest.mark.parametrize("layout", ["hash", "string"])
@pytest.mark.parametrize("version", ["log", {"column": "rev"}], ids=["by log", "by column"])
@given(before=STEPS, after=STEPS, data=st.data())
@examples(max_examples=60, deadline=None)
def test_the_final_state_is_that_of_cdc_apply_whatever_the_order(
    layout: str, version: Any, client: Any, before: Any, after: Any, data: st.DataObject
) -> None:
    source = Source()
    source.run(before)
    source.load(1)
    source.run(after)
    source.load(2)
    shared = {"version": version, "load_position": f"mysql-bin-changelog.000007:{START}"}
    kinds = {"id": "integer", "value": "integer", "city": "string"}
    mine = told(layout=layout, **shared)
    theirs = cdc_kit.settings({"key": {"key": "{id}"}, "columns": kinds, "exclude": ["rev"], **shared}, threads=1)
    dynamo, kept = FakeDynamoByKey(), Kept()
    sizes = data.draw(st.lists(st.integers(1, 9), max_size=8))
    for using, batches in (
        (theirs, cut(delivered(source.records, data), sizes)),
        (mine, cut(delivered(source.records, data), sizes)),
    ):
        for batch in batches:
            done: Any = (
                apply(mine, client, batch, kept) if using is mine else cdc_kit.apply(dynamo, batch, theirs, kept)
            )
            assert done.response == {"batchItemFailures": []}
    assert kept.found == {}
    expected = {item["key"]["N"]: canonical(item) for item in dynamo.items.values()}
    assert {key: canonical(item) for key, item in items(mine, client).items()} == expected
    assert {int(key) for key, item in expected.items() if "_deleted" not in item} == source.rows.keys()


class FakeDynamoByKey(FakeDynamo):
    """Its key is called ``key``, as that of a Redis item."""

    def put_item(self, **asked: Any) -> None:
        item = {"pk": asked["Item"]["key"], **asked["Item"]}
        super().put_item(**{**asked, "Item": item})
        for item in self.items.values():
            item.pop("pk", None)


def cut(events: Sequence[Any], sizes: Sequence[int]) -> list[list[Any]]:
    made, rest = [], [*events]
    for size in [*sizes, len(rest)]:
        if rest:
            made.append(rest[:size])
            rest = rest[size:]
    return made


TYPES = {
    "id": "bigint(20) unsigned", "at": "datetime(6)", "day": "date not null", "since": "datetime", "lasted": "time(3)",
    "price": "decimal(12,2)", "huge": "decimal(65,30)", "distance": "double", "ratio": "float", "note": "mediumtext",
    "ticket": "varbinary(12)", "extras": "set('child seat','roof box')", "kind": "enum('a','b')", "track": "json", "active": "bit(1)",
    "flags": "bit(9)", "y": "year(4)",
}  # fmt: skip
MYSQL = {
    "id": 2**64 - 5, "at": "2024-01-11 10:20:30.123456", "day": "2024-02-29", "since": "2024-01-11 10:20:30", "lasted": "-838:59:59.000",
    "price": Decimal("12.50"), "huge": Decimal("1.5"), "distance": 1e300, "ratio": 0.1, "note": "Köln 🚲", "ticket": b"\0\xff\0",
    "extras": "roof box,child seat", "kind": "b", "track": '{"b": [1, 2.50, null], "a": "x"}', "active": b"\1", "flags": b"\1\0",
    "y": 2024,
}  # fmt: skip
OF_DMS = {
    "id": 2**64 - 5, "at": "2024-01-11T10:20:30.123456Z", "day": "2024-02-29", "since": "2024-01-11T10:20:30.000000Z",
    "lasted": "-838:59:59.000", "price": "12.5", "huge": 1.5, "distance": 1e300, "ratio": 0.1, "note": "Köln 🚲", "ticket": "0x00ff00",
    "extras": "child seat,roof box", "kind": "b", "track": '{"a":"x","b":[1,2.5,null]}', "active": 1, "flags": 256, "y": 2024,
}  # fmt: skip
EMPTY: dict[str, Any] = {**dict.fromkeys(TYPES), "id": 7, "day": "2024-01-01"}
PARTLY = {**EMPTY, "note": "", "extras": "", "ticket": b"", "track": "[]"}
PARTLY_OF_DMS = {**PARTLY, "ticket": "0x"}


@pytest.mark.parametrize("layout", ["hash", "string"])
@pytest.mark.parametrize("nulls", ["omit", "null"])
@pytest.mark.parametrize("key", ["{id}", "RIDE#{since}#{id:20}"], ids=["plain", "template"])
@pytest.mark.parametrize(
    ("row", "said"), [(MYSQL, OF_DMS), (EMPTY, EMPTY), (PARTLY, PARTLY_OF_DMS)], ids=["values", "nulls", "empty"]
)
def test_a_row_is_the_same_bytes_by_stream_and_by_backfill(
    client: Any, layout: str, nulls: str, key: str, row: Any, said: Any
) -> None:
    if key != "{id}":
        row, said = {**row, "since": MYSQL["since"]}, {**said, "since": OF_DMS["since"]}
    policy = {"nulls": nulls, **({"json": "text"} if nulls == "null" else {})}
    using = told(layout=layout, key=key, columns=TYPES, policy=policy, version={"column": "rev"})
    record = change("insert", 2000, {**said, "rev": 5, "not selected": "x"})
    kept = Kept()
    batch: Any = apply(using, client, [record], kept)
    assert (batch.response, kept.found) == ({"batchItemFailures": []}, {})
    table = using.tables["shop.rides"]
    columns = [settings._column(name, kind) for name, kind in TYPES.items()]
    own = views.view(columns, {"key": key}, policy=settings._policy(policy))
    store = RedisStore(client, own, f"{uuid.uuid4().hex}:", layout)  # type: ignore[arg-type]
    target, write = RedisTarget(store, 1), own.write(Loaded(row, 5))
    assert target.write([write], redis_kit.Steady()).outcomes[0].is_written
    by_stream, by_backfill = (raw(client, prefix, layout) for prefix in (table.prefix, store.prefix))
    assert by_stream == by_backfill
    assert len(by_backfill) == 1


def raw(client: Any, prefix: str, layout: str) -> dict[bytes, Any]:
    """Everything under a prefix, in the order of the fields."""
    return {
        key[len(prefix) :]: [*client.hgetall(key).items()] if layout == "hash" else client.get(key)
        for key in client.scan_iter(f"{prefix}*")
    }


@pytest.mark.parametrize("layout", ["hash", "string"])
def test_stream_dual_writes_and_a_late_backfill_obey_one_rule(client: Any, layout: str) -> None:
    using = told(layout=layout, version={"column": "rev"})
    table = using.tables["shop.rides"]
    store = RedisStore(client, table.view, table.prefix, layout)  # type: ignore[arg-type]
    target, pace = RedisTarget(store, 1), redis_kit.Steady()

    def backfill(rev: int) -> Any:
        row = {"id": 5, "value": rev, "city": "x"}
        return target.write([table.view.write(Loaded(row, rev), stamp="plan")], pace).outcomes[0].reason

    apply(using, client, [change("insert", 2000, {"id": 5, "value": 2, "city": "x", "rev": 2})])
    assert (backfill(1), backfill(2), backfill(3)) == ("newer", "equal", None)
    batch = apply(using, client, [change("delete", 2100, {"id": 5, "rev": 3})])
    assert batch.counts["shop.rides"]["Tombstones"] == 1
    assert (backfill(2), backfill(3)) == ("tombstone", "tombstone")
    batch = apply(using, client, [change("update", 2050, {"id": 5, "value": 2, "city": "x", "rev": 2})])
    assert batch.counts["shop.rides"]["Older"] == 1
    batch = apply(using, client, [change("delete", 2100, {"id": 5, "rev": 3})])
    assert batch.counts["shop.rides"]["Same"] == 1
    client.delete(store.key({"key": {"N": "5"}}))
    client.hset(store.key({"key": {"N": "5"}}), "mine", 1)
    batch = apply(using, client, [change("update", 2200, {"id": 5, "value": 2, "city": "x", "rev": 9})])
    assert batch.counts["shop.rides"]["Foreign"] == 1


def test_a_row_that_stands_for_a_deletion_is_a_tombstone(client: Any) -> None:
    using = told(version={"column": "rev"}, tombstone="gone")
    row = {"id": 5, "value": 1, "city": "x", "rev": 1, "gone": 0}
    apply(using, client, [change("insert", 2000, row)])
    assert "_deleted" not in items(using, client)["5"]
    apply(using, client, [change("update", 2100, {**row, "rev": 2, "gone": "1"})])
    assert items(using, client)["5"].keys() == {"key", "_v", "_deleted"}
    apply(using, client, [change("update", 2200, {**row, "rev": 3})])
    assert items(using, client)["5"]["value"] == {"N": "1"}
    kept = Kept()
    apply(using, client, [change("update", 2300, {"id": 5, "value": 1, "city": "x", "rev": 4})], kept)
    assert [*kept.found.values()] == ["it lacks the tombstone column gone"]


def test_renamed_columns_and_tombstones_that_expire(client: Any) -> None:
    using = told(
        columns={"id": "bigint(20)", "city": "varchar(40)"}, rename={"city": "town", "id": "ride"}, key="R#{ride}",
        tombstone_days=3, lobs={"city": 1},
    )  # fmt: skip
    table, kept = using.tables["shop.rides"], Kept()
    apply(using, client, [change("insert", 2000, {"id": 5, "city": "Köln"})], kept)
    key = f"{table.prefix}R#5"
    assert {name: value for name, value in client.hgetall(key).items() if name != b"_v"} == {
        b"ride": b"5",
        b"town": "Köln".encode(),
    }
    apply(using, client, [change("update", 2100, {"id": 6, "city": "x" * 1024}, {"id": 5})], kept)
    assert "town reaches the LOB limit" in next(iter(kept.found.values()))
    apply(using, client, [change("update", 2200, {"id": 6, "city": "x"}, {"id": 5})], kept, now_s=time.time())
    assert client.hget(key, "_deleted") == b"1"
    assert 0 <= 3 * 86_400 - client.ttl(key) < 60
    assert client.hget(f"{table.prefix}R#6", "town") == b"x"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (change("insert", 2000, {"id": None, "value": 1, "city": "x"}), "it lacks the key column id"),
        (change("insert", 2000, {"id": 5, "value": 1}), "it lacks city"),
        (change("insert", 2000, {"id": 5, "value": 2**40, "city": "x"}), "value"),
        (change("insert", 2000, {"id": -5, "value": 1, "city": "x"}), "id"),
        (change("insert", 2000, {"id": 5, "value": "many", "city": "x"}), "value is no whole number"),
        (change("insert", 2000, {"id": 5, "value": 1, "city": "x" * 450_000}), "larger|450,"),
        (change("truncate-table", 2000, {}, **{"record-type": "control"}), "control record truncate-table"),
        (b"{", "not JSON"),
    ],
    ids=["null key", "absent", "range", "key range", "type", "size", "control", "json"],
)
def test_what_can_never_be_applied_is_rejected_and_the_rest_is_written(client: Any, record: Any, reason: str) -> None:
    using, kept = told(), Kept()
    good = change("insert", 2000, {"id": 9, "value": 1, "city": "x"})
    batch: Any = apply(using, client, [record, good], kept)
    assert batch.response == {"batchItemFailures": []}
    (found,) = kept.found.values()
    assert any(each in found for each in reason.split("|")), found
    assert "many" not in found
    assert items(using, client).keys() == {"9"}


def test_what_the_server_refuses_comes_again() -> None:
    with redis_kit.server("--maxmemory", "3mb") as server:
        client, using = server.client(retry=None), told()
        client.config_set("maxmemory", 1)
        batch: Any = apply(using, client, [change("insert", 2000, {"id": 9, "value": 1, "city": "x"})], Kept())
        assert len(batch.response["batchItemFailures"]) == 1
        assert "OutOfMemoryError" in batch.out.getvalue()
        client.config_set("maxmemory", 0)
        server.kill()
        record = cdc_kit.event(change("insert", 2000, {"id": 9, "value": 1, "city": "x"}))
        batch = apply(using, client, [record], Kept())
        assert len(batch.response["batchItemFailures"]) == 1
        server.start()
        batch = apply(using, client, [record], Kept())
        assert batch.response == {"batchItemFailures": []}
        assert items(using, client).keys() == {"9"}
        batch = apply(using, client, [record], Kept(), remaining_ms=lambda: 0)
        assert len(batch.response["batchItemFailures"]) == 1


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"columns": {}}, "columns: name each column"),
        ({"columns": {**COLUMNS, "where": "point"}}, "tables.shop.rides: where"),
        ({"columns": {**COLUMNS, "rev": "int"}, "version": {"column": "rev"}}, "rev is the version or the tombstone"),
        ({"layout": "list"}, "layout: 'list' is neither hash nor string"),
        ({"key": "{nothing}"}, "there is no column 'nothing'"),
        ({"key": "{value:pad}"}, "cdc_apply pads whole numbers that are not negative"),
        ({"target": "x"}, "unknown target"),
        ({"policy": {"null": "omit"}}, "unknown null"),
        ({"version": {"column": "rev", "kind": "float"}}, "version.kind: expected one of number, timestamp"),
    ],
    ids=["no columns", "type", "version", "layout", "key", "pad", "unknown", "policy", "kind"],
)
def test_settings_that_are_wrong_are_named(table: Any, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        told(**table)
    assert text in str(caught.value)


def test_the_settings_of_the_readme_are_right() -> None:
    text = (config.ROOT / "include" / "lambda" / "cdc_redis" / "README.md").read_text()
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    found = settings.parse(json.loads(example))
    assert found.tables["shop.rides"].view.attribute_names == ("id", "price", "comment", "at")
    assert found.cdc.tables["shop.rides"].lobs == {"comment": 64}


def test_the_server_of_the_settings(monkeypatch: Any) -> None:
    with pytest.raises(SettingsError, match="redis: unknown password"):
        settings.parse(
            {"tables": {"a.b": {"key": "{id}", "columns": {"id": "int"}}}, "redis": {"host": "h", "password": "x"}}
        )
    seen: list[Any] = []
    monkeypatch.setattr(handler.redis, "RedisCluster", lambda **options: seen.append(options))

    class Secrets:
        def get_secret_value(self, SecretId: str) -> Any:
            return {"SecretString": {"plain": "s3", "json": '{"password": "s4"}'}[SecretId]}

    for secret in ("plain", "json", ""):
        handler.connect(settings.Address("h", username="cdc", secret=secret), Secrets())
    assert [each["password"] for each in seen] == ["s3", "s4", None]
    assert {each["ssl"] for each in seen} == {True}


def test_versions_of_a_log_position_are_texts_of_the_rules(client: Any) -> None:
    using = told()
    apply(using, client, [change("insert", 2000, {"id": 5, "value": 1, "city": "x"})])
    assert rules.version_of(items(using, client)["5"], rules.Names()) == rules.Version(
        "0000.0000000007.000000002000.0000000001"
    )
