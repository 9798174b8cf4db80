"""Versions, conditions and classification, and that every store has the very conditions of `rules.holds`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import boto3
import pytest
from cdc_apply import apply, changes
from cdc_apply import settings as cdc_settings
from hypothesis import given, settings
from hypothesis import strategies as st
from moto import mock_aws

from dbops.keyvalue import rules
from dbops.keyvalue.items import Item, Reject, canonical
from dbops.keyvalue.rules import Change, Condition, Domain, MixedVersions, Names, Outcome, Version, VersionError, Write
from dbops.keyvalue.stores import PUT_LUA, Contended, DynamoStore, MemoryStore, RedisStore
from tests.keyvalue import keyvalue_kit as kit

NAMES = Names()
VIEW = kit.users()
KEY: Item = {"pk": {"S": "USER#1"}}
ROW: Item = {
    "id": {"N": "1"},
    "name": {"S": "Ann"},
    "photo": {"B": b"\0\xff"},
    "tags": {"SS": ["a", "b"]},
    "active": {"BOOL": True},
}
LOG = Domain("text", (6, 4))


# --- versions ------------------------------------------------------------------------------------------------------------


def test_versions_of_one_domain() -> None:
    assert Domain().version(5) == Domain().version(Decimal(5)) < Domain().version(6)
    assert LOG.version("000001") < LOG.version(b"000002")
    assert Domain().after(Domain().version(5)) == Version(6)
    assert Domain().after(None) == Version(1)
    for wrong in (None, 5.0, True, "5", Decimal("5.5"), 2**64, -(2**63) - 1):
        with pytest.raises(VersionError, match="whole number of 64 bits"):
            Domain().version(wrong)
    for wrong in (None, 5, "00001", "00000 ", "00000ü", b"0000001"):
        with pytest.raises(VersionError, match="6 or 4 ASCII characters"):
            LOG.version(wrong)
    with pytest.raises(VersionError, match="a text has no next one"):
        LOG.after(None)
    for wrong_domain in (("text", ()), ("int", (5,)), ("text", (0,))):
        with pytest.raises(VersionError):
            Domain(*wrong_domain)  # type: ignore[arg-type]


def test_versions_of_two_domains_are_not_compared() -> None:
    with pytest.raises(MixedVersions):
        _ = Version(1) < Version("1")
    assert Version(1) != Version("1")


NUMBERS = st.one_of(st.integers(-(2**63), 2**64 - 1), st.integers(-20, 20))


@given(NUMBERS, NUMBERS)
@settings(deadline=None)
def test_tokens_sort_as_versions_and_are_read_back(one: int, other: int) -> None:
    tokens = [rules.token(Version(number)) for number in (one, other)]
    assert (tokens[0].encode() < tokens[1].encode()) == (one < other)
    assert [rules.from_token(token) for token in tokens] == [Version(one), Version(other)]


def test_what_is_no_token() -> None:
    assert rules.from_token("t0001.5") == Version("0001.5")
    assert [rules.from_token(text) for text in ("", "t", "n1", "5", "n" + "0" * 21, "nx" + "0" * 19)] == [None] * 6


# --- the same condition everywhere ------------------------------------------------------------------------------------------

VERSIONS = [None, Version(1), Version(2), Version(3), Version("000002")]
THERE: list[Item | None] = [None]
for _version, _deleted in itertools.product(VERSIONS, (False, True)):
    _item: Item = {**KEY, "_deleted": {"BOOL": True}} if _deleted else {**KEY, **ROW}
    THERE.append({**_item, **({"_v": _version.attribute} if _version else {})})
WRITES = [Write(KEY, Version(2), {"id": {"N": "1"}, "name": {"S": "new"}}, stamp="run"), Write(KEY, Version(2))]
CASES = list(itertools.product(THERE, WRITES, Condition))
CHANGES = [
    Change(KEY, {"name": {"S": "new"}}, frozenset({"photo", "born"})),
    Change(KEY, {"score": {"N": "1.5"}}),
    Change(KEY, {}, frozenset({"name"})),
]


class Seeded:
    """A store, and how an item comes into it past the rules."""

    def __init__(self, store: Any, put: Any, clear: Any) -> None:
        self.store, self.put, self.clear = store, put, clear


def in_redis(client: Any, layout: Any) -> Seeded:
    store = RedisStore(client, VIEW, "t:", layout)

    def put(item: Item) -> None:
        key = store.key(KEY)
        if layout == "hash":
            fields = list(store._fields(item))
            client.hset(key, mapping=dict(zip(fields[::2], fields[1::2], strict=True)))
        else:
            client.set(key, store._text(item))

    return Seeded(store, put, client.flushall)


@pytest.fixture(scope="module")
def redis_client() -> Iterator[Any]:
    import redis

    with kit.redis_server() as port:
        client = redis.Redis(port=port)
        yield client
        client.close()


@pytest.fixture(scope="module")
def dynamodb() -> Iterator[Any]:
    with mock_aws():
        yield boto3.client("dynamodb", "eu-central-1", aws_access_key_id="key", aws_secret_access_key="secret")


@pytest.fixture(params=["memory", "dynamodb", "redis hash", "redis string"])
def seeded(request: pytest.FixtureRequest) -> Iterator[Seeded]:
    kind, _, layout = request.param.partition(" ")
    if kind == "memory":
        memory = MemoryStore()
        yield Seeded(memory, lambda item: memory.items.update({canonical(KEY): item}), memory.items.clear)
    elif kind == "dynamodb":
        client = request.getfixturevalue("dynamodb")
        with kit.dynamodb_table(client, VIEW) as table:
            yield Seeded(
                DynamoStore(client, table),
                lambda item: client.put_item(TableName=table, Item=item),
                lambda: client.delete_item(TableName=table, Key=KEY),
            )
    else:
        yield in_redis(request.getfixturevalue("redis_client"), layout)


def same(one: Item | None, other: Item | None) -> bool:
    return (one is None) == (other is None) and canonical(one or {}) == canonical(other or {})


def test_every_store_takes_exactly_what_the_rules_take(seeded: Seeded) -> None:
    for there, write, condition in CASES:
        seeded.clear()
        if there is not None:
            seeded.put(there)
            assert same(seeded.store.get(KEY), there)
        seen = Version(2) if condition is Condition.UNCHANGED else None
        expected, outcome = rules.put(condition, there, write, NAMES, seen=seen)
        found = seeded.store.put(write, condition, seen)
        case = f"{condition} {write.is_tombstone} over {there}"
        assert found.reason == outcome.reason, case
        assert outcome.is_written or same(found.there, outcome.there), case
        assert same(seeded.store.get(KEY), expected), case


def test_every_store_changes_exactly_what_the_rules_change(seeded: Seeded) -> None:
    for there, asked in itertools.product(THERE, CHANGES):
        seeded.clear()
        if there is not None:
            seeded.put(there)
        expected, outcome = rules.change(there, asked, NAMES)
        found = seeded.store.change(asked)
        assert found.reason == outcome.reason, (there, asked)
        assert same(found.there, outcome.there), (there, asked)
        assert same(seeded.store.get(KEY), expected), (there, asked)


def test_a_write_is_the_whole_item(seeded: Seeded) -> None:
    """Nothing of the item before is left, and a tombstone expires when it should."""
    seeded.clear()
    assert seeded.store.put(Write(KEY, Version(1), ROW)).is_written
    assert seeded.store.put(Write(KEY, Version(2), None, "", 4_000_000_000)).is_written
    assert seeded.store.get(KEY) == {
        **KEY, "_v": {"N": "2"}, "_deleted": {"BOOL": True}, "_exp": {"N": "4000000000"},
    }  # fmt: skip
    assert seeded.store.put(Write(KEY, Version(3), {"id": {"N": "1"}}, "run")).is_written
    assert seeded.store.get(KEY) == {**KEY, "_v": {"N": "3"}, "id": {"N": "1"}, "_bf": {"S": "run"}}


@pytest.mark.parametrize(
    "numbers", [(2**53, 2**53 + 1), (-1, 0), (-2, -1), (2**64 - 2, 2**64 - 1), (-(2**63), 2**63), (9, 10)]
)
def test_versions_of_64_bits_are_not_rounded(seeded: Seeded, numbers: tuple[int, int]) -> None:
    seeded.clear()
    low, high = map(Version, numbers)
    assert seeded.store.put(Write(KEY, low, ROW)).is_written
    assert seeded.store.put(Write(KEY, high, ROW)).is_written
    assert seeded.store.put(Write(KEY, low, ROW)).reason == "newer"
    assert seeded.store.put(Write(KEY, high, ROW)).reason == "equal"


def test_log_positions_are_compared_by_bytes(seeded: Seeded) -> None:
    """A load's version ends with '-', a change's with '.': in most locales a server would pass over them."""
    seeded.clear()
    load, change, later = (Version(f"0001.{end}") for end in ("5-2026", "5.0001", "6-2026"))
    assert seeded.store.put(Write(KEY, load, ROW)).is_written
    assert seeded.store.put(Write(KEY, change, ROW)).is_written
    assert seeded.store.put(Write(KEY, load, ROW)).reason == "newer"
    assert seeded.store.put(Write(KEY, later, ROW)).is_written


# --- DynamoDB ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["insert", "delete"])
def test_the_condition_is_that_of_cdc_apply(kind: str) -> None:
    table = {"target": "rides", "key": {"pk": "{id}"}, "version": {"column": "rev"}}
    using = cdc_settings.parse({"tables": {"shop.rides": table}})
    metadata = {"record-type": "data", "operation": kind, "schema-name": "shop", "table-name": "rides"}
    said = changes.record(json.dumps({"data": {"id": 5, "rev": 7}, "metadata": metadata}).encode(), using)
    theirs = apply.request(changes.writes(said, using)[0], using, 0.0)
    key = {"pk": {"N": "5"}}
    columns: Item | None = {"id": {"N": "5"}, "rev": {"N": "7"}} if kind == "insert" else None
    assert rules.put_request("rides", Write(key, Version(7), columns), NAMES) == theirs


def test_partiql_insert_has_a_parameter_for_each_attribute() -> None:
    """Run against DynamoDB Local in tests/lab: moto's PartiQL takes no parameters there."""
    write = Write(KEY, Version(1), {"id": {"N": "1"}, "it's": {"S": "quoted"}})
    made = rules.partiql_insert("t", write, NAMES)
    assert made["Statement"] == "INSERT INTO \"t\" VALUE {'pk': ?, '_v': ?, 'id': ?, 'it''s': ?}"
    assert made["Parameters"] == [{"S": "USER#1"}, {"N": "1"}, {"N": "1"}, {"S": "quoted"}]


def test_partiql_replace_names_every_attribute_that_may_be_left() -> None:
    made = rules.partiql_replace("t", Write(KEY, Version(2), {"name": {"S": "new"}}), VIEW.attribute_names, NAMES)
    assert made["Statement"].startswith(
        'UPDATE "t" SET "_v"=? SET "name"=? REMOVE "_bf" REMOVE "_deleted" REMOVE "_exp" REMOVE "active"'
    )
    assert made["Statement"].endswith('WHERE "pk"=? AND attribute_type("_v", ?) AND "_v" < ?')
    assert made["Parameters"] == [{"N": "2"}, {"S": "new"}, {"S": "USER#1"}, {"S": "N"}, {"N": "2"}]
    with pytest.raises(ValueError, match="put it"):
        rules.partiql_replace("t", Write(KEY, Version(2)), (), NAMES)


def test_a_change_cannot_touch_the_key_or_the_version() -> None:
    for name in ("pk", "_v", "_deleted"):
        with pytest.raises(ValueError, match=f"{name}: a change cannot touch"):
            rules.update_request("t", Change(KEY, {name: {"S": "x"}}), NAMES)


def test_an_item_that_is_too_large_is_a_reject(dynamodb: Any) -> None:
    with kit.dynamodb_table(dynamodb, VIEW) as table, pytest.raises(Reject, match="400 KB"):
        DynamoStore(dynamodb, table).put(Write(KEY, Version(1), {"photo": {"B": b"x" * 420_000}}))


def test_other_errors_are_raised(dynamodb: Any) -> None:
    with pytest.raises(dynamodb.exceptions.ResourceNotFoundException):
        DynamoStore(dynamodb, "nowhere").put(WRITES[0])


# --- Redis ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["hash", "string"])
def test_a_server_that_forgot_the_script_is_told_it(redis_client: Any, layout: Any) -> None:
    redis_client.flushall()
    store = RedisStore(redis_client, VIEW, "t:", layout)
    redis_client.script_flush()
    assert store.put(WRITES[0]).is_written
    redis_client.script_flush()
    assert store.put(WRITES[0]).reason == "equal"
    assert redis_client.script_exists(rules_sha()) == [True]


@pytest.mark.parametrize("layout", ["hash", "string"])
def test_many_in_one_pipeline(redis_client: Any, layout: Any) -> None:
    redis_client.flushall()
    redis_client.script_flush()
    store = RedisStore(redis_client, VIEW, "t:", layout)
    writes = [Write({"pk": {"S": f"USER#{n}"}}, Version(5), {**ROW, "id": {"N": str(n)}}) for n in range(50)]
    assert all(outcome.is_written for outcome in store.put_many(writes))
    assert [outcome.reason for outcome in store.put_many(writes)] == ["equal"] * 50
    redis_client.set("t:USER#7", b"x") if layout == "hash" else redis_client.lpush("t:other", b"x")
    found = store.put_many([Write(write.key, Version(6), write.attributes) for write in writes])
    assert [outcome.reason for outcome in found] == [
        "unversioned" if n == 7 and layout == "hash" else None for n in range(50)
    ]


@pytest.mark.parametrize(
    ("layout", "value"), [("string", b"not JSON"), ("string", b'"text"'), ("string", b'{"_v":5}'), ("hash", None)]
)
def test_what_somebody_else_has_put_there_stays(redis_client: Any, layout: Any, value: Any) -> None:
    redis_client.flushall()
    redis_client.set("t:USER#1", value) if value else redis_client.rpush("t:USER#1", "x")
    store = RedisStore(redis_client, VIEW, "t:", layout)
    assert store.put(WRITES[0]).reason == "unversioned"
    assert redis_client.type("t:USER#1") == (b"string" if value else b"list")


def test_redis_expires_tombstones_only(redis_client: Any) -> None:
    redis_client.flushall()
    store = RedisStore(redis_client, VIEW, "t:")
    store.put(Write(KEY, Version(1), None, "", 4_000_000_000))
    assert redis_client.expiretime("t:USER#1") == 4_000_000_000
    store.put(Write(KEY, Version(2), ROW))
    assert redis_client.expiretime("t:USER#1") == -1


def test_documents_are_plain_json_and_hashes_plain_text(redis_client: Any) -> None:
    redis_client.flushall()
    RedisStore(redis_client, VIEW, "t:", "string").put(Write(KEY, Version(7), ROW))
    token = b"n00000000000000000007"
    assert (
        redis_client.get("t:USER#1")
        == b'{"_v":"%s","active":true,"id":1,"name":"Ann","photo":"AP8=","tags":["a","b"]}' % token
    )
    redis_client.flushall()
    RedisStore(redis_client, VIEW, "t:", "hash").put(Write(KEY, Version(7), {**ROW, "born": {"NULL": True}}))
    assert redis_client.hgetall("t:USER#1") == {
        b"_v": token, b"active": b"1", b"id": b"1", b"name": b"Ann", b"photo": b"\0\xff", b"tags": b"a,b", b"_null": b'["born"]',
    }  # fmt: skip


def test_a_change_that_is_always_overtaken_ends(redis_client: Any) -> None:
    redis_client.flushall()

    class Racing(RedisStore):
        def get(self, key: Item) -> Item | None:
            found = super().get(key)
            version = rules.version_of(found, NAMES)
            assert version is not None
            self.put(Write(key, Domain().after(version), ROW))
            return found

    store = Racing(redis_client, VIEW, "t:")
    store.put(Write(KEY, Version(1), ROW))
    with pytest.raises(Contended, match="changed 16 times"):
        store.change(CHANGES[0])


def test_clients_that_would_lose_bytes_are_refused(redis_client: Any) -> None:
    import redis

    with pytest.raises(ValueError, match="decode_responses=False"):
        RedisStore(redis.Redis(decode_responses=True), VIEW, "t:")
    with pytest.raises(ValueError, match="one key template"):
        RedisStore(redis_client, kit.views.view([kit.column("id", "int(11)")], {"pk": "A#{id}", "sk": "{id}"}), "t:")


def rules_sha() -> str:
    import hashlib

    return hashlib.sha1(PUT_LUA.encode(), usedforsecurity=False).hexdigest()


def test_outcomes_say_whether_they_are_written() -> None:
    assert Outcome().is_written
    assert not Outcome("equal").is_written
