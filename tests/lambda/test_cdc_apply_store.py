"""DynamoDB itself (the lab's DynamoDB Local) against what the function and its other tests believe of it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import cdc_kit
import pytest
from cdc_apply import apply, changes
from cdc_apply.settings import KINDS
from cdc_kit import FakeDynamo, Kept, Store, change, load
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab import config, dynamodb, lambda_runner
from lab.lambda_runner import Deployed

pytestmark = pytest.mark.lab
BY_COLUMN = {"version": {"column": "rev"}}
# The lab marker's fixtures belong to a test, not to an example.
PROPERTY = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
STEPS = st.lists(
    st.tuples(st.sampled_from(["load", "insert", "update", "delete", "move", "foreign"]), st.booleans(), st.integers(1, 4)),
    max_size=12,
)  # fmt: skip


@pytest.fixture(scope="module")
def own_key() -> str:
    return f"test{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def store(own_key: str) -> Iterator[Store]:
    made = Store(dynamodb.client(own_key))
    with made.table():
        yield made


def step(client: Any, key: int, kind: str, by_column: bool, version: int) -> list[Any]:
    """One record, or an item of somebody else; returns what became of it."""
    row = {"id": key, "city": f"city {version}", "rev": version}
    if kind == "foreign":
        there = [{}, {"_v": {"BOOL": True}}, {"_v": {"N": "3"}}, {"_v": {"S": "0"}}][version - 1]
        client.hold({"pk": {"N": str(key)}, **there})
        return []
    using = cdc_kit.settings(BY_COLUMN if by_column else {})
    if kind == "load":
        said = load(row, f"2026-11-29T10:00:0{version}Z")
    elif kind == "move":
        said = change("update", version, {**row, "id": key + 1}, {"id": key})
    else:
        said = change(kind, version, row)
    record = changes.record(json.dumps(said).encode(), using)
    return [apply.put(client, write, using, 0.0) for write in changes.writes(record, using)]


@PROPERTY
@given(steps=STEPS)
def test_the_fake_of_the_other_tests_answers_as_the_store_does(store: Store, steps: list[Any]) -> None:
    fake, key = FakeDynamo(), uuid.uuid4().int % 10**15
    for kind, by_column, version in steps:
        assert step(store, key, kind, by_column, version) == step(fake, key, kind, by_column, version)
        for each in (key, key + 1):
            assert store.item({"N": str(each)}) == fake.item({"N": str(each)})


TEXTS = st.text(max_size=30) | st.sampled_from(
    ["", "0x", "0x00ff", "a,b", "a,,b", "a,a", "1e5", "-0", "9" * 39, "1" * 66]
)
NUMBERS = (
    st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([9.9e125, 1e126, 1e-130, 9e-131, -1e-130, 0.1, -0.0, 10**37, 10**38 - 1])
)
VALUES = st.recursive(
    st.none() | st.booleans() | TEXTS | NUMBERS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@settings(PROPERTY, max_examples=250)
@given(
    value=VALUES,
    kind=st.sampled_from(["", *sorted(KINDS)]),
    as_text=st.booleans(),
    nulls=st.sampled_from(["omit", "null"]),
)
def test_whatever_the_function_does_not_reject_the_store_takes(
    store: Store, value: Any, kind: str, as_text: bool, nulls: str
) -> None:
    """Or one row would stop its shard for as long as the mapping tries."""
    table = {"nulls": nulls, **({"columns": {"value": kind}} if kind else {})}
    said = change("insert", 1, {"id": uuid.uuid4().int % 10**15, "value": json.dumps(value) if as_text else value})
    batch = cdc_kit.apply(store, [said], cdc_kit.settings(table), kept := Kept())
    assert batch.response == {"batchItemFailures": []}, batch.out.getvalue()  # type: ignore[attr-defined]
    counts = batch.counts["shop.rides"]
    assert counts["Written"] + counts["Rejected"] == 1
    assert len(kept.found) == counts["Rejected"]


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "is_taken"),
    [
        (nested(31), True), (nested(32), False), ("x" * 409_000, True), ("x" * 409_600, False), ("ä" * 210_000, False),
        (int("9" * 38), True), (int("9" * 39), False), (9.9999e125, True), (1e126, False), (1e-130, True), (1e-131, False),
        (-1e-130, True), ([], True), ({}, True), ("", True), ({"": 1}, False), ([None, True, ""], True),
    ],
)  # fmt: skip
def test_limits_are_those_of_the_store(store: Store, value: Any, is_taken: bool) -> None:
    key = uuid.uuid4().int % 10**15
    kept = Kept()
    using = cdc_kit.settings({"columns": {"v": "number"}} if isinstance(value, float) else {})
    batch = cdc_kit.apply(store, [change("insert", 1, {"id": key, "v": value})], using, kept)
    assert batch.response == {"batchItemFailures": []}, batch.out.getvalue()  # type: ignore[attr-defined]
    assert (not kept.found, store.item({"N": str(key)}) is not None) == (is_taken, is_taken)


def test_a_row_that_grew_too_large_keeps_its_older_state_and_follows_again_once_it_fits(store: Store) -> None:
    key, kept = uuid.uuid4().int % 10**15, Kept()
    sizes = {100: 10, 200: 500_000, 300: 20}
    for at, size in sizes.items():
        cdc_kit.apply(store, [change("update", at, {"id": key, "v": "x" * size})], cdc_kit.settings(), kept)
        assert len(store.item({"N": str(key)})["v"]["S"]) == {100: 10, 200: 10, 300: 20}[at]
    assert ["400 KB" in reason for reason in kept.found.values()] == [True]


def test_a_key_of_2048_bytes_is_the_longest_and_its_length_is_counted_in_utf8(store: Store) -> None:
    using = cdc_kit.settings({"target": "texts", "key": {"pk": "{name}"}})
    with store.table("texts", "S"):
        for name, is_taken in (("ä" * 1024, True), ("ä" * 1024 + "b", False), ("#%", True)):
            cdc_kit.apply(store, [change("insert", 1, {"name": name})], using, kept := Kept())
            assert bool(kept.found) != is_taken
            assert not is_taken or store.item({"S": name}, "texts") is not None


def test_a_table_that_is_not_there_is_no_reject(store: Store) -> None:
    batch = cdc_kit.apply(
        store, [cdc_kit.event(change("insert", 1, {"id": 1}), 11)], cdc_kit.settings({"target": "absent"}), Kept()
    )
    assert batch.response == {"batchItemFailures": [{"itemIdentifier": "11"}]}


# --- deployed ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def deployed(tmp_path: Any, own_key: str) -> Iterator[Any]:
    """The zip in a process that has the standard library and boto3, and talks to the store."""
    made: list[Deployed] = []

    def deploy(told: Any, **more: str) -> Deployed:
        folder = config.ROOT / "include" / "lambda" / "cdc_apply"
        environment = {
            "CDC_SETTINGS": json.dumps(told), "AWS_ENDPOINT_URL_DYNAMODB": config.dynamodb_endpoint(),
            "AWS_ACCESS_KEY_ID": own_key, **more,
        }  # fmt: skip
        archive = lambda_runner.package(folder, tmp_path / "f.zip")
        made.append(Deployed(archive, "cdc_apply.handler.lambda_handler", environment, tmp_path / "log"))
        return made[-1]

    yield deploy
    for each in made:
        each.close()


def test_old_batches_that_come_again_change_nothing(store: Store, deployed: Any) -> None:
    """A whole shard from its begin, as after a mapping that was made anew: no value goes back, no deleted row comes back."""
    first = uuid.uuid4().int % 10**12 * 100
    function = deployed({"tables": {"shop.rides": {"target": "rides", "key": {"pk": "{id}"}}}})

    def record(number: int) -> Any:
        key, at = first + number % 7, number + 1
        if number < 7:
            return load({"id": key, "n": -1})
        return change("delete" if number % 5 == 0 else "update", at, {"id": key, "n": number})

    events = [cdc_kit.event(record(number)) for number in range(100)]
    batches = [{"Records": events[start : start + 9]} for start in range(0, 100, 9)]

    def items() -> list[Any]:
        return [store.item({"N": str(first + number)}) for number in range(7)]

    for batch in batches:
        assert function(batch) == {"batchItemFailures": []}
    expected = items()
    last = {number % 7: number for number in range(100)}
    for number, item in enumerate(expected):
        assert ("_deleted" in item) == (last[number] % 5 == 0)
        assert item.get("n") == (None if "_deleted" in item else {"N": str(last[number])})
    for again in (batches, batches[::-1], [{"Records": events[::-1]}], [{"Records": events[:50]}]):
        for batch in again:
            assert function(batch) == {"batchItemFailures": []}
        assert items() == expected


def test_a_record_that_can_never_be_applied_is_reported_alone_when_there_is_nowhere_to_keep_it(
    store: Store, deployed: Any
) -> None:
    key = uuid.uuid4().int % 10**15
    function = deployed({"tables": {"shop.rides": {"target": "rides", "key": {"pk": "{id}"}}}})
    events = [
        cdc_kit.event(change("insert", 1, {"id": key + n, "v": "x" * (500_000 if n == 1 else 1)})) for n in range(3)
    ]
    answer = function({"Records": events})
    assert answer == {"batchItemFailures": [{"itemIdentifier": events[1]["kinesis"]["sequenceNumber"]}]}
    assert [store.item({"N": str(key + n)}) is not None for n in range(3)] == [True, False, True]


def test_without_the_store_every_record_is_reported(deployed: Any) -> None:
    function = deployed(
        {"tables": {"shop.rides": {"target": "rides", "key": {"pk": "{id}"}}}},
        AWS_ENDPOINT_URL_DYNAMODB="http://127.0.0.1:1", AWS_MAX_ATTEMPTS="1",
    )  # fmt: skip
    events = [cdc_kit.event(change("insert", 1, {"id": n})) for n in range(3)]
    assert [each["itemIdentifier"] for each in function({"Records": events})["batchItemFailures"]] == [
        each["kinesis"]["sequenceNumber"] for each in events
    ]
